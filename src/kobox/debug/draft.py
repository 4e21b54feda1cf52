"""A report while its lines come in: what the reader fills and, at the end, turns into a record."""

from __future__ import annotations

from dataclasses import dataclass, field

from kobox.abi.traps import GENERAL, NO_SYSCALL
from kobox.debug.records import (
    Banner,
    Code,
    ControlRegisters,
    Kind,
    LinkedIn,
    Oops,
    PageFault,
    Registers,
    RegsFrame,
    SourceLine,
    Symbol,
    TraceItem,
)


@dataclass(slots=True)
class Inner:
    """Saved registers inside a trace."""

    symbol: Symbol | None
    values: dict[str, int]
    code: Code | None = None

    def some(self) -> dict[str, int]:
        members = {"RIP": "ip", "CS": "cs", "SS": "ss", "RSP": "sp", "EFLAGS": "flags"}
        return {members[name]: value for name, value in self.values.items() if name in members}


@dataclass(slots=True)
class Draft:
    """One report."""

    kind: Kind
    title: str
    description: str = ""
    error_code: int = 0
    number: int = 1
    die_flags: str = ""
    address: int | None = None
    walk: tuple[tuple[str, int], ...] = ()
    nx_page: bool = False
    bug_at: SourceLine | None = None
    message: list[str] = field(default_factory=list)
    seconds: int | None = None
    banner: Banner = field(default_factory=Banner)
    symbol: Symbol | None = None
    values: dict[str, int] = field(default_factory=dict)
    control: dict[str, int] = field(default_factory=dict)
    has_rip: bool = False
    code: Code | None = None
    trace: list[TraceItem] = field(default_factory=list)
    modules: tuple[LinkedIn, ...] = ()
    unloaded: str = ""
    panic: str | None = None
    died: bool = False
    in_trace: bool = False
    ended: bool = False
    inner: Inner | None = None

    @property
    def has_body(self) -> bool:
        return self.has_rip or self.in_trace or self.died

    def finish(self) -> Oops:
        self.close_inner()
        fault = None
        if self.address is not None and self.kind in PAGE_FAULTS:
            fault = PageFault(self.address, self.error_code, self.walk, self.nx_page)
        control = {_CONTROL[name]: value for name, value in self.control.items() if name in _CONTROL}
        return Oops(
            kind=self.kind,
            title=self.title,
            banner=self.banner,
            description=self.description,
            error_code=self.error_code,
            number=self.number,
            die_flags=self.die_flags,
            fault=fault,
            bug_at=self.bug_at,
            message="\n".join(self.message),
            seconds=self.seconds,
            symbol=self.symbol,
            registers=registers_of(self.values),
            control=ControlRegisters(**control) if "cr2" in control else None,
            code=self.code,
            trace=tuple(self.trace),
            modules=self.modules,
            unloaded=self.unloaded,
            panic=self.panic,
        )

    def close_inner(self) -> None:
        if self.inner is not None:
            values = registers_of(self.inner.values)
            self.trace.append(
                RegsFrame(
                    values or Registers(**self.inner.some()), self.inner.symbol, self.inner.code, partial=values is None
                )
            )
            self.inner = None


PAGE_FAULTS = frozenset({Kind.NULL_DEREFERENCE, Kind.PAGE_FAULT, Kind.BAD_EXECUTE, Kind.STACK_OVERFLOW})
_CONTROL = {
    "FS": "fs",
    "GS": "gs",
    "knlGS": "kernel_gs",
    "DS": "ds",
    "ES": "es",
    "CR0": "cr0",
    "CR2": "cr2",
    "CR3": "cr3",
    "CR4": "cr4",
}
_POINTERS = {"RIP": "ip", "CS": "cs", "SS": "ss", "RSP": "sp", "EFLAGS": "flags", "ORIG_RAX": "orig_ax"}


def registers_of(values: dict[str, int]) -> Registers | None:
    """Registers only when the dump was complete: a value that is not known must not look like zero."""
    if any(name not in values for name in GENERAL):
        return None
    known = {GENERAL[name]: values[name] for name in GENERAL}
    known |= {member: values[name] for name, member in _POINTERS.items() if name in values}
    return Registers(**{"orig_ax": NO_SYSCALL, **known})
