"""A position in bytes that reads DWARF's number and string forms. Reading past the end raises ``struct.error``."""

from __future__ import annotations

import struct

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


class Cursor:
    """Reads forward from ``at``."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def u8(self) -> int:
        at = self.at
        if at < 0 or at >= len(self.data):
            raise struct.error(f"no byte at {at:#x}")
        self.at = at + 1
        return self.data[at]

    def u16(self) -> int:
        value: int = _U16.unpack_from(self.data, self.at)[0]
        self.at += 2
        return value

    def u24(self) -> int:
        return self.u16() | self.u8() << 16

    def u32(self) -> int:
        value: int = _U32.unpack_from(self.data, self.at)[0]
        self.at += 4
        return value

    def u64(self) -> int:
        value: int = _U64.unpack_from(self.data, self.at)[0]
        self.at += 8
        return value

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def sleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if byte & 0x40 else value

    def take(self, size: int) -> bytes:
        found = self.data[self.at : self.at + size]
        if len(found) != size:
            raise struct.error(f"{size} bytes at {self.at:#x} end beyond the section")
        self.at += size
        return found

    def cstring(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise struct.error(f"string at {self.at:#x} does not end")
        text = self.data[self.at : end].decode(errors="replace")
        self.at = end + 1
        return text


def string_at(data: bytes, offset: int) -> str:
    """The NUL-ended text at ``offset`` of a string section."""
    return Cursor(data, offset).cstring()
