"""Applying a module's relocations, by table.

Follows ``apply_relocations`` of kernel/module/main.c and ``apply_relocate_add`` of arch/x86/kernel/module.c: the same
types, the same checks (the target must be zero; 32-bit absolute values must fit; PC-relative ones are cut off unseen),
the same words.

Well-formed sections are done by ``columns``, which knows two fast ways. What it declines goes entry by entry here,
exactly as the kernel does it and with its words.
"""

from __future__ import annotations

import errno
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kobox.elf.constants import EM, R_X86_64, SHF, SHT, relocation_name
from kobox.elf.layouts import LAYOUTS
from kobox.link.columns import SymbolValues, apply_section
from kobox.link.findings import Level, LogLine, Refusal
from kobox.link.layout import Layout
from kobox.link.livepatch import VMLINUX, Lookup, livepatch_values, object_of
from kobox.link.resolve import U64, Symbols, symbol_name, symbol_table
from kobox.link.validity import SYM_SIZE, LoadView

_RELA = LAYOUTS[64, "<"].rela
_RELA_SIZE = _RELA.size
_ZEROS = {4: bytes(4), 8: bytes(8)}
WORTH_MORE = 6
"""Below this many entries, one at a time is faster."""
PR_FMT = "module: "
HASHED = "(____ptrval____)"


class Recipe(NamedTuple):
    """How one relocation type is made: ``width`` bytes of symbol + addend, minus the place where ``relative``.

    ``fits`` says which absolute values survive 4 bytes: ``signed`` ones, ``unsigned`` ones, or ``any``.
    """

    width: int
    relative: bool
    fits: str


RECIPES: Mapping[int, Recipe] = {
    R_X86_64.ABS64: Recipe(8, False, "any"),
    R_X86_64.ABS32: Recipe(4, False, "unsigned"),
    R_X86_64.ABS32S: Recipe(4, False, "signed"),
    R_X86_64.PC32: Recipe(4, True, "any"),
    R_X86_64.PLT32: Recipe(4, True, "any"),
    R_X86_64.PC64: Recipe(8, True, "any"),
}


class Detail(NamedTuple):
    """Where a relocation failed, for people: the section written to, the offset in it, the symbol and the value."""

    section: str
    offset: int
    type: str
    symbol: str
    addend: int
    value: int


class Relocated(NamedTuple):
    """What was applied: entries in all, by type number, and how many sections needed the slow way."""

    entries: int
    by_type: Mapping[int, int]
    sections: int
    slow_sections: int


class RelocationRefused(Refusal):
    """A relocation the kernel refuses, with its ``detail`` for people."""

    def __init__(self, number: int, log: Sequence[LogLine], detail: Detail | None) -> None:
        self.detail = detail
        why = ""
        if detail is not None:
            why = (
                f"{detail.type} at {detail.section}+{detail.offset:#x} against {detail.symbol or 'no symbol'}"
                f"{detail.addend:+#x}: value {detail.value:#x}"
            )
        super().__init__(number, log, why=why)


def relocate(
    view: LoadView,
    layout: Layout,
    addresses: Sequence[int],
    windows: Sequence[memoryview | None],
    symbols: Symbols,
    *,
    memory: Mapping[str, memoryview | bytearray] | None = None,
    livepatch: Lookup | None = None,
    pointer: Callable[[int], str] = lambda address: HASHED,
    count_types: bool = False,
) -> Relocated:
    """Apply every relocation section to ``windows`` (``Layout.windows``), which are at ``addresses``.

    ``memory`` are the whole regions: relocations of broken modules may reach past their section into them.
    ``livepatch`` finds symbols that livepatch modules name by object; without it their sections wait.
    ``pointer`` prints an address as the kernel's ``%p`` would. Raises ``RelocationRefused``; what was applied before
    stays applied, as in the kernel.
    """
    work = _Work(view, addresses, windows, symbols.values, pointer, _regions(layout, addresses, memory or {}))
    for number, section in enumerate(view.sections):
        target = section.info
        if not number or target >= len(view.sections) or not layout.flags[target] & SHF.ALLOC:
            continue
        if section.flags & SHF.RELA_LIVEPATCH:
            work.livepatch(number, symbols, livepatch)
        elif section.type == SHT.RELA:
            work.section(number, target)
        elif section.type == SHT.REL:
            text = f"module {view.mod_name}: REL relocation unsupported"
            raise RelocationRefused(errno.ENOEXEC, (LogLine(Level.ERR, text),), None)
    by_type: Counter[int] = Counter()
    if count_types:
        for rows in work.done:
            by_type.update(rows.cast("I")[2::6].tolist())
    entries = sum(map(len, work.done)) // _RELA_SIZE
    return Relocated(entries, by_type, len(work.done), work.slow)


