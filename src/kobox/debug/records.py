"""What is known about a crash: plain records, made by the kernel's fault path or by reading a pasted log.

No rendering here (``klog`` writes the kernel's own text, ``report`` the one for people), no reading of memory
(``unwind``). Addresses are guest addresses; None means that it is not known, never that it is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from kobox.abi.traps import GENERAL, KERNEL_CS, KERNEL_DS, NO_SYSCALL


class Kind(Enum):
    """What happened. The value is the word used in JSON."""

    NULL_DEREFERENCE = "null-dereference"
    PAGE_FAULT = "page-fault"
    BAD_EXECUTE = "bad-execute"
    GENERAL_PROTECTION = "general-protection"
    BUG = "bug"
    INVALID_OPCODE = "invalid-opcode"
    DIVIDE_ERROR = "divide-error"
    INT3 = "int3"
    STACK_OVERFLOW = "stack-overflow"
    DOUBLE_FAULT = "double-fault"
    TRAP = "trap"
    WARNING = "warning"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    HUNG_TASK = "hung-task"
    RCU_STALL = "rcu-stall"
    SCHEDULING_WHILE_ATOMIC = "scheduling-while-atomic"
    SLEEPING_IN_ATOMIC = "sleeping-in-atomic"
    SANITIZER = "sanitizer"
    MEMORY_CORRUPTION = "memory-corruption"
    LOCKDEP = "lockdep"
    PANIC = "panic"
    STACK_DUMP = "stack-dump"
    PLACES = "places"
    """No report at all: addresses that somebody wants to know."""

    @property
    def kills_task(self) -> bool:
        """Whether the task that hit it dies (as opposed to a report after which it goes on)."""
        return self in _FATAL


_FATAL = frozenset(
    {
        Kind.NULL_DEREFERENCE,
        Kind.PAGE_FAULT,
        Kind.BAD_EXECUTE,
        Kind.GENERAL_PROTECTION,
        Kind.BUG,
        Kind.INVALID_OPCODE,
        Kind.DIVIDE_ERROR,
        Kind.INT3,
        Kind.STACK_OVERFLOW,
        Kind.DOUBLE_FAULT,
        Kind.TRAP,
    }
)


@dataclass(frozen=True, slots=True)
class Symbol:
    """Where an address lies: ``name+0xoffset/0xsize [module]``."""

    name: str
    offset: int
    size: int = 0
    module: str | None = None

    def __str__(self) -> str:
        size = f"/{self.size:#x}" if self.size else ""
        module = f" [{self.module}]" if self.module else ""
        return f"{self.name}+{self.offset:#x}{size}{module}"


class Symbolizer(Protocol):
    """Finds the function or object that covers an address; None when nothing does."""

    def __call__(self, address: int, /) -> Symbol | None: ...


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A place in C source. ``function``: set where an inlined function is meant; ``text``: the line when readable."""

    file: str
    line: int
    function: str | None = None
    column: int = 0
    text: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Registers:
    """``struct pt_regs`` by value."""

    ip: int = 0
    sp: int = 0
    flags: int = 0
    ax: int = 0
    bx: int = 0
    cx: int = 0
    dx: int = 0
    si: int = 0
    di: int = 0
    bp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    orig_ax: int = NO_SYSCALL
    cs: int = KERNEL_CS
    ss: int = KERNEL_DS

    @property
    def user_mode(self) -> bool:
        return self.cs & 3 == 3

    def general(self) -> dict[str, int]:
        """RAX … R15 in the order of the kernel's dump."""
        return {name: getattr(self, member) for name, member in GENERAL.items()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, int]) -> Registers:
        """From names such as ``rip``, ``rax``, ``r8``, ``eflags`` (any case); unknown names are ignored."""
        known = {}
        for name, value in values.items():
            member = _MEMBER_OF.get(name.lower())
            if member:
                known[member] = value
        return cls(**known)


_MEMBER_OF: dict[str, str] = {
    **{name.lower(): member for name, member in GENERAL.items()},
    **{member: member for member in ("r8", "r9", "cs", "ss", "orig_ax", "ip", "sp", "flags", *GENERAL.values())},
    "rip": "ip",
    "rsp": "sp",
    "eflags": "flags",
    "rflags": "flags",
    "orig_rax": "orig_ax",
}


@dataclass(frozen=True, slots=True)
class ControlRegisters:
    """What the dump shows beside ``pt_regs``. The defaults are the segments of a kernel on x86-64."""

    fs: int = 0
    gs: int = 0
    kernel_gs: int = 0
    fs_index: int = 0
    gs_index: int = 0
    ds: int = 0
    es: int = 0
    cr0: int = 0x80050033
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0


