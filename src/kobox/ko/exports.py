"""What a module offers and what it needs: ``__ksymtab*``, their CRCs, and the undefined symbols.

An entry of ``__ksymtab`` is three relocated words: value, name, namespace. Words are 4 bytes where the kernel stores
distances (x86, arm64, ...) and on 32-bit machines, else 8; kernels before 5.4 have no namespace word. Which it is shows
in where the relocations are and in which of them point at strings, so no release is asked.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from kobox.elf import SHN, STB, ElfFile, Section
from kobox.errors import BadFile
from kobox.ko.pointers import Pointers

_SECTIONS: Final = (("__ksymtab", "__kcrctab", False), ("__ksymtab_gpl", "__kcrctab_gpl", True))
_FLAGS: Final = "__kflagstab"
"""Later kernels have one table, and a byte of flags for each entry of it."""
FLAG_GPL_ONLY: Final = 1  # include/linux/module_symbol.h
_SHAPES: Final = ((4, 3), (4, 2), (8, 3), (8, 2))
"""Word size and words of an entry, the likeliest first."""


class Export(NamedTuple):
    """One exported symbol. Its value is ``offset`` bytes into section number ``section`` (or a special ``SHN``)."""

    name: str
    gpl: bool
    namespace: str
    crc: int | None
    section: int
    offset: int


class Import(NamedTuple):
    """One undefined symbol; a weak one may stay so and is 0 then. A tuple: a distribution has 185,000 of them."""

    name: str
    weak: bool
    index: int  # type: ignore[assignment]  # the symbol's number; tuple.index has no use on a record


def read_exports(elf: ElfFile) -> tuple[Export, ...]:
    """Every export, those for all licences first, each group in the table's order (which the linker sorts by name)."""
    found: list[Export] = []
    for table_name, crc_name, gpl in _SECTIONS:
        table = elf.alloc_section(table_name)
        if table is not None and table.has_bytes and table.size:
            exports = _exports_of(elf, table, elf.alloc_section(crc_name), gpl)
            found += exports if gpl else _flagged(elf, exports)
    return tuple(found)


def _exports_of(elf: ElfFile, table: Section, crc_table: Section | None, gpl: bool) -> list[Export]:
    pointers = Pointers(elf, table)
    slots = pointers.slots
    word, words = _shape(elf, table, pointers)
    count = table.size // (word * words)
    crcs = _crcs(elf, crc_table, count)
    found = []
    for number in range(count):
        start = number * word * words
        section, offset = pointers.place_of(slots[start])
        namespace = slots.get(start + 2 * word) if words == 3 else None
        found.append(
            Export(
                name=pointers.string_at(slots[start + word]),
                gpl=gpl,
                namespace=pointers.string_at(namespace) if namespace else "",
                crc=crcs[number],
                section=section,
                offset=offset,
            )
        )
    return found


def _flagged(elf: ElfFile, exports: list[Export]) -> list[Export]:
    table = elf.alloc_section(_FLAGS)
    if table is None or not table.has_bytes:
        return exports
    flags = elf.bytes_of(table)
    if len(flags) != len(exports):
        raise BadFile(elf.name, table.name, "a flag for each entry of __ksymtab is missing", len(flags), len(exports))
    return [export._replace(gpl=bool(flag & FLAG_GPL_ONLY)) for export, flag in zip(exports, flags, strict=True)]


def _shape(elf: ElfFile, table: Section, pointers: Pointers) -> tuple[int, int]:
    size = len(elf.bytes_of(table))
    strings = elf.section("__ksymtab_strings")
    strings_index = strings.index if strings else None
    named = {offset for offset, slot in pointers.slots.items() if pointers.place_of(slot)[0] == strings_index}
    valued = pointers.slots.keys() - named
    for word, words in _SHAPES:
        starts = range(0, size, word * words)
        if size % (word * words) == 0 and all(start in valued and start + word in named for start in starts):
            return word, words
    raise BadFile(elf.name, table.name, "its relocations fit no known layout of export entries")


def _crcs(elf: ElfFile, table: Section | None, count: int) -> list[int | None]:
    """CRC of each entry: stored as 32 bits, or, in older kernels, the value of (or at) the symbol relocated there."""
    if table is None or not table.has_bytes or not count or table.size < 4 * count:
        return [None] * count
    stride = table.size // count
    raw = elf.bytes_of(table)
    pointers = Pointers(elf, table)
    order = elf.layout.byteorder
    found: list[int | None] = []
    for start in range(0, stride * count, stride):
        slot = pointers.slots.get(start)
        if slot is None:
            found.append(int.from_bytes(raw[start : start + 4], order))
            continue
        index, value = pointers.place_of(slot)
        place = elf.section_at(index)
        if index == SHN.ABS:
            found.append(value & 0xFFFFFFFF)
        elif place is not None:
            stored = elf.gate.take(place.offset + value, 4, table.name)
            found.append(int.from_bytes(stored, order))
        else:
            found.append(None)
    return found


def read_imports(elf: ElfFile) -> tuple[Import, ...]:
    """Every undefined symbol, in the symbol table's order."""
    infos = elf.symbols.infos
    undefined = elf.symbols.undefined()
    return tuple([Import(name, infos[index] >> 4 == STB.WEAK, index) for index, name in undefined])
