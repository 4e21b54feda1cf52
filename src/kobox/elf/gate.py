"""The bounds gate: the one place where an offset and a size from a file become bytes.

Everything above asks the gate, which answers with a view of exactly the bytes asked for or raises ``BadFile``. Nothing
here knows what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final

from kobox.errors import BadFile

Buffer = bytes | bytearray | memoryview
"""What a file's bytes may be handed in as; an ``mmap`` goes in wrapped in ``memoryview``."""


LONGEST_NAME: Final = 4096
"""Bytes that a name may have. Names can overlap in a file, so without a limit a small file could ask for gigabytes."""


class Gate:
    """A file's bytes behind bounds checks. ``file`` is the name that errors carry."""

    __slots__ = ("data", "file", "size")

    def __init__(self, file: str, data: Buffer) -> None:
        self.file = file
        self.data = memoryview(data).cast("B").toreadonly()
        self.size = len(self.data)

    def take(self, offset: int, size: int, place: str) -> memoryview:
        """``size`` bytes at ``offset`` as a view: a lying size costs nothing. ``place`` names the part for people."""
        end = offset + size
        if offset < 0 or size < 0 or end > self.size:
            raise BadFile(self.file, place, f"{size:#x} bytes at {offset:#x} lie outside the file", self.size, end)
        return self.data[offset:end]

    def unpack(self, form: Struct, offset: int, place: str) -> tuple[Any, ...]:
        """One record of the layout ``form`` at ``offset``."""
        return form.unpack(self.take(offset, form.size, place))

    def string(self, offset: int, end: int, place: str) -> str:
        """The NUL-ended string at ``offset`` whose NUL is in front of ``end``."""
        if offset >= end:
            raise BadFile(self.file, place, "a string starts behind the end of its section", offset, f"below {end:#x}")
        raw = bytes(self.take(offset, min(end - offset, LONGEST_NAME + 1), place))
        found, nul, _ = raw.partition(b"\0")
        if not nul:
            raise BadFile(self.file, place, f"the string at {offset:#x} has no NUL within {len(raw)} bytes")
        return text(found)

    def strings(self, offset: int, size: int, place: str) -> StringTable:
        """A table of NUL-ended strings, copied out once."""
        return StringTable(self.file, place, bytes(self.take(offset, size, place)))


class StringTable:
    """NUL-ended strings found by byte offset.

    Text is UTF-8 with surrogates for bytes that are not, so that every name survives a round trip. An ASCII table, as
    nearly all are, is decoded once and sliced.
    """

    __slots__ = ("_ascii", "data", "file", "place")

    def __init__(self, file: str, place: str, data: bytes) -> None:
        self.file, self.place, self.data = file, place, data
        self._ascii = data.decode("ascii") if data.isascii() else None

    def at(self, offset: int) -> str:
        """The string that starts at ``offset``."""
        if self._ascii is not None:
            end = self._ascii.find("\0", offset, offset + LONGEST_NAME + 1) if offset >= 0 else -1
            if end >= 0:
                return self._ascii[offset:end]
        elif offset >= 0:
            end = self.data.find(b"\0", offset, offset + LONGEST_NAME + 1)
            if end >= 0:
                return text(self.data[offset:end])
        raise self._bad(offset)

    def many(self, offsets: Iterable[int]) -> list[str]:
        """The strings at ``offsets``, none of them negative: what a column of names costs is decided here."""
        table = self._ascii
        if table is not None:
            end_of, reach = table.index, LONGEST_NAME + 1
            try:
                return [table[offset : end_of("\0", offset, offset + reach)] for offset in offsets]
            except ValueError:
                pass  # the slow way says which one it is
        return [self.at(offset) for offset in offsets]

    def offsets_of(self, string: str) -> set[int]:
        """Every offset at which ``string`` can be read, the tails of longer strings included (linkers share them)."""
        wanted = string.encode("utf-8", "surrogateescape") + b"\0"
        found, offset = set(), self.data.find(wanted)
        while offset >= 0:
            found.add(offset)
            offset = self.data.find(wanted, offset + 1)
        return found

    def _bad(self, offset: int) -> BadFile:
        if 0 <= offset < len(self.data):
            return BadFile(self.file, self.place, f"the string at {offset:#x} has no NUL within {LONGEST_NAME} bytes")
        return BadFile(self.file, self.place, "a string starts outside the table", offset, f"below {len(self.data):#x}")


def text(raw: bytes | memoryview) -> str:
    """Bytes of a file as text; what is not UTF-8 is kept as surrogates (``surrogateescape``)."""
    return bytes(raw).decode("utf-8", "surrogateescape")
