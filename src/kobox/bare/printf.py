"""``vsnprintf`` as the kernel's log needs it: C conversions, and the ``%p`` extensions that need no other subsystem.

Follows lib/vsprintf.c. Pointers are shown as a kernel shows them before it has random numbers: ``(____ptrval____)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from kobox.errors import GuestError

_SPEC = re.compile(rb"%([-+ #0]*)(\d+|\*)?(?:\.(\d+|\*)?)?(hh|h|ll|l|L|z|t|j)?([a-zA-Z%])", re.DOTALL)
_SIZES = {b"hh": 8, b"h": 16, b"": 32}
HASHED = b"(____ptrval____)"


class Memory(Protocol):
    """What a format may point to."""

    def read(self, address: int, size: int) -> bytes: ...
    def read_cstr(self, address: int, limit: int = ...) -> bytes: ...
    def symbol_text(self, address: int) -> str: ...


def render(memory: Memory, form: bytes, values: Iterator[int]) -> bytes:
    """The text of a format whose arguments are the 64-bit numbers ``values``."""
    out = bytearray()
    at = 0
    for spec in _SPEC.finditer(form):
        if spec.start() < at:
            continue
        out += form[at : spec.start()]
        at = spec.end()
        conversion = spec[5]
        if conversion == b"%":
            out += b"%"
            continue
        flags, width = spec[1], _count(spec[2], values)
        if width < 0:
            flags, width = flags + b"-", -width
        precision = _count(spec[3], values) if b"." in spec[0] else -1
        if conversion == b"p":
            extension = re.match(rb"[A-Za-z]+", form[at:])
            letters = extension[0] if extension else b""
            text, taken = _pointer(memory, letters, next(values), width)
            at += taken
        else:
            text = _one(memory, conversion, spec[4] or b"", flags, precision, values)
        zero = b"0" in flags and b"-" not in flags and conversion in b"diuxXo" and precision < 0
        out += _pad(text, width, flags, zero)
    return bytes(out + form[at:])


def _count(text: bytes | None, values: Iterator[int]) -> int:
    if text == b"*":
        value = next(values) & 0xFFFF_FFFF
        return value - (1 << 32) if value >> 31 else value
    return int(text or b"0")


def _pad(text: bytes, width: int, flags: bytes, zero: bool) -> bytes:
    if b"-" in flags:
        return text.ljust(width)
    if not zero:
        return text.rjust(width)
    sign = len(text) - len(text.lstrip(b"+- "))
    prefix = sign + (2 if text[sign : sign + 2].lower() == b"0x" else 0)
    return text[:prefix] + text[prefix:].rjust(width - prefix, b"0")


def _one(memory: Memory, conversion: bytes, size: bytes, flags: bytes, precision: int, values: Iterator[int]) -> bytes:
    if conversion == b"c":
        return bytes([next(values) & 0xFF])
    if conversion == b"s":
        text = string(memory, next(values))
        return text if precision < 0 else text[:precision]
    if conversion not in b"diuxXo":
        return b"%" + conversion
    bits = _SIZES.get(size, 64)
    value = next(values) & ((1 << bits) - 1)
    if conversion in b"di" and value >> (bits - 1):
        value -= 1 << bits
    digits = {b"x": b"%x", b"X": b"%X", b"o": b"%o"}.get(conversion, b"%d") % abs(value)
    digits = digits.rjust(precision, b"0") if precision > 0 else digits
    if b"#" in flags:
        digits = {b"x": b"0x", b"X": b"0X", b"o": b"0"}.get(conversion, b"") + digits
    sign = b"-" if value < 0 else b"+" if b"+" in flags else b" " if b" " in flags else b""
    return (sign if conversion in b"di" else b"") + digits


def string(memory: Memory, address: int) -> bytes:
    """What ``%s`` shows: pointers that cannot be strings are named, as the kernel does."""
    if address == 0:
        return b"(null)"
    if address < 4096 or address >= (1 << 64) - 4095:
        return b"(efault)"
    try:
        return memory.read_cstr(address)
    except GuestError:
        return b"(efault)"


def _pointer(memory: Memory, letters: bytes, address: int, width: int) -> tuple[bytes, int]:
    """(text, letters of the extension that were used)."""
    first = letters[:1]
    if first in (b"S", b"B"):
        return memory.symbol_text(address).encode(), 1
    if first in (b"s", b"f", b"F"):
        return re.sub(rb"\+0x[0-9a-f]+/0x[0-9a-f]+", b"", memory.symbol_text(address).encode()), 1
    if first == b"x":
        return b"%x" % address, 1
    if first == b"K":
        return HASHED, 1
    if first == b"h":
        joint = {b"C": b":", b"D": b"-", b"N": b""}.get(letters[1:2])
        data = memory.read(address, width or 1)
        return (b" " if joint is None else joint).join(b"%02x" % byte for byte in data), 1 if joint is None else 2
    if first == b"e":
        number = (1 << 64) - address
        return (b"-%d" % number if number <= 4095 else HASHED), 1
    if address == 0:
        return b"(null)", 0
    return HASHED, 0
