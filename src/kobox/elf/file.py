"""An ELF file as records, read lazily: the header at once, everything else when first asked for.

Lenient where the kernel's loader is: identification bytes, ``e_version``, ``e_ehsize`` and entry sizes of tables are
not judged here (``link`` repeats the kernel's own checks in the kernel's order and words). What is checked is what
reading needs, and a failed check is a ``BadFile`` raised by the part that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from kobox.elf.constants import SHF, SHN, SHT
from kobox.elf.gate import Buffer, Gate, StringTable
from kobox.elf.layouts import MAGIC, Layout, layout_of
from kobox.elf.symbols import Relocations, SymbolTable
from kobox.errors import BadFile


class Header(NamedTuple):
    """The ELF header under the specification's own names."""

    e_ident: bytes
    e_type: int
    e_machine: int
    e_version: int
    e_entry: int
    e_phoff: int
    e_shoff: int
    e_flags: int
    e_ehsize: int
    e_phentsize: int
    e_phnum: int
    e_shentsize: int
    e_shnum: int
    e_shstrndx: int


class Section(NamedTuple):
    """One section header, the specification's names without ``sh_``; ``name_off`` is the raw ``sh_name``."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use on a record
    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int
    name_off: int

    @property
    def has_bytes(self) -> bool:
        """False for ``NOBITS`` and ``NULL``, which take no room in the file whatever their size says."""
        return self.type != SHT.NOBITS and self.type != SHT.NULL


@dataclass(frozen=True, eq=False)
class ElfFile:
    """One ELF file. Without slots on purpose: each lazily read part lands in the instance's dict, read once."""

    name: str
    """What errors call the file."""
    header: Header
    gate: Gate = field(repr=False)
    layout: Layout = field(repr=False)

    @property
    def data(self) -> memoryview:
        """The whole file."""
        return self.gate.data

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """Every section header, number 0 included."""
        names = self._names.many([row[0] for row in self._rows])
        numbered = zip(range(len(names)), names, self._rows, strict=True)
        return tuple([Section._make((index, name, *row[1:], row[0])) for index, name, row in numbered])

    @cached_property
    def _rows(self) -> list[tuple[int, ...]]:
        """The section headers as the file has them, ``sh_name`` first."""
        header, form = self.header, self.layout.section
        if header.e_shnum and header.e_shentsize != form.size:
            what = "section headers have the wrong size"
            raise BadFile(self.name, "ELF header", what, header.e_shentsize, form.size)
        return list(form.iter_unpack(self.gate.take(header.e_shoff, header.e_shnum * form.size, "section headers")))

    @cached_property
    def _names(self) -> StringTable:
        index, count = self.header.e_shstrndx, len(self._rows)
        if not count:
            return StringTable(self.name, "section names", b"")
        if not 0 < index < count:
            raise BadFile(self.name, "ELF header", "e_shstrndx names no section", index, f"1 to {count - 1:#x}")
        return self.gate.strings(self._rows[index][4], self._rows[index][5], "section names")

    def section_at(self, index: int) -> Section | None:
        """Section number ``index``; None for 0, for the special numbers, and for what the file does not have."""
        if not SHN.UNDEF < index < len(self._rows):
            return None
        row = self._rows[index]
        return Section._make((index, self._names.at(row[0]), *row[1:], row[0]))

    def _section_at(self, index: int, what: str) -> Section:
        """A section that has to be there, or the file is bad: ``what`` names it."""
        found = self.section_at(index)
        if found is None:
            raise BadFile(self.name, what, "no such section", index, f"1 to {len(self._rows) - 1:#x}")
        return found

    def section(self, name: str) -> Section | None:
        """The first section called ``name``. Looks for the name, so the other sections get no record."""
        return self._find(name, 0)

    def alloc_section(self, name: str) -> Section | None:
        """The first section called ``name`` that is loaded (``SHF_ALLOC``): the only ones the kernel's loader finds."""
        return self._find(name, SHF.ALLOC)

    def _find(self, name: str, flags: int) -> Section | None:
        offsets = self._names.offsets_of(name)
        for index, row in enumerate(self._rows):
            if row[0] in offsets and index and row[2] & flags == flags:
                return self.section_at(index)
        return None

    def bytes_of(self, section: Section) -> memoryview:
        """The section's bytes in the file; empty for ``NOBITS``, however large it will be in memory."""
        if not section.has_bytes:
            return memoryview(b"")
        return self.gate.take(section.offset, section.size, f"section {section.index} ({section.name})")

    def strings_of(self, section: Section) -> StringTable:
        """The section read as a string table."""
        return StringTable(self.name, f"section {section.index} ({section.name})", bytes(self.bytes_of(section)))

    @cached_property
    def symbols(self) -> SymbolTable:
        """The first ``SYMTAB`` section; an empty table when the file was stripped."""
        index = next((index for index, row in enumerate(self._rows) if row[1] == SHT.SYMTAB and index), None)
        if index is None:
            return SymbolTable(memoryview(b""), self.layout, None)
        table = self._section_at(index, "symbol table")
        strings = self._section_at(table.link, f"section {index} ({table.name}): sh_link")
        rows = self.bytes_of(table)
        whole = len(rows) - len(rows) % self.layout.symbol.size
        return SymbolTable(rows[:whole], self.layout, self.strings_of(strings))

    def relocations(self, section: Section) -> Relocations:
        """``section`` (``RELA`` or ``REL``) as relocations; a last part of an entry is not read, as in the kernel."""
        explicit = section.type == SHT.RELA
        if not explicit and section.type != SHT.REL:
            place = f"section {section.index} ({section.name})"
            raise BadFile(self.name, place, "is no relocation section: sh_type", section.type)
        rows = self.bytes_of(section)
        size = (self.layout.rela if explicit else self.layout.rel).size
        return Relocations(rows[: len(rows) - len(rows) % size], self.layout, section.info, explicit)

    def relocations_of(self, section: Section) -> Iterator[Relocations]:
        """What applies to ``section``: one table in files that compilers make, any number in others."""
        total = 0
        for index, row in enumerate(self._rows):
            if row[1] in (SHT.RELA, SHT.REL) and row[7] == section.index and index:
                total += row[5]
                if total > self.gate.size:
                    raise BadFile(self.name, section.name, "its relocations are more than the file has bytes", total)
                yield self.relocations(self._section_at(index, section.name))

    def label(self, symbol_index: int) -> str:
        """What to call a symbol: its name, or that of the section it stands for."""
        symbols = self.symbols
        if not 0 <= symbol_index < len(symbols):
            raise BadFile(self.name, "symbol table", "no such symbol", symbol_index, f"below {len(symbols):#x}")
        section = self.section_at(symbols.shndxs[symbol_index])
        return symbols.name(symbol_index) or (section.name if section else "")


