"""Pointers in a module that is not linked yet: a relocation says which symbol a slot of a section will hold.

Shared by the tables that consist of such slots (exports, parameters, ``struct module``).
"""

from __future__ import annotations

from typing import NamedTuple

from kobox.elf import ElfFile, Section
from kobox.errors import BadFile


class Slot(NamedTuple):
    """What a relocated slot will point at: a symbol and a distance from it."""

    symbol: int
    addend: int


class Pointers:
    """Every relocated slot of one section, by its offset in it."""

    __slots__ = ("_elf", "_named", "place", "slots")

    def __init__(self, elf: ElfFile, section: Section) -> None:
        self._elf = elf
        self._named: dict[tuple[int, int], int] | None = None
        self.place = section.name
        self.slots: dict[int, Slot] = {}
        for relocations in elf.relocations_of(section):
            for offset, _, symbol, addend in relocations:
                if not relocations.explicit:
                    addend = self._stored(section, offset)
                self.slots[offset] = Slot(symbol, addend)

    def _stored(self, section: Section, offset: int) -> int:
        """The addend of a ``REL`` relocation, which stands in the slot itself; such machines have 32-bit slots."""
        found = self._elf.gate.take(section.offset + offset, 4, section.name)
        return int.from_bytes(found, self._elf.layout.byteorder, signed=True)

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
        section = self._elf.section_at(index)
        if section is None or offset < 0 or not section.has_bytes:
            place = f"{offset:#x} of section {index}"
            raise BadFile(self._elf.name, self.place, f"a string is expected at {place}, where the file has no bytes")
        return self._elf.gate.string(section.offset + offset, section.offset + section.size, self.place)

    def symbol_at(self, slot: Slot) -> str:
        """The name of what the slot points at; looked up by place where the relocation is against a section."""
        index, offset = self.place_of(slot)
        name = self._elf.symbols.name(slot.symbol)
        if name and not slot.addend:
            return name
        number = self._named_places().get((index, offset))
        if number is not None:
            return self._elf.symbols.name(number)
        return f"{self._elf.label(slot.symbol)}+{slot.addend:#x}"

    def _named_places(self) -> dict[tuple[int, int], int]:
        """The first named symbol at each place of the file."""
        if self._named is None:
            symbols = self._elf.symbols
            places = zip(symbols.shndxs, symbols.values, strict=True)
            named = zip(places, symbols.name_offsets, range(len(symbols)), strict=True)
            self._named = {place: number for place, name, number in reversed(list(named)) if name}
        return self._named
