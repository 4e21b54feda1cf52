"""The symbol table as columns, and the relocation table as a stream of tuples.

A distribution's modules hold 700,000 symbols and 5.6 million relocations; none becomes an object unless asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from kobox.elf.constants import SHN, STB
from kobox.elf.gate import StringTable
from kobox.elf.layouts import Layout


class Symbol(NamedTuple):
    """One symbol; ``info``, ``other`` and ``shndx`` are the file's own bytes."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use on a record
    name: str
    value: int
    size: int
    info: int
    other: int
    shndx: int

    @property
    def bind(self) -> int:
        """One of ``STB``."""
        return self.info >> 4

    @property
    def type(self) -> int:
        """One of ``STT``."""
        return self.info & 0xF

    @property
    def is_undefined(self) -> bool:
        """Someone else has to define it."""
        return self.shndx == SHN.UNDEF

    @property
    def is_weak(self) -> bool:
        """May stay undefined, and then is 0."""
        return self.info >> 4 == STB.WEAK


class SymbolTable:
    """``.symtab`` in columns of equal length; number 0 is the null symbol, as in the file.

    The number columns are views into the file (no copy, no list): index, iterate, ``tolist()``. A bad name offset is
    found when ``names`` is first asked for.
    """

    def __init__(self, rows: memoryview, layout: Layout, strings: StringTable | None) -> None:
        self._strings = strings
        self.name_offsets: Sequence[int] = ()
        self.values: Sequence[int] = ()
        self.sizes: Sequence[int] = ()
        self.infos: Sequence[int] = ()
        self.others: Sequence[int] = ()
        self.shndxs: Sequence[int] = ()
        if not rows.nbytes:
            return
        if layout.native:
            words, quads = rows.cast("I"), rows.cast("Q")
            self.name_offsets, self.infos, self.others = words[0::6], rows[4::24], rows[5::24]
            self.shndxs, self.values, self.sizes = rows.cast("H")[3::12], quads[1::3], quads[2::3]
            return
        columns = tuple(zip(*layout.symbol.iter_unpack(rows), strict=True))
        if layout.bits == 64:
            self.name_offsets, self.infos, self.others, self.shndxs, self.values, self.sizes = columns
        else:
            self.name_offsets, self.values, self.sizes, self.infos, self.others, self.shndxs = columns

    def __len__(self) -> int:
        return len(self.name_offsets)

    def __getitem__(self, index: int) -> Symbol:
        return Symbol(
            index,
            self.name(index),
            self.values[index],
            self.sizes[index],
            self.infos[index],
            self.others[index],
            self.shndxs[index],
        )

    def __iter__(self) -> Iterator[Symbol]:
        rows = zip(
            range(len(self)), self.names, self.values, self.sizes, self.infos, self.others, self.shndxs, strict=True
        )
        return map(Symbol._make, rows)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every symbol's name; section symbols have none."""
        if self._strings is None:
            return ("",) * len(self)
        return tuple(self._strings.many(self.name_offsets))

    def name(self, index: int) -> str:
        """One symbol's name, without reading all of them."""
        return self._strings.at(self.name_offsets[index]) if self._strings else ""

    def undefined(self) -> list[tuple[int, str]]:
        """Number and name of each symbol that somebody else has to define; the null symbol is none."""
        if self._strings is None:
            return []
        numbers = [number for number, shndx in enumerate(self.shndxs) if not shndx and self.name_offsets[number]]
        names = self._strings.many([self.name_offsets[number] for number in numbers])
        return [(number, name) for number, name in zip(numbers, names, strict=True) if name]

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Name to number. Of several with one name a global or weak one wins over a local one, then the first."""
        found: dict[str, int] = {}
        for number, (name, info) in enumerate(zip(self.names, self.infos, strict=True)):
            if name and (name not in found or (info >> 4 and not self.infos[found[name]] >> 4)):
                found[name] = number
        return found

    def find(self, name: str) -> Symbol | None:
        """The symbol called ``name``, by the rule of ``by_name``."""
        number = self.by_name.get(name)
        return None if number is None else self[number]


class Relocations:
    """One relocation section: iterates as ``(offset, type, symbol number, addend)`` at the speed of ``struct``.

    ``target`` is the section index the offsets are relative to (``sh_info``). Where ``explicit`` is false (``SHT_REL``)
    the addend is in the target's bytes and comes out as 0 here.
    """

    __slots__ = ("_layout", "_rows", "explicit", "target")

    def __init__(self, rows: memoryview, layout: Layout, target: int, explicit: bool) -> None:
        self._rows, self._layout, self.target, self.explicit = rows, layout, target, explicit

    def __len__(self) -> int:
        return len(self._rows) // (self._layout.rela if self.explicit else self._layout.rel).size

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        layout = self._layout
        if self.explicit and layout.bits == 64 and layout.order == "<":
            return layout.rela.iter_unpack(self._rows)
        return self._rearranged()

    def _rearranged(self) -> Iterator[tuple[int, int, int, int]]:
        layout = self._layout
        for row in (layout.rela if self.explicit else layout.rel).iter_unpack(self._rows):
            addend = row[-1] if self.explicit else 0
            if layout.bits == 32:
                yield row[0], row[1] & 0xFF, row[1] >> 8, addend
            elif layout.order == "<":
                yield row[0], row[1], row[2], addend
            else:
                yield row[0], row[2], row[1], addend
