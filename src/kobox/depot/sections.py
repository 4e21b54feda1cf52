"""Sections of an ordinary module, 64-bit and little-endian, found by name without looking at every header.

Two reads: the file's header, and the section headers together with the names that mostly stand before them. Whoever
needs few sections of thousands of files reads them this way; whatever is out of the ordinary raises ``Odd`` and is
left to ``module_file``, the plain reader of all formats.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial

ELF64_LE = b"\x7fELF\x02\x01"
HEAD_SIZE = 64

_HEAD = struct.Struct("<18xH20xQ10xHHH")
"""machine; offset of the section headers, size of one, their number, the index of their names"""
_PLACE = struct.Struct("<QQ")
_AHEAD = 1536
"""How much before the section headers is read with them."""
_SPARC = (2, 43)

Read = Callable[[int, int], bytes]
"""(count, offset) to bytes, fewer at the end of the file"""


class Odd(Exception):
    """This file is for the plain reader."""


class Sections:
    """The section headers of one file. ``read`` reads from it."""

    __slots__ = ("_base", "_ids", "_names", "_size", "_table", "read")

    def __init__(self, read: Read, size: int, head: bytes) -> None:
        """``size`` is the file's, ``head`` its first 64 bytes."""
        if len(head) != HEAD_SIZE or size <= HEAD_SIZE:
            raise Odd
        machine, offset, entry_size, count, names_at = _HEAD.unpack(head)
        end = offset + 64 * count
        if entry_size != 64 or end > size or not 0 < names_at < count or machine in _SPARC:
            raise Odd
        start = offset - _AHEAD if offset > _AHEAD else 0
        table = read(end - start, start)
        if len(table) != end - start:
            raise Odd
        base = offset - start
        names_off, names_size = _PLACE.unpack_from(table, base + 64 * names_at + 24)
        if start <= names_off and names_off + names_size <= end:
            names = table[names_off - start : names_off - start + names_size]
        elif names_off + names_size <= size:
            names = read(names_size, names_off)
        else:
            raise Odd
        if names[-1:] != b"\0":
            raise Odd
        self.read = read
        self._size, self._table, self._base, self._names = size, table, base, names
        self._ids: list[int] = memoryview(table)[base:].cast("I")[0::16].tolist()

    @classmethod
    def of_file(cls, fd: int, head: bytes) -> Sections:
        """Of an open file whose first bytes are known."""
        return cls(partial(os.pread, fd), os.fstat(fd).st_size, head)

    @classmethod
    def of_bytes(cls, data: bytes) -> Sections:
        """Of a whole file."""
        return cls(lambda count, offset: data[offset : offset + count], len(data), data[:HEAD_SIZE])

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        """(offset, size, place of the header) of a section; ``name`` ends in NUL. None when there is surely none."""
        names = self._names
        at = names.find(name)
        if at < 0:
            return None
        if names.find(name, at + 1) >= 0 or at == 0 or names[at - 1] or at not in self._ids:
            raise Odd
        entry = self._base + 64 * self._ids.index(at)
        offset, size = _PLACE.unpack_from(self._table, entry + 24)
        if offset + size > self._size:
            raise Odd
        return offset, size, entry

    def info(self, entry: int) -> int:
        """``sh_info`` of a header that ``find`` gave."""
        return int.from_bytes(self._table[entry + 44 : entry + 48], "little")

    def whole(self, offset: int, size: int) -> bytes:
        """These bytes of the file, all of them."""
        data = self.read(size, offset)
        if len(data) != size:  # the file shrank while it was read
            raise Odd
        return data

    def bytes_of(self, name: bytes) -> bytes | None:
        """A section's bytes; ``name`` ends in NUL. None when it is missing."""
        found = self.find(name)
        return None if found is None else self.whole(found[0], found[1])
