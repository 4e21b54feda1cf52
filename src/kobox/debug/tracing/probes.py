"""Probes on a function's entry and return, with arguments by name and type from the prototype in BTF.

Each becomes two lines for the kernel's ``kprobe_events``. Follows ``Documentation/trace/kprobetrace.rst``; what an
argument's register is comes from the calling convention.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kobox.errors import UsageError
from kobox.image.btf import Kind, Type

GROUP = "kobox"
_REGISTERS = ("%di", "%si", "%dx", "%cx", "%r8", "%r9")
_RETURN = "_ret"
_SIZES = (1, 2, 4, 8)
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Probe:
    """A function as it was asked for: ``name`` or ``module:name``."""

    function: str
    module: str = ""

    @classmethod
    def parse(cls, text: str) -> Probe:
        module, _, function = text.rpartition(":")
        if not _NAME.fullmatch(function.replace(".", "_")) or (
            module and not _NAME.fullmatch(module.replace("-", "_"))
        ):
            raise UsageError(f"no function can be called {text!r}", hint="--probe FUNCTION or MODULE:FUNCTION")
        return cls(function, module.replace("-", "_"))

    @property
    def event(self) -> str:
        """The probe's event: the function's name, with ``_`` for what an event's name cannot have."""
        return self.function.replace(".", "_")

    @property
    def events(self) -> tuple[str, str]:
        """Of the entry and of the return."""
        return self.event, self.event + _RETURN

    def lines(self, prototype: Type | None) -> tuple[str, str]:
        """What is written to ``kprobe_events``. Without a prototype the six argument registers are shown."""
        place = f"{self.module}:{self.function}" if self.module else self.function
        if prototype is None:
            shown = " ".join(f"arg{index + 1}={name}:x64" for index, name in enumerate(_REGISTERS))
            result = "ret=$retval:x64"
        else:
            shown = " ".join(_arguments(prototype))
            result = _result(prototype.returns)
        entry, leave = self.events
        return f"p:{GROUP}/{entry} {place} {shown}".rstrip(), f"r:{GROUP}/{leave} {place} {result}".rstrip()


def _arguments(prototype: Type) -> Iterator[str]:
    """``name=%di:s32``: each parameter that lies in a register or in one word of the stack; from the first that is
    passed in another way none can be told."""
    for index, parameter in enumerate(prototype.params):
        kind = parameter.type.strip()
        if kind.kind not in (Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.PTR):
            return
        place = _REGISTERS[index] if index < len(_REGISTERS) else f"$stack{index - len(_REGISTERS) + 1}"
        name = parameter.name if _NAME.fullmatch(parameter.name) else f"arg{index + 1}"
        yield f"{name}={_fetch(place, kind)}"


def _result(kind: Type) -> str:
    plain = kind.strip()
    if plain.kind not in (Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.PTR):
        return ""
    return f"ret={_fetch('$retval', plain)}"


def _fetch(place: str, kind: Type) -> str:
    if kind.kind is Kind.PTR:
        if _is_text(kind):
            return f"+0({place}):string"
        return f"{place}:x64"
    if kind.size not in _SIZES:
        return f"{place}:x64"
    return f"{place}:{'s' if kind.is_signed else 'u'}{kind.size * 8}"


def _is_text(pointer: Type) -> bool:
    """Whether it points to ``const char``: a ``char *`` may well be a buffer that holds nothing yet."""
    target = pointer.target
    constant = False
    while target.kind in (Kind.CONST, Kind.VOLATILE, Kind.TYPEDEF, Kind.RESTRICT):
        constant = constant or target.kind is Kind.CONST
        target = target.target
    return constant and target.kind is Kind.INT and target.size == 1 and target.name == "char"
