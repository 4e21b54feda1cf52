"""What a load's parameter string would do: the loader's own parser and the standard types, on the linked module.

A parameter with operations of the module's own is left undecided: only running them tells.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from kobox.errors import BadFile, Errno
from kobox.image import Image
from kobox.image.btf import Btf
from kobox.kernel import params
from kobox.link.tables import Table
from kobox.sign import lockdown_line
from kobox.verdict.records import Line

_OPS, _ARRAY_OPS = "param_ops_", "param_array_ops"
_STRINGS_AT = 0x1000
"""Where copies of strings are put: no module lies there."""
_MASK = (1 << 64) - 1


@dataclass(slots=True)
class Outcome:
    """``error`` is 0 or a negative errno. ``undecided`` are parameters that the module's own code judges."""

    error: int = 0
    lines: list[Line] = field(default_factory=list)
    refused: list[dict[str, object]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unsafe: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


class Linked:
    """A linked module's memory, read and written as the guest's would be; the kernel's own is read from the image."""

    def __init__(
        self, image: Image, memory: Mapping[str, bytearray], bases: Mapping[str, int], bound: Mapping[int, str]
    ) -> None:
        self._image = image
        self._regions = [(bases[name], data) for name, data in memory.items()]
        self._bound = bound
        self._strings = bytearray()

    def read(self, address: int, size: int) -> bytes:
        for base, data in self._regions:
            if base <= address <= base + len(data) - size:
                return bytes(data[address - base : address - base + size])
        if _STRINGS_AT <= address < _STRINGS_AT + len(self._strings):
            return bytes(self._strings[address - _STRINGS_AT :][:size]).ljust(size, b"\0")
        try:
            return self._image.read(address, size)
        except BadFile as error:
            raise Errno(errno.EFAULT, f"nothing at {address:#x}") from error

    def write(self, address: int, data: bytes) -> None:
        for base, region in self._regions:
            if base <= address <= base + len(region) - len(data):
                region[address - base : address - base + len(data)] = data

    def string(self, address: int) -> bytes:
        text = b""
        while b"\0" not in text and len(text) < params.PAGE_SIZE:
            text += self.read(address + len(text), 1)
        return text.partition(b"\0")[0]

    def kind_of(self, operations: int) -> str:
        """The standard type that operations stand for, empty for the module's own or unknown ones."""
        name = self._bound.get(operations, "")
        kind = "array" if name == _ARRAY_OPS else name.removeprefix(_OPS)
        return kind if name and kind in params.TYPES else ""

    def duplicate(self, text: bytes) -> int:
        at = _STRINGS_AT + len(self._strings)
        self._strings += text + b"\0"
        return at

    def fields(self, address: int, struct_name: str, *names: str) -> list[int]:
        """Unsigned members of a structure."""
        kind = btf_of(self._image).struct(struct_name)
        members = [kind.member(name) for name in names]
        return [int.from_bytes(self.read(address + m.offset, m.size), "little") for m in members]


def btf_of(image: Image) -> Btf:
    return image.btf


class _Environment:
    """What the rules for parameters ask of the kernel."""

    def __init__(self, linked: Linked, outcome: Outcome, locked: bool, comm: str) -> None:
        self._linked, self._outcome, self._locked, self._comm = linked, outcome, locked, comm
        self.read, self.write, self.duplicate = linked.read, linked.write, linked.duplicate
        self.setting = ""

    def log(self, level: int, text: str) -> None:
        self._outcome.lines.append(Line(level, text))

    def taint_unsafe(self) -> None:
        self._outcome.unsafe.append(self.setting)

    def locked_down(self) -> bool:
        if self._locked:
            line = lockdown_line(self._comm, "unsafe module parameters")
            self.log(line.level, line.text)
        return self._locked

    def release(self, address: int) -> None:
        """Nothing is given back: the outcome is all that stays."""

    def string_at(self, address: int) -> params.StringArg:
        return params.StringArg(*self._linked.fields(address, "kparam_string", "maxlen", "string"))

    def array_at(self, address: int) -> params.ArrayArg:
        names = ("max", "elemsize", "num", "ops", "elem")
        most, size, count, operations, place = self._linked.fields(address, "kparam_array", *names)
        return params.ArrayArg(most, size, count, self._linked.kind_of(operations), place)


def try_settings(
    module: str, arguments: bytes, linked: Linked, table: Table | None, *, locked: bool, comm: str
) -> Outcome:
    """Apply ``arguments`` as a load would."""
    outcome = Outcome()
    environment = _Environment(linked, outcome, locked, comm)
    known = parameters_of(linked, table)
    args = bytearray(arguments.partition(b"\0")[0] + b"\0")
    parsing = params.parse_args(module, args, known, environment)
    answer: int | None = None
    while True:
        before = len(outcome.lines)
        try:
            request = parsing.send(answer)  # type: ignore[arg-type]  # a fresh generator takes None
        except StopIteration as done:
            outcome.error = done.value.error
            if done.value.rest is not None:
                environment.log(4, params.rest_line(module, done.value.rest))
            break
        finally:
            _note_refusals(outcome, before)
        answer = _answer(module, request, environment, outcome, linked, args)
    return outcome


def _note_refusals(outcome: Outcome, before: int) -> None:
    for line in outcome.lines[before:]:
        if " parameter `" in line.text and line.level == 3:
            outcome.refused.append({"line": line.text})


def _answer(
    module: str, request: params.Request, environment: _Environment, outcome: Outcome, linked: Linked, args: bytearray
) -> int:
    parameter, argument = request
    name = argument.name.decode("latin-1")
    if parameter is None:
        if name != "async_probe" and name != "dyndbg" and not name.endswith(".dyndbg"):
            outcome.unknown.append(name)
            environment.log(4, params.ignored_line(module, argument))
        return 0
    environment.setting = parameter.name
    kind = parameter.type
    if kind == "array":
        kind = environment.array_at(parameter.arg).element_type
    if not kind:
        outcome.undecided.append(parameter.name)
        return 0
    result = params.set_parameter(parameter, argument.value, environment)
    if parameter.type == "array" and argument.at >= 0:
        params.cut_array(args, argument.at)
    return result


def parameters_of(linked: Linked, table: Table | None) -> list[params.Parameter]:
    """The entries of a linked module's ``__param``."""
    if table is None or not table.entries:
        return []
    size = table.size // table.entries
    found = []
    for number in range(table.entries):
        at = table.address + number * size
        name, ops, perm, level, flags, arg = linked.fields(
            at, "kernel_param", "name", "ops", "perm", "level", "flags", "arg"
        )
        kind = linked.kind_of(ops)
        takes_none = None if kind else bool(_flags(linked, ops) & 1)
        text = _text(linked, name)
        found.append(params.Parameter(text, arg, kind, perm, struct.unpack("b", bytes([level]))[0], flags, takes_none))
    return found


def _text(linked: Linked, address: int) -> str:
    """A parameter's name; empty where a broken module's pointer leads nowhere, as for the loader."""
    try:
        return linked.string(address).decode("latin-1")
    except Errno:
        return ""


def _flags(linked: Linked, operations: int) -> int:
    try:
        return linked.fields(operations, "kernel_param_ops", "flags")[0]
    except Errno:
        return 0
