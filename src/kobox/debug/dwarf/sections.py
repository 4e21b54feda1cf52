"""A module's debug sections, relocated piece by piece as they are read.

Every section of a ``.ko`` begins at 0, so ``.text+0x10`` and ``.init.text+0x10`` would be one address. Here section
number N begins at ``N << 32``: addresses stay distinct, and ``place_of`` takes them apart again.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from functools import cached_property
from typing import NamedTuple

from kobox.elf import R_X86_64, SHF, SHT, ElfFile, Section
from kobox.errors import BadFile

_SHIFT = 32
_WIDTHS: dict[int, int] = {R_X86_64.ABS64: 8, R_X86_64.ABS32: 4, R_X86_64.ABS32S: 4}


def address_of(section_idx: int, offset: int) -> int:
    return (section_idx << _SHIFT) + offset


def place_of(address: int) -> tuple[int, int]:
    return address >> _SHIFT, address & (1 << _SHIFT) - 1


class DebugSection:
    """One section's bytes. ``piece`` applies the relocations that fall into it; the rest stays untouched."""

    def __init__(self, elf: ElfFile, section: Section | None) -> None:
        self._elf, self._section = elf, section
        self.raw = _content(elf, section) if section else b""

    def __len__(self) -> int:
        return len(self.raw)

    @cached_property
    def whole(self) -> bytes:
        return self.piece(0, len(self.raw))

    def piece(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``, relocated."""
        patched = bytearray(self.raw[start:end])
        offsets, rows = self._relocations
        for index in range(bisect_left(offsets, start), bisect_left(offsets, end)):
            offset, kind, symbol, addend = rows[index]
            width = _WIDTHS.get(kind)
            if width is None or offset + width > end:
                continue
            value = self._symbol_value(symbol) + addend
            patched[offset - start : offset - start + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        return bytes(patched)

    def _symbol_value(self, symbol: int) -> int:
        table = self._elf.symbols
        if symbol >= len(table):
            return 0
        index, value = table.shndxs[symbol], table.values[symbol]
        sections = self._elf.sections
        if index < len(sections) and sections[index].flags & SHF.ALLOC:
            return address_of(index, value)
        return int(value)

    @cached_property
    def _relocations(self) -> tuple[list[int], _Rows]:
        raw = b""
        own = self._section.index if self._section else None
        for section in self._elf.sections:
            if section.type == SHT.RELA and section.info == own:
                raw += bytes(self._elf.bytes_of(section))
        raw = raw[: len(raw) - len(raw) % _RELA.size]
        offsets = memoryview(raw).cast("Q")[::3].tolist()
        if offsets != sorted(offsets):
            raw = b"".join(_RELA.pack(*row) for row in sorted(_RELA.iter_unpack(raw)))
            offsets.sort()
        return offsets, _Rows(raw)


def _content(elf: ElfFile, section: Section) -> bytes:
    data = bytes(elf.bytes_of(section))
    if not section.flags & SHF.COMPRESSED:
        return data
    (kind,) = struct.unpack_from("<I", data)
    if kind == _ELFCOMPRESS_ZLIB:
        return zlib.decompress(data[_CHDR_SIZE:])
    if kind == _ELFCOMPRESS_ZSTD:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data[_CHDR_SIZE:])
    raise BadFile(elf.name, section.name, "compression method", kind, "1 (zlib) or 2 (zstd)")


_CHDR_SIZE = 24
_ELFCOMPRESS_ZLIB, _ELFCOMPRESS_ZSTD = 1, 2
_RELA = struct.Struct("<QIIq")


class _Rela(NamedTuple):
    offset: int
    type: int
    symbol: int
    addend: int


class _Rows:
    """Relocation records, unpacked when asked for: a large driver has millions and a lookup needs a few hundred."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __getitem__(self, index: int) -> _Rela:
        return _Rela._make(_RELA.unpack_from(self._raw, index * _RELA.size))


class DebugSections:
    """The debug sections by their DWARF names (``info``, ``abbrev``, ``line`` …); a missing one is empty."""

    def __init__(self, elf: ElfFile) -> None:
        self.elf = elf
        self._found: dict[str, DebugSection] = {}

    def __getitem__(self, name: str) -> DebugSection:
        if name not in self._found:
            self._found[name] = DebugSection(self.elf, self.elf.section(f".debug_{name}"))
        return self._found[name]