def parse(data: Buffer, name: str) -> ElfFile:
    """Look at the header of ``data`` and make the rest ready to be read; ``name`` is what errors call the file."""
    gate = Gate(name, data)
    start = bytes(gate.data[:20])
    if not start.startswith(MAGIC):
        hint = next((f"it looks like {what}" for magic, what in _OTHERS.items() if start.startswith(magic)), None)
        raise BadFile(name, "", "is no ELF file: it starts with", _shown(start[:4]), _shown(MAGIC), hint)
    if len(start) < 20:
        raise BadFile(name, "ELF header", "the file ends inside it", gate.size)
    layout = layout_of(start)
    return ElfFile(name, Header._make(gate.unpack(layout.header, 0, "ELF header")), gate, layout)


_OTHERS = {
    b"!<arch>": "an archive (.deb or .a)",
    b"#!": "a script",
    b"\x04\x22\x4d\x18": "lz4, which no kernel reads modules in",
    b"BZh": "bzip2, which no kernel reads modules in",
    b"\xfd7zXZ": "xz inside another compression",
    b"\x1f\x8b": "gzip inside another compression",
    b"MZ": "a Windows or EFI program",
    b"PK\3\4": "a zip archive",
}


def _shown(raw: bytes) -> str:
    return repr(raw)[1:] if raw else "nothing"
