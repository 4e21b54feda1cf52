"""``linux/string.h``."""

from __future__ import annotations

from kobox.abi.c import char_p, int_, size_t, void_p
from kobox.abi.declare import ExportTable
from kobox.bare.guest import BareGuest

TABLE = ExportTable("linux/string.h")


@TABLE.export()
def memcpy(k: BareGuest, to: void_p, source: void_p, size: size_t) -> void_p:
    k.write(to, k.read(source, size))
    return to


@TABLE.export()
def memmove(k: BareGuest, to: void_p, source: void_p, size: size_t) -> void_p:
    k.write(to, k.read(source, size))
    return to


@TABLE.export()
def memset(k: BareGuest, to: void_p, byte: int_, size: size_t) -> void_p:
    k.write(to, bytes([byte & 0xFF]) * size)
    return to


@TABLE.export()
def memcmp(k: BareGuest, a: void_p, b: void_p, size: size_t) -> int_:
    for left, right in zip(k.read(a, size), k.read(b, size), strict=True):
        if left != right:
            return left - right
    return 0


@TABLE.export()
def strlen(k: BareGuest, text: char_p) -> size_t:
    return len(k.read_cstr(text, 1 << 20))


@TABLE.export()
def strcmp(k: BareGuest, a: char_p, b: char_p) -> int_:
    left, right = k.read_cstr(a, 1 << 20), k.read_cstr(b, 1 << 20)
    return (left > right) - (left < right)


@TABLE.export()
def strcpy(k: BareGuest, to: char_p, source: char_p) -> char_p:
    k.write(to, k.read_cstr(source, 1 << 20) + b"\0")
    return to


@TABLE.export()
def strscpy(k: BareGuest, to: char_p, source: char_p, size: size_t) -> size_t:
    """What does not fit is cut and answered with -E2BIG."""
    if not size:
        return -7
    text = k.read_cstr(source, size)
    k.write(to, text[: size - 1] + b"\0")
    return len(text) if len(text) < size else -7
