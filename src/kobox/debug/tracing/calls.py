"""From the records of the function tracers to calls: who called whom, how deep, how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kobox.debug.tracing.events import flags_text
from kobox.debug.tracing.names import Names
from kobox.debug.tracing.records import Call, Options, Place
from kobox.debug.tracing.ring import Format


class Entered(NamedTuple):
    """A function was entered. ``caller`` is None, and ``depth`` the number of traced functions around it, with the
    graph tracer; with the function tracer ``depth`` is -1."""

    time: int
    pid: int
    address: int
    place: Place
    caller: Place | None
    depth: int
    flags: str


class Left(NamedTuple):
    """A traced function returned; ``began`` is when it was entered."""

    time: int
    pid: int
    address: int
    depth: int
    began: int


class FunctionReader:
    """Decodes the records of one function tracer, whose kinds are given by their formats."""

    def __init__(self, formats: Sequence[Format], names: Names) -> None:
        self._names = names
        self._read = {form.number: self._reader(form) for form in formats}

    def read(self, time: int, data: bytes) -> Entered | Left | None:
        """None for a record of another kind."""
        reader = self._read.get(data[0] | data[1] << 8)
        return reader(time, data) if reader is not None else None

    def _reader(self, form: Format) -> Callable[[int, bytes], Entered | Left]:
        return {"function": self._function, "funcgraph_entry": self._entry, "funcgraph_exit": self._exit}[form.name](
            form
        )

    def _function(self, form: Format) -> Callable[[int, bytes], Entered | Left]:
        pick, at = form.picker("ip", "parent_ip").unpack_from, self._names.at

        def read(time: int, data: bytes) -> Entered:
            ip, parent = pick(data)
            return Entered(time, _pid(data), ip, at(ip), at(parent), -1, flags_text(data[2], data[3]))

        return read

    def _entry(self, form: Format) -> Callable[[int, bytes], Entered | Left]:
        pick, at = form.picker("func", "depth").unpack_from, self._names.at

        def read(time: int, data: bytes) -> Entered:
            address, depth = pick(data)
            return Entered(time, _pid(data), address, at(address), None, depth, flags_text(data[2], data[3]))

        return read

    def _exit(self, form: Format) -> Callable[[int, bytes], Entered | Left]:
        pick = form.picker("func", "depth", "calltime", "rettime").unpack_from

        def read(time: int, data: bytes) -> Left:
            address, depth, began, ended = pick(data)
            return Left(ended, _pid(data), address, depth, began)

        return read


def _pid(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little", signed=True)


@dataclass(slots=True)
class _Open:
    """A call under way. ``index`` is its place among the calls, None where it is not shown."""

    entered: Entered
    index: int | None


@dataclass(slots=True)
class _Builder:
    options: Options
    names: Mapping[int, str]
    calls: list[Call] = field(default_factory=list)
    durations: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By index of a call: when it began and how long it lasted."""
    stacks: dict[int, list[_Open]] = field(default_factory=dict)
    """Calls under way by task."""

    def enter(self, one: Entered) -> None:
        if one.depth < 0:
            if self._shown(one.place, one.caller):
                self._add(one, 0, one.caller, None)
            return
        stack = self.stacks.setdefault(one.pid, [])
        while stack and stack[-1].entered.depth >= one.depth:
            stack.pop()  # its return was lost
        if not self._shown(one.place, stack[-1].entered.place if stack else None):
            stack.append(_Open(one, None))
            return
        parent = next((outer.index for outer in reversed(stack) if outer.index is not None), None)
        stack.append(_Open(one, len(self.calls)))
        if parent is None:
            self._add(one, 0, None, None)
        else:
            self._add(one, self.calls[parent].depth + 1, self.calls[parent].place, parent)

    def leave(self, one: Left) -> None:
        stack = self.stacks.get(one.pid, [])
        while stack and stack[-1].entered.depth > one.depth:
            stack.pop()
        if not stack or stack[-1].entered.depth != one.depth or stack[-1].entered.address != one.address:
            return  # its entry was lost
        index = stack.pop().index
        if index is not None:
            self.durations[index] = (one.began, one.time - one.began)

    def _shown(self, place: Place, caller: Place | None) -> bool:
        """The kernel's functions are asked for by name, or shown where a traced module calls them."""
        options = self.options
        if not options.by_module or options.wants(place):
            return True
        if caller is None or not caller.module or not options.callees:
            return False
        return not options.modules or caller.module in options.modules

    def _add(self, one: Entered, depth: int, caller: Place | None, parent: int | None) -> None:
        comm = self.names.get(one.pid, "<...>")
        self.calls.append(Call(one.place, one.address, one.time, one.pid, comm, depth, None, caller, parent, one.flags))


def build_calls(records: Iterable[Entered | Left], options: Options, names: Mapping[int, str]) -> tuple[Call, ...]:
    """Calls in the order in which they began. ``names``: tasks by process id."""
    builder = _Builder(options, names)
    for one in records:
        if isinstance(one, Entered):
            builder.enter(one)
        else:
            builder.leave(one)
    calls = builder.calls
    for index, (start, duration) in builder.durations.items():
        one_call = calls[index]
        calls[index] = Call(
            one_call.place, one_call.address, start, one_call.pid, one_call.comm, one_call.depth, duration,
            one_call.caller, one_call.parent, one_call.flags,
        )  # fmt: skip
    return tuple(calls)
