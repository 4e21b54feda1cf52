"""Tables that are looked up where they lie in a mapped file: a hash table from names to record numbers, and their file.

``TableFile`` writes named tables one behind another, each 8-byte aligned; their places go into the cache entry's facts.
The hash table holds record numbers only: open addressing, half full at most, CRC-32 of the name. Records of one name
are met in ascending order of their numbers.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

Table: TypeAlias = "bytes | bytearray | memoryview | array[int]"


def text_of(raw: bytes) -> str:
    """A name as text; bytes that are no UTF-8 survive the way back."""
    return raw.decode("utf-8", "surrogateescape")


def raw_of(text: str) -> bytes:
    """The bytes of a name; the inverse of ``text_of``."""
    return text.encode("utf-8", "surrogateescape")


def write_tables(path: Path, tables: Mapping[str, Table]) -> dict[str, list[int]]:
    """Write the tables and return name -> [offset, size]."""
    places, at = {}, 0
    with open(path, "wb") as handle:
        for name, table in tables.items():
            size = memoryview(table).nbytes
            places[name] = [at, size]
            handle.write(table)
            handle.write(bytes(-size % 8))
            at += size + -size % 8
    return places


def map_file(path: Path) -> memoryview:
    """The file mapped read-only."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(handle, 0, prot=mmap.PROT_READ))
    finally:
        os.close(handle)


def build_slots(names: Iterable[bytes], count: int, numbers: Iterable[int] | None = None) -> array[int]:
    """The hash table of record numbers (plus one; zero is an empty slot) for ``count`` names. A record's number is its
    name's position, or given beside it in ``numbers``."""
    bits = max(3, (2 * count).bit_length())
    mask = (1 << bits) - 1
    slots = array("I", bytes(4 << bits))
    for number, name in zip(range(count) if numbers is None else numbers, names, strict=True):
        slot = crc32(name) & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = number + 1
    return slots


class Slots:
    """A hash table made by ``build_slots``. ``is_named(number, name)`` compares a record's name."""

    __slots__ = ("_is_named", "_mask", "_slots")

    def __init__(self, table: memoryview, is_named: Callable[[int, bytes], bool]) -> None:
        self._slots = table.cast("I")
        self._mask = len(self._slots) - 1
        self._is_named = is_named

    def first(self, name: bytes) -> int:
        """Number of the first record of that name, -1 when there is none."""
        return next(self.all(name), -1)

    def all(self, name: bytes) -> Iterator[int]:
        """Numbers of every record of that name, in the order they were given."""
        slots, mask = self._slots, self._mask
        slot = crc32(name) & mask
        while number := slots[slot]:
            if self._is_named(number - 1, name):
                yield number - 1
            slot = (slot + 1) & mask
