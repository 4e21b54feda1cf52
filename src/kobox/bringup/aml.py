"""The few terms of ACPI's machine language that describe a board, as bytes: devices, names, packages, resources.

ACPI 6.4, chapters 20 (encoding) and 6.4 (resource descriptors). Terms are bytes and are joined by ``+``.
"""

from __future__ import annotations

import struct

_NAME, _BUFFER, _PACKAGE, _METHOD, _SCOPE, _RETURN = b"\x08", b"\x11", b"\x12", b"\x14", b"\x10", b"\xa4"
_DEVICE = b"\x5b\x82"
ARGUMENT_3 = b"\x6b"
_MEMORY_RANGE, _PORT_RANGE, _BUS_RANGE = 0, 1, 2
_FIXED = 0x0C
"""Both ends of the range are given."""
_WRITABLE, _ENTIRE = 1, 3
_END_OF_RESOURCES = b"\x79\0"


def _sized(body: bytes) -> bytes:
    """A package length before what it covers, itself included: 6 bits, or 4 and up to two bytes more."""
    if len(body) + 1 < 0x40:
        return bytes([len(body) + 1]) + body
    extra = 1 if len(body) + 2 < 1 << 12 else 2
    whole = len(body) + 1 + extra
    return bytes([extra << 6 | whole & 15]) + (whole >> 4).to_bytes(extra, "little") + body


def integer(value: int) -> bytes:
    """The shortest constant."""
    if value in (0, 1):
        return bytes([value])
    for prefix, size in ((b"\x0a", 1), (b"\x0b", 2), (b"\x0c", 4)):
        if value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    return b"\x0e" + value.to_bytes(8, "little")


def name(path: bytes, value: bytes) -> bytes:
    """A named object; ``path`` is 4 characters."""
    return _NAME + path + value


def scope(path: bytes, body: bytes) -> bytes:
    """What is added to an object that is there."""
    return _SCOPE + _sized(path + body)


def device(path: bytes, body: bytes) -> bytes:
    """A device with its objects."""
    return _DEVICE + _sized(path + body)


def method(path: bytes, arguments: int, body: bytes) -> bytes:
    """Code, called with so many arguments."""
    return _METHOD + _sized(path + bytes([arguments]) + body)


def give_back(value: bytes) -> bytes:
    """A method's result."""
    return _RETURN + value


def package(*elements: bytes) -> bytes:
    """At most 255 elements."""
    return _PACKAGE + _sized(bytes([len(elements)]) + b"".join(elements))


def eisa_id(text: str) -> bytes:
    """``PNP0A08`` as a number: three letters of 5 bits, four hex digits, in the order of a big-endian machine."""
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return b"\x0c" + value.to_bytes(4, "big")


def resources(*descriptors: bytes) -> bytes:
    """A buffer of descriptors and their end."""
    data = b"".join(descriptors) + _END_OF_RESOURCES
    return _BUFFER + _sized(integer(len(data)) + data)


def buses(first: int, last: int) -> bytes:
    """Bus numbers that a bridge passes on."""
    return struct.pack("<BHBBB5H", 0x88, 13, _BUS_RANGE, _FIXED, 0, 0, first, last, 0, last - first + 1)


def port_window(first: int, last: int) -> bytes:
    """Ports that a bridge passes on."""
    return struct.pack("<BHBBB5H", 0x88, 13, _PORT_RANGE, _FIXED, _ENTIRE, 0, first, last, 0, last - first + 1)


def memory_window(first: int, last: int) -> bytes:
    """Addresses below 4 GiB that a bridge passes on."""
    return struct.pack("<BHBBB5I", 0x87, 23, _MEMORY_RANGE, _FIXED, _WRITABLE, 0, first, last, 0, last - first + 1)


def ports(first: int, count: int) -> bytes:
    """Ports that a device has for itself."""
    return struct.pack("<BBHHBB", 0x47, 1, first, first, 1, count)


def memory(first: int, size: int) -> bytes:
    """Addresses below 4 GiB that a device has for itself."""
    return struct.pack("<BHBII", 0x86, 9, _WRITABLE, first, size)
