"""Which byte an instruction failed at, when only the page is known.

Unicorn tells the page that was not there; hardware puts the exact address into CR2. The operand that a ModRM byte
describes is computed (Intel SDM volume 2, 2.1) and taken if it lies on that page, as are the implied operands of string
and stack instructions. Whatever does not fit leaves the start of the page: no table of instructions is needed to be
right or silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

PAGE_SIZE = 4096
_MASK = (1 << 64) - 1
_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_PREFIXES = frozenset(b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65")
_FS, _GS = 0x64, 0x65
_OPERAND_SIZES = (8, 16, 32, 64)
_IMMEDIATES = {0x80: 1, 0x83: 1, 0x6B: 1, 0xC0: 1, 0xC1: 1, 0xC6: 1, 0x81: 4, 0x69: 4, 0xC7: 4}
"""Opcodes that a constant of so many bytes follows, for addresses relative to the instruction's end."""


def faulting_address(
    code: bytes, rip: int, page: int, registers: Mapping[str, int], segment_base: Callable[[str], int]
) -> int:
    """The address on ``page`` that the instruction at ``rip`` used; ``page`` itself where nothing tells.

    ``code`` is up to 15 bytes from ``rip``; ``segment_base`` is asked for ``fs`` or ``gs`` when a prefix names it.
    """
    for address in (*_operand(code, rip, registers, segment_base), *_implied(registers)):
        if address & ~(PAGE_SIZE - 1) == page:
            return address
        # an access that begins on the page before and ends on this one fails at this one's first byte
        if any((address + size - 1) & ~(PAGE_SIZE - 1) == page and address < page for size in _OPERAND_SIZES):
            return page
    return page


def _implied(registers: Mapping[str, int]) -> tuple[int, ...]:
    return (registers["rdi"], registers["rsi"], registers["rsp"] - 8 & _MASK, registers["rsp"])


def _operand(
    code: bytes, rip: int, registers: Mapping[str, int], segment_base: Callable[[str], int]
) -> tuple[int, ...]:
    """The effective address of the ModRM operand, if there is a memory operand."""
    at, base = 0, 0
    while at < len(code) and code[at] in _PREFIXES:
        if code[at] in (_FS, _GS):
            base = segment_base("fs" if code[at] == _FS else "gs")
        at += 1
    rex = code[at] if at < len(code) and code[at] & 0xF0 == 0x40 else 0
    at += bool(rex)
    opcode = code[at] if at < len(code) else 0
    if opcode == 0x0F:
        at += 2 if code[at + 1 : at + 2] in (b"\x38", b"\x3a") else 1
    at += 1
    if at >= len(code) or code[at] >> 6 == 3:
        return ()
    mod, rm = code[at] >> 6, code[at] & 7
    at += 1
    address = base
    if rm == 4:
        if at >= len(code):
            return ()
        scale, index, low = code[at] >> 6, code[at] >> 3 & 7 | (rex & 2) << 2, code[at] & 7
        at += 1
        if index != 4:
            address += registers[_NAMES[index]] << scale
        if low == 5 and mod == 0:
            return ((address + _displacement(code, at, 4)) & _MASK,)
        address += registers[_NAMES[low | (rex & 1) << 3]]
    elif rm == 5 and mod == 0:
        address += rip + at + 4 + _IMMEDIATES.get(opcode, 0) + _displacement(code, at, 4)
        return (address & _MASK,)
    else:
        address += registers[_NAMES[rm | (rex & 1) << 3]]
    return ((address + _displacement(code, at, {0: 0, 1: 1, 2: 4}[mod])) & _MASK,)


def _displacement(code: bytes, at: int, size: int) -> int:
    return int.from_bytes(code[at : at + size], "little", signed=True)
