"""x86-64 traps, the page-fault error code and the register file as the kernel names and prints them.

Follows the Intel SDM (vectors, error code) and ``struct pt_regs`` of the x86-64 ABI, which ptrace makes permanent.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple


class Trap(IntEnum):
    """Exception vectors."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XF = 19
    VE = 20
    CP = 21


TRAP_TEXT: dict[Trap, str] = {
    Trap.DE: "divide error",
    Trap.BP: "int3",
    Trap.OF: "overflow",
    Trap.BR: "bounds",
    Trap.UD: "invalid opcode",
    Trap.DF: "double fault",
    Trap.TS: "invalid TSS",
    Trap.NP: "segment not present",
    Trap.SS: "stack segment",
    Trap.GP: "general protection fault",
    Trap.PF: "Oops",
    Trap.MF: "fpu exception",
    Trap.AC: "alignment check",
    Trap.XF: "simd exception",
    Trap.CP: "control protection",
}
"""The word that begins the oops line of a trap taken in kernel mode."""


class PF(IntFlag):
    """Bits of the page-fault error code."""

    PROT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    RSVD = 1 << 3
    INSTR = 1 << 4
    PK = 1 << 5
    SHSTK = 1 << 6
    SGX = 1 << 15


class PtRegs(NamedTuple):
    """Where the registers of an interrupted context stand in ``struct pt_regs``: index of a 64-bit word."""

    r15: int = 0
    r14: int = 1
    r13: int = 2
    r12: int = 3
    bp: int = 4
    bx: int = 5
    r11: int = 6
    r10: int = 7
    r9: int = 8
    r8: int = 9
    ax: int = 10
    cx: int = 11
    dx: int = 12
    si: int = 13
    di: int = 14
    orig_ax: int = 15
    ip: int = 16
    cs: int = 17
    flags: int = 18
    sp: int = 19
    ss: int = 20


PT_REGS = PtRegs()
PT_REGS_SIZE = 8 * len(PT_REGS)
IRET_FRAME_OFFSET = 8 * PT_REGS.ip
"""The CPU itself pushes the last five words; the rest exists only once the entry code has saved it."""
IRET_FRAME_SIZE = PT_REGS_SIZE - IRET_FRAME_OFFSET

KERNEL_CS, KERNEL_DS = 0x10, 0x18
USER_CS, USER_DS = 0x33, 0x2B
NO_SYSCALL = (1 << 64) - 1
"""``orig_ax`` of a context that is no system call."""

GENERAL: dict[str, str] = {
    "RAX": "ax",
    "RBX": "bx",
    "RCX": "cx",
    "RDX": "dx",
    "RSI": "si",
    "RDI": "di",
    "RBP": "bp",
    "R08": "r8",
    "R09": "r9",
    "R10": "r10",
    "R11": "r11",
    "R12": "r12",
    "R13": "r13",
    "R14": "r14",
    "R15": "r15",
}
"""General registers in the order and under the names of the kernel's dump, with their ``pt_regs`` member."""

SIGKILL, SIGSEGV = 9, 11