class _Work:
    """One run over a module's relocation sections."""

    def __init__(
        self,
        view: LoadView,
        addresses: Sequence[int],
        windows: Sequence[memoryview | None],
        values: Sequence[int],
        pointer: Callable[[int], str],
        regions: Mapping[int, memoryview],
    ) -> None:
        self.view, self.addresses, self.windows = view, addresses, windows
        self.values, self.pointer, self.regions = values, pointer, regions
        self.done: list[memoryview] = []
        self.slow = 0
        self.fast = SymbolValues(values)
        self._symbols_stored = False

    def livepatch(self, number: int, symbols: Symbols, lookup: Lookup | None) -> None:
        """A section whose symbols livepatch looks up itself: for the kernel now, for modules when those come."""
        if object_of(self.view.sections[number].name) != VMLINUX or lookup is None:
            return
        values = livepatch_values(self.view, symbols, number, lookup)
        own = _Work(self.view, self.addresses, self.windows, values, self.pointer, self.regions)
        own.section(number, self.view.sections[number].info)
        self.done += own.done

    def section(self, number: int, target: int) -> None:
        rows = self.view.contents(number)
        rows = rows[: len(rows) // _RELA_SIZE * _RELA_SIZE]
        window, address = self.windows[target], self.addresses[target]
        few = len(rows) < WORTH_MORE * _RELA_SIZE
        if few or window is None or not apply_section(rows, window, address, self.fast):
            self.slow += not few
            self._one_by_one(rows, target)
        self.done.append(rows)

    def _one_by_one(self, rows: memoryview, target: int) -> None:
        """The kernel's own way: in order, checking each target as it stands when its turn comes."""
        base = self.addresses[target]
        for offset, kind, symbol, addend in _RELA.iter_unpack(rows):
            if kind == R_X86_64.NONE:
                continue
            place = base + offset & U64
            value = self._symbol_value(symbol) + addend & U64
            recipe = RECIPES.get(kind)
            if recipe is None:
                text = f"{PR_FMT}{self.view.mod_name}: Unknown rela relocation: {kind}"
                raise self._refused((text,), target, offset, kind, symbol, addend, value)
            newer = self.view.rules.memories
            stored = value - place & U64 if recipe.relative else value
            if newer and not _survives(value, recipe):
                raise self._refused(self._overflow(kind, value), target, offset, kind, symbol, addend, value)
            memory, at = self._memory(place, recipe.width, target)
            if memory[at : at + recipe.width] != _ZEROS[recipe.width]:
                text = (
                    f"{PR_FMT}x86/modules: {'Invalid' if newer else 'Skipping invalid'} relocation target, "
                    f"existing value is nonzero for type {kind}, loc {self.pointer(place)}, "
                    f"val {stored if newer else value:x}"
                )
                raise self._refused((text,), target, offset, kind, symbol, addend, value)
            cut = stored & (1 << recipe.width * 8) - 1
            memory[at : at + recipe.width] = cut.to_bytes(recipe.width, "little")
            if not _survives(value, recipe):
                raise self._refused(self._overflow(kind, value), target, offset, kind, symbol, addend, value)

    def _overflow(self, kind: int, value: int) -> tuple[str, str]:
        return (
            f"{PR_FMT}overflow in relocation type {kind} val {value:x}",
            f"{PR_FMT}`{self.view.mod_name}' likely not compiled with -mcmodel=kernel",
        )

    def _symbol_value(self, number: int) -> int:
        """A symbol's value; a number behind the table reads what lies there in memory, as the kernel's would."""
        if number < len(self.values):
            return self.values[number]
        place = self.addresses[self.view.index.sym] + number * SYM_SIZE + 8
        memory, at = self._memory(place, 8, self.view.index.sym)
        return int.from_bytes(memory[at : at + 8], "little")

    def _memory(self, address: int, size: int, likely: int) -> tuple[memoryview, int]:
        """The bytes at an address of the module: in the ``likely`` section, else wherever in its regions they are."""
        window, base = self.windows[likely], self.addresses[likely]
        if window is not None and base <= address and address + size <= base + len(window):
            return window, address - base
        self._store_symbols()
        for base, region in self.regions.items():
            if base <= address and address + size <= base + len(region):
                return region, address - base
        raise Refusal(errno.ENOEXEC, why=f"a relocation reaches {address:#x}, outside the module", crash=True)

    def _store_symbols(self) -> None:
        """For what reaches out of its section: the symbol table in memory holds addresses by now."""
        window = self.windows[self.view.index.sym]
        if window is not None and not self._symbols_stored:
            rows = window[: len(self.values) * SYM_SIZE]
            rows.cast("Q")[1::3] = memoryview(array("Q", [value & U64 for value in self.values]))
        self._symbols_stored = True

    def _refused(
        self, texts: Sequence[str], target: int, offset: int, kind: int, symbol: int, addend: int, value: int
    ) -> RelocationRefused:
        table = symbol_table(self.view)
        name = symbol_name(self.view, table, symbol) if symbol < len(table) else f"symbol {symbol}"
        detail = Detail(self.view.sections[target].name, offset, relocation_name(EM.X86_64, kind), name, addend, value)
        return RelocationRefused(errno.ENOEXEC, [LogLine(Level.ERR, text) for text in texts], detail)


def _regions(
    layout: Layout, addresses: Sequence[int], memory: Mapping[str, memoryview | bytearray]
) -> dict[int, memoryview]:
    """Each region that holds a section, by the address it is at."""
    return {
        address - place.offset: memoryview(memory[place.region])
        for place, address in zip(layout.places, addresses, strict=True)
        if place is not None and place.region in memory
    }


def _survives(value: int, recipe: Recipe) -> bool:
    """Does an absolute value come back whole from the width and sign it is stored with?"""
    if recipe.fits == "signed":
        return value < 1 << 31 or value >= U64 + 1 - (1 << 31)
    return recipe.fits == "any" or value < 1 << 32
