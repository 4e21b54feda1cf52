"""Pointers in a module that is not linked yet: a relocation says which symbol a slot of a section will hold.

Shared by the tables that consist of such slots (exports, parameters, ``struct module``).
"""

from __future__ import annotations

from typing import NamedTuple

from kobox.elf import SHN, ElfFile, Section
from kobox.elf.gate import StringTable
from kobox.errors import BadFile


class Slot(NamedTuple):
    """What a relocated slot will point at: a symbol and a distance from it."""

    symbol: int
    addend: int


class Pointers:
    """Every relocated slot of one section, by its offset in it."""

    __slots__ = ("_elf", "_strings", "place", "slots")

    def __init__(self, elf: ElfFile, section: Section) -> None:
        self._elf = elf
        self._strings: dict[int, StringTable] = {}
        self.place = section.name
        self.slots: dict[int, Slot] = {}
        for relocations in elf.relocations_of(section):
            for offset, _, symbol, addend in relocations:
                if not relocations.explicit:
                    addend = self._stored(section, offset)
                self.slots[offset] = Slot(symbol, addend)

    def _stored(self, section: Section, offset: int) -> int:
        """The addend of a ``REL`` relocation, which stands in the slot itself; such machines have 32-bit slots."""
        order = "little" if self._elf.layout.order == "<" else "big"
        found = self._elf.gate.take(section.offset + offset, 4, section.name)
        return int.from_bytes(found, order, signed=True)  # type: ignore[arg-type]  # mypy widens the literals

    def place_of(self, slot: Slot) -> tuple[int, int]:
        """The section index (or special ``SHN``) and offset in it that the slot points at."""
        symbols = self._elf.symbols
        if not 0 <= slot.symbol < len(symbols):
            raise BadFile(
                self._elf.name, self.place, "a relocation names no symbol", slot.symbol, f"below {len(symbols):#x}"
            )
        return symbols.shndxs[slot.symbol], symbols.values[slot.symbol] + slot.addend

    def string_at(self, slot: Slot) -> str:
        """The NUL-ended string that the slot points at."""
        index, offset = self.place_of(slot)
        strings = self._strings.get(index)
        if strings is None:
            if not SHN.UNDEF < index < len(self._elf.sections):
                raise BadFile(self._elf.name, self.place, "a string is expected in a section of the file", index)
            strings = self._strings[index] = self._elf.strings_of(self._elf.sections[index])
        return strings.at(offset)

    def symbol_at(self, slot: Slot) -> str:
        """The name of what the slot points at; looked up by place where the relocation is against a section."""
        index, offset = self.place_of(slot)
        name = self._elf.symbols.name(slot.symbol)
        if name and not slot.addend:
            return name
        return _symbol_by_place(self._elf, index, offset) or f"{self._elf.label(slot.symbol)}+{slot.addend:#x}"


def _symbol_by_place(elf: ElfFile, shndx: int, value: int) -> str:
    symbols = elf.symbols
    rows = enumerate(zip(symbols.shndxs, symbols.values, strict=True))
    there = (symbols.name(number) for number, place in rows if place == (shndx, value))
    return next(filter(None, there), "")
