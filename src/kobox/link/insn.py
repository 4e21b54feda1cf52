"""How long an x86-64 instruction is, and which of its bytes are relative to where it stands.

Just enough of a decoder for patching code as the kernel patches it: prefixes, opcode, ModRM, SIB, displacement,
immediate. Follows the opcode maps of Intel's manual, volume 2, appendix A. What an instruction does is not known here.
"""

from __future__ import annotations

from typing import NamedTuple

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


def _opcode_map(rows: str) -> list[str]:
    return rows.split()


# How an opcode's operands are encoded: M has a ModRM byte, the rest are immediates (b 1 byte, w 2, z 4 or 2 with an
# operand-size prefix, v as z but 8 with REX.W, j and J distances of 1 and 4 bytes, a an address, x not in 64-bit mode).
_ONE = _opcode_map(
    "M M M M b z x x M M M M b z x .  M M M M b z x x M M M M b z x x "
    "M M M M b z . x M M M M b z . x  M M M M b z . x M M M M b z . x "
    ". . . . . . . . . . . . . . . .  . . . . . . . . . . . . . . . . "
    "x x x M . . . . z Mz b Mb . . . .  j j j j j j j j j j j j j j j j "
    "Mb Mz x Mb M M M M M M M M M M M M  . . . . . . . . . . x . . . . . "
    "a a a a . . . . b z . . . . . .  b b b b b b b b v v v v v v v v "
    "Mb Mb w . x x Mb Mz wb . w . . b x .  M M M M x x x . M M M M M M M M "
    "j j j j b b b b J J x j . . . .  . . . . . . Mt MT . . . . . . M M"
)
_TWO = _opcode_map(
    "M M M M x . . . . . x . x M . Mb  M M M M M M M M M M M M M M M M "
    "M M M M x x x x M M M M M M M M  . . . . . . x . x x x x x x x x "
    "M M M M M M M M M M M M M M M M  M M M M M M M M M M M M M M M M "
    "M M M M M M M M M M M M M M M M  Mb Mb Mb Mb M M M . M M x x M M M M "
    "J J J J J J J J J J J J J J J J  M M M M M M M M M M M M M M M M "
    ". . . M Mb M M M . . . M Mb M M M  M M M M M M M M M M Mb M M M M M "
    "M M Mb M Mb Mb Mb M . . . . . . . .  M M M M M M M M M M M M M M M M "
    "M M M M M M M M M M M M M M M M  M M M M M M M M M M M M M M M M"
)


class Insn(NamedTuple):
    """One instruction: its ``length``, its opcode bytes without prefixes, and where its relative parts are, if any.

    ``branch`` is (offset in the instruction, width) of a distance counted from its end; ``rip`` the offset of a 4-byte
    displacement from RIP.
    """

    length: int
    opcode: bytes
    prefixes: bytes
    branch: tuple[int, int] | None
    rip: int | None


def decode(code: bytes | bytearray | memoryview, at: int = 0) -> Insn | None:
    """The instruction at ``at``; None if it is not one, or is cut off by the end of ``code``."""
    raw = bytes(code[at : at + 15])
    try:
        insn = _decode(raw)
    except IndexError:
        return None
    return insn if insn is not None and insn.length <= len(raw) else None


def _decode(raw: bytes) -> Insn | None:
    at = 0
    while raw[at] in _PREFIXES:
        at += 1
    prefixes = raw[:at]
    wide = False
    if raw[at] & 0xF0 == 0x40:
        wide = bool(raw[at] & 8)
        at += 1
    opcode_at = at
    first = raw[at]
    if first in (0x62, 0xC4, 0xC5):
        form, at = _vector_form(raw, at)
    elif first == 0x0F:
        at += 1
        if raw[at] in (0x38, 0x3A):
            form = "M" if raw[at] == 0x38 else "Mb"
            at += 1
        else:
            form = _TWO[raw[at]]
    else:
        form = _ONE[first]
    if form == "x":
        return None
    at += 1
    opcode = raw[opcode_at:at]
    rip = None
    if form[0] == "M":
        modrm = raw[at]
        form = _test_form(form, modrm)
        at, rip = _after_modrm(raw, at, modrm)
    branch = None
    for part in form:
        if part in "jJ":
            branch = (at, 1 if part == "j" else 4)
        at += _size(part, wide, b"\x66" in prefixes, b"\x67" in prefixes)
    return Insn(at, opcode, prefixes, branch, rip)


def _test_form(form: str, modrm: int) -> str:
    """Group 3 (F6, F7) has an immediate only for TEST."""
    if form[-1] in "tT":
        if modrm & 0x30:
            return "M"
        return "Mb" if form[-1] == "t" else "Mz"
    return form


def _vector_form(raw: bytes, at: int) -> tuple[str, int]:
    """VEX and EVEX: which opcode map, and where the opcode is."""
    if raw[at] == 0xC5:
        opcode_map, at = 1, at + 2
    else:
        opcode_map, at = raw[at + 1] & 0x1F if raw[at] == 0xC4 else raw[at + 1] & 7, at + (3 if raw[at] == 0xC4 else 4)
    if opcode_map == 3:
        return "Mb", at
    if opcode_map == 1:
        return "." if raw[at] == 0x77 else _TWO[raw[at]], at
    return ("M" if opcode_map in (2, 5, 6) else "x"), at


def _after_modrm(raw: bytes, at: int, modrm: int) -> tuple[int, int | None]:
    """The offset behind ModRM, SIB and displacement, and that of a RIP-relative displacement."""
    mod, rm = modrm >> 6, modrm & 7
    at += 1
    if mod == 3:
        return at, None
    if rm == 4:
        base = raw[at] & 7
        at += 1
        if mod == 0 and base == 5:
            return at + 4, None
    elif mod == 0 and rm == 5:
        return at + 4, at
    return at + (0, 1, 4)[mod], None


def _size(part: str, wide: bool, short: bool, narrow_address: bool) -> int:
    if part == "z":
        return 2 if short and not wide else 4
    if part == "v":
        return 8 if wide else 2 if short else 4
    if part == "a":
        return 4 if narrow_address else 8
    return {"b": 1, "j": 1, "w": 2, "J": 4}.get(part, 0)