@dataclass(frozen=True, slots=True)
class Code:
    """Instruction bytes from ``start`` on. ``data`` None: the memory there could not be read, as the log says."""

    start: int
    data: bytes | None
    ip_offset: int = 42


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction; ``memory`` is its memory operand, if any."""

    address: int
    data: bytes
    text: str
    faulting: bool = False
    memory: MemoryOperand | None = None


@dataclass(frozen=True, slots=True)
class MemoryOperand:
    """``base + index * scale + displacement`` with register names, and the address it gave if registers are known."""

    base: str | None
    index: str | None
    scale: int
    displacement: int
    size: int
    writes: bool
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """What the faulting instruction reached for, in words of the source."""

    variable: str
    type_name: str
    member: str | None
    member_type: str | None
    offset: int
    value: int | None
    register: str
    argument: int | None = None
    """Number of the parameter (from 1), when the variable was not known and this is what the register likely held."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A return address in the trace. ``reliable`` False: found by scanning the stack, printed with ``?``.

    ``source`` begins with the innermost inlined function and ends with the function of the frame itself.
    """

    address: int | None
    symbol: Symbol | None
    reliable: bool = True
    source: tuple[SourceLine, ...] = ()


@dataclass(frozen=True, slots=True)
class StackMark:
    """``<TASK>`` or ``</TASK>``: a stack begins or ends."""

    name: str
    end: bool = False


@dataclass(frozen=True, slots=True)
class RegsFrame:
    """Registers saved on the stack: an interrupted context, or the system call's user registers at the end."""

    registers: Registers
    symbol: Symbol | None
    code: Code | None
    partial: bool = False
    source: tuple[SourceLine, ...] = ()


TraceItem = Frame | StackMark | RegsFrame


@dataclass(frozen=True, slots=True)
class PageFault:
    """A page fault: address, hardware error code and the page-table entries met (``("PGD", 0x…), …``)."""

    address: int
    error_code: int
    walk: tuple[tuple[str, int], ...] = ()
    nx_page: bool = False
    """The page is present but not executable, and was executed."""
    uid: int = 0


@dataclass(frozen=True, slots=True)
class LinkedIn:
    """A module of the ``Modules linked in:`` line; ``flags`` as printed (``OE+``)."""

    name: str
    flags: str = ""

    def __str__(self) -> str:
        return f"{self.name}({self.flags})" if self.flags else self.name


@dataclass(frozen=True, slots=True)
class Banner:
    """The identity lines that every report carries."""

    cpu: int | None = None
    pid: int | None = None
    uid: int | None = None
    comm: str | None = None
    taint: int | None = None
    release: str | None = None
    version: str = ""
    """``#1`` and the distribution's own words: what follows the release in the line."""
    hardware: str | None = None
    workqueue: str | None = None


@dataclass(frozen=True, slots=True)
class Oops:
    """One report of the kernel: a crash, a warning or a lockup. ``title`` is its first telling line."""

    kind: Kind
    title: str
    banner: Banner = field(default_factory=Banner)
    description: str = ""
    """The word before the error code of the oops line: ``Oops``, ``invalid opcode``, ``divide error`` …"""
    error_code: int = 0
    number: int = 1
    """How many times this kernel has died, counted from 1: the ``[#1]``."""
    die_flags: str = ""
    """Build and CPU facts after it: ``PREEMPT SMP NOPTI``."""
    fault: PageFault | None = None
    bug_at: SourceLine | None = None
    """File and line that the kernel's own bug table states for a BUG or WARN."""
    message: str = ""
    """The text of a WARN with format, without its newline."""
    cut_here: bool = True
    """False when guest code printed the ``cut here`` line itself (WARN with a message does)."""
    seconds: int | None = None
    symbol: Symbol | None = None
    source: tuple[SourceLine, ...] = ()
    registers: Registers | None = None
    control: ControlRegisters | None = None
    code: Code | None = None
    instructions: tuple[Instruction, ...] = ()
    trace: tuple[TraceItem, ...] = ()
    modules: tuple[LinkedIn, ...] = ()
    unloaded: str = ""
    """``name`` and flags of the module unloaded last, as printed."""
    panic: str | None = None
    """``Fatal exception in interrupt`` when the report ended the kernel."""

    @property
    def faulting_instruction(self) -> Instruction | None:
        return next((one for one in self.instructions if one.faulting), None)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(item for item in self.trace if isinstance(item, Frame))
