"""The machine code of a stub whose handler may call guest functions, and the frame that it leaves on the stack.

The stub saves its argument registers below a frame pointer, so that the guest's own unwinder finds its way past it, and
traps. It then calls whatever the handler put into r11 and traps again, until r11 is 0.
"""

from __future__ import annotations

import struct

from kobox.machine.unicorn_abi import REG

# push rbp; mov rbp, rsp; push r9, r8, rcx, rdx, rsi, rdi; hlt; nop; again: test r11, r11; jz out; call r11; hlt; nop;
# jmp again; out: leave; ret
STUB = bytes.fromhex("55 4889e5 4151 4150 51 52 56 57 f4 90 4d85db 7407 41ffd3 f4 90 ebf4 c9 c3")
AT_ENTRY, AT_RETURN = 13, 23
"""Offsets behind the two ``hlt``."""
FRAME = struct.Struct("<8Q")
"""rdi, rsi, rdx, rcx, r8, r9, the caller's rbp and the return address, from ``FRAME_BELOW`` bytes below rbp on."""
FRAME_BELOW = 48
R11, RAX, RSP, RBP, RIP = (REG[name] for name in ("r11", "rax", "rsp", "rbp", "rip"))
ARGUMENTS = tuple(REG[name] for name in ("rdi", "rsi", "rdx", "rcx", "r8", "r9"))
