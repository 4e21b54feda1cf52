"""An ELF file as records, read lazily: the header at once, everything else when first asked for.

Lenient where the kernel's loader is: identification bytes, ``e_version``, ``e_ehsize`` and entry sizes of tables are
not judged here (``link`` repeats the kernel's own checks in the kernel's order and words). What is checked is what
reading needs, and a failed check is a ``BadFile`` raised by the part that was asked for.
"""

from __future__ import annotations

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
        header, form = self.header, self.layout.section
        if header.e_shnum and header.e_shentsize != form.size:
            raise BadFile(self.name, "ELF header", "section headers have the wrong size", header.e_shentsize, form.size)
        rows = self.gate.take(header.e_shoff, header.e_shnum * form.size, "section header table")
        names = self._section_names(rows)
        return tuple(
            Section._make((index, names.at(row[0]), *row[1:], row[0]))
            for index, row in enumerate(form.iter_unpack(rows))
        )

    def _section_names(self, rows: memoryview) -> StringTable:
        header, form = self.header, self.layout.section
        index = header.e_shstrndx
        if not header.e_shnum:
            return StringTable(self.name, "section name table", b"")
        if not 0 < index < header.e_shnum:
            raise BadFile(
                self.name, "ELF header", "e_shstrndx names no section", index, f"1 to {header.e_shnum - 1:#x}"
            )
        row = form.unpack(rows[index * form.size : (index + 1) * form.size])
        return self.gate.strings(row[4], row[5], "section name table")

    @cached_property
    def _by_name(self) -> dict[str, Section]:
        return {section.name: section for section in reversed(self.sections) if section.index}

    def section(self, name: str) -> Section | None:
        """The first section called ``name``."""
        return self._by_name.get(name)

    def alloc_section(self, name: str) -> Section | None:
        """The first section called ``name`` that is loaded (``SHF_ALLOC``): the only ones the kernel's loader finds."""
        found = self._by_name.get(name)
        if found is None or found.flags & SHF.ALLOC:
            return found
        return next((s for s in self.sections if s.name == name and s.flags & SHF.ALLOC), None)

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
        table = next((s for s in self.sections if s.type == SHT.SYMTAB), None)
        if table is None:
            return SymbolTable(memoryview(b""), self.layout, None)
        if not 0 < table.link < len(self.sections):
            place = f"section {table.index} ({table.name})"
            raise BadFile(self.name, place, "sh_link names no string table", table.link)
        rows = self.bytes_of(table)
        whole = len(rows) - len(rows) % self.layout.symbol.size
        return SymbolTable(rows[:whole], self.layout, self.strings_of(self.sections[table.link]))

    def relocations(self, section: Section) -> Relocations:
        """``section`` (``RELA`` or ``REL``) as relocations; a last part of an entry is not read, as in the kernel."""
        explicit = section.type == SHT.RELA
        if not explicit and section.type != SHT.REL:
            place = f"section {section.index} ({section.name})"
            raise BadFile(self.name, place, "is no relocation section: sh_type", section.type)
        rows = self.bytes_of(section)
        size = (self.layout.rela if explicit else self.layout.rel).size
        return Relocations(rows[: len(rows) - len(rows) % size], self.layout, section.info, explicit)

    @cached_property
    def relocation_sections(self) -> dict[int, tuple[Section, ...]]:
        """Index of a section to the relocation sections that apply to it."""
        found: dict[int, tuple[Section, ...]] = {}
        for section in self.sections:
            if section.type in (SHT.RELA, SHT.REL):
                found[section.info] = (*found.get(section.info, ()), section)
        return found

    def label(self, symbol_index: int) -> str:
        """What to call a symbol: its name, or that of the section it stands for."""
        symbols = self.symbols
        if not 0 <= symbol_index < len(symbols):
            raise BadFile(self.name, "symbol table", "no such symbol", symbol_index, f"below {len(symbols):#x}")
        name = symbols.names[symbol_index]
        shndx = symbols.shndxs[symbol_index]
        return name or (self.sections[shndx].name if SHN.UNDEF < shndx < len(self.sections) else "")


def parse(data: Buffer, name: str) -> ElfFile:
    """Look at the header of ``data`` and make the rest ready to be read; ``name`` is what errors call the file."""
    gate = Gate(name, data)
    start = bytes(gate.data[:20])
    if not start.startswith(MAGIC):
        raise BadFile(name, "", "is no ELF file: it starts with", _shown(start[:4]), _shown(MAGIC))
    if len(start) < 20:
        raise BadFile(name, "ELF header", "the file ends inside it", gate.size)
    layout = layout_of(start)
    return ElfFile(name, Header._make(gate.unpack(layout.header, 0, "ELF header")), gate, layout)


def _shown(raw: bytes) -> str:
    return repr(raw)[1:] if raw else "nothing"
