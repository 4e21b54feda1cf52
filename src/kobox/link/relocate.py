"""Applying a module's relocations, by table.

Follows ``apply_relocations`` of kernel/module/main.c and ``apply_relocate_add`` of arch/x86/kernel/module.c: the same
types, the same checks (the target must be zero; 32-bit absolute values must fit; PC-relative ones are cut off unseen),
the same words.

Nearly every relocation section is well-formed, and then it is done column by column without looking at single entries:
first that no target overlaps another or holds a nonzero byte, then all values, then all writes. Whatever is not plain
goes entry by entry, exactly as the kernel does it.
"""

from __future__ import annotations

import errno
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from operator import add, ge, sub
from struct import Struct
from typing import NamedTuple

from kobox.elf.constants import EM, R_X86_64, SHF, SHT, relocation_name
from kobox.elf.layouts import LAYOUTS
from kobox.link.findings import Level, LogLine, Refusal
from kobox.link.layout import Layout
from kobox.link.resolve import U64, Symbols, symbol_name, symbol_table
from kobox.link.validity import SYM_SIZE, LoadView

_RELA = LAYOUTS[64, "<"].rela
_RELA_SIZE = _RELA.size
PR_FMT = "module: "
HASHED = "(____ptrval____)"


class Recipe(NamedTuple):
    """How one relocation type is made: ``width`` bytes of symbol + addend, minus the place where ``relative``.

    ``packing`` is the struct code whose range the value must fit; PC-relative values out of range are cut off instead.
    """

    width: int
    relative: bool
    packing: str


RECIPES: Mapping[int, Recipe] = {
    R_X86_64.ABS64: Recipe(8, False, "q"),
    R_X86_64.ABS32: Recipe(4, False, "I"),
    R_X86_64.ABS32S: Recipe(4, False, "i"),
    R_X86_64.PC32: Recipe(4, True, "i"),
    R_X86_64.PLT32: Recipe(4, True, "i"),
    R_X86_64.PC64: Recipe(8, True, "q"),
}

_DISTINCT = tuple(dict.fromkeys(RECIPES.values()))
_PACKERS = {recipe: Struct("<" + recipe.packing).pack_into for recipe in _DISTINCT}
_NOTHING, _SLOW = 254, 255
#: Relocation type (one byte) to the number of its recipe, or one of the two above.
_KIND = bytes(
    _NOTHING if kind == R_X86_64.NONE else _DISTINCT.index(RECIPES[kind]) if kind in RECIPES else _SLOW
    for kind in range(256)
)
_WIDTH = bytes(_DISTINCT[kind].width if kind < len(_DISTINCT) else 0 for kind in range(256))
_IS_KIND = [bytes(number == kind for number in range(256)) for kind in range(len(_DISTINCT))]
_IS_SOMETHING = bytes(number != _NOTHING for number in range(256))
_IS_EIGHT = bytes(width == 8 for width in _WIDTH)
_NONZERO = bytes(value != 0 for value in range(256))

Livepatch = Callable[[int, str], Sequence[int] | None]
"""Asked for the symbol values of a livepatch relocation section (its number, the object); None leaves it for later."""


class Detail(NamedTuple):
    """Where a relocation failed, for people: the section written to, the offset in it, the symbol and the value."""

    section: str
    offset: int
    type: str
    symbol: str
    addend: int
    value: int


@dataclass(frozen=True, slots=True)
class Relocated:
    """What was applied: entries in all, by type number, and how many sections needed the slow way."""

    count: int
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
    livepatch: Livepatch | None = None,
    pointer: Callable[[int], str] = lambda address: HASHED,
    count_types: bool = False,
) -> Relocated:
    """Apply every relocation section to ``windows`` (``Layout.windows``), which are at ``addresses``.

    ``pointer`` prints an address as the kernel's ``%p`` would. Raises ``RelocationRefused``; what was applied before
    stays applied, as in the kernel.
    """
    work = _Work(view, addresses, windows, symbols, pointer, layout)
    for number, section in enumerate(view.sections):
        target = section.info
        if not number or target >= len(view.sections) or not layout.flags[target] & SHF.ALLOC:
            continue
        if section.flags & SHF.RELA_LIVEPATCH:
            work.livepatch(number, livepatch)
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
        symbols: Symbols,
        pointer: Callable[[int], str],
        layout: Layout,
    ) -> None:
        self.view, self.addresses, self.windows = view, addresses, windows
        self.values: Sequence[int] = symbols.values
        self.pointer = pointer
        self.layout = layout
        self.done: list[memoryview] = []
        self.slow = 0

    def livepatch(self, number: int, resolve: Livepatch | None) -> None:
        """A section whose symbols livepatch resolves itself: those of the kernel now, those of modules later."""
        name = self.view.sections[number].name
        start, _, rest = name.partition(".klp.rela.")
        owner = rest.partition(".")[0]
        if start or not owner:
            text = f"livepatch: section {name} has an incorrectly formatted name"
            raise RelocationRefused(errno.EINVAL, (LogLine(Level.ERR, text),), None)
        if owner != "vmlinux" or resolve is None:
            return
        values = resolve(number, owner)
        if values is not None:
            before, self.values = self.values, values
            self.section(number, self.view.sections[number].info)
            self.values = before

    def section(self, number: int, target: int) -> None:
        rows = self.view.contents(number)
        rows = rows[: len(rows) // _RELA_SIZE * _RELA_SIZE]
        if not rows:
            return
        window = self.windows[target]
        if window is None or not _apply_columns(rows, window, self.addresses[target], self.values):
            self.slow += 1
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
            memory, at = self._memory(place, recipe.width)
            if any(memory[at : at + recipe.width]):
                text = (
                    f"{PR_FMT}x86/modules: Skipping invalid relocation target, existing value is nonzero "
                    f"for type {kind}, loc {self.pointer(place)}, val {value:x}"
                )
                raise self._refused((text,), target, offset, kind, symbol, addend, value)
            stored = value - place & U64 if recipe.relative else value
            stored &= (1 << recipe.width * 8) - 1
            memory[at : at + recipe.width] = stored.to_bytes(recipe.width, "little")
            if not recipe.relative and not _survives(value, recipe):
                texts = (
                    f"{PR_FMT}overflow in relocation type {kind} val {value:x}",
                    f"{PR_FMT}`{self.view.mod_name}' likely not compiled with -mcmodel=kernel",
                )
                raise self._refused(texts, target, offset, kind, symbol, addend, value)

    def _symbol_value(self, number: int) -> int:
        """A symbol's value; a number behind the table reads what lies there in memory, as the kernel's would."""
        if number < len(self.values):
            return self.values[number]
        place = self.addresses[self.view.index.sym] + number * SYM_SIZE + 8
        memory, at = self._memory(place, 8)
        return int.from_bytes(memory[at : at + 8], "little")

    def _memory(self, address: int, size: int) -> tuple[memoryview, int]:
        """The bytes at an address of the module, wherever among its sections it lies."""
        for base, window in zip(self.addresses, self.windows, strict=True):
            if window is not None and base <= address and address + size <= base + len(window):
                return window, address - base
        raise Refusal(errno.ENOEXEC, why=f"a relocation reaches {address:#x}, outside the module", crash=True)

    def _refused(
        self, texts: Sequence[str], target: int, offset: int, kind: int, symbol: int, addend: int, value: int
    ) -> RelocationRefused:
        table = symbol_table(self.view)
        name = symbol_name(self.view, table, symbol) if symbol < len(table) else f"symbol {symbol}"
        detail = Detail(self.view.sections[target].name, offset, relocation_name(EM.X86_64, kind), name, addend, value)
        return RelocationRefused(errno.ENOEXEC, [LogLine(Level.ERR, text) for text in texts], detail)


def _survives(value: int, recipe: Recipe) -> bool:
    """Does an absolute value come back whole from the width and sign it is stored with?"""
    if recipe.width == 8:
        return True
    if recipe.packing == "I":
        return value < 1 << 32
    return value < 1 << 31 or value >= U64 + 1 - (1 << 31)


def _apply_columns(rows: memoryview, window: memoryview, address: int, values: Sequence[int]) -> bool:
    """Apply a whole section at once; False, with nothing written, if any entry is not plain."""
    words, quads = rows.cast("I"), rows.cast("Q")
    kinds = rows[8::24].tobytes().translate(_KIND)
    present = set(kinds)
    columns: tuple[list[int], list[int], list[int]] = (
        quads[0::3].tolist(),
        words[3::6].tolist(),
        rows.cast("q")[2::3].tolist(),
    )
    if _SLOW in present or any(rows[9::24].tobytes()) or any(words[2::6].tobytes()[2::4]):
        return False
    if _NOTHING in present:
        kept = kinds.translate(_IS_SOMETHING)
        columns = _chosen(columns, kept)
        kinds = bytes(compress(kinds, kept))
        present.discard(_NOTHING)
        if not present:
            return True
    offsets, symbols, _ = columns
    if max(symbols) >= len(values) or not _targets_free(offsets, kinds, present, window):
        return False
    base = address - (1 << 64) if address >= 1 << 63 else address
    writes = []
    for kind in present:
        recipe = _DISTINCT[kind]
        offsets, symbols, addends = columns if len(present) == 1 else _chosen(columns, kinds.translate(_IS_KIND[kind]))
        if recipe.relative:
            seen = {symbol: values[symbol] - base for symbol in set(symbols)}
            numbers = map(sub, map(add, map(seen.__getitem__, symbols), addends), offsets)
        else:
            numbers = map(add, map(values.__getitem__, symbols), addends)
        try:
            writes.append((recipe, offsets, array(recipe.packing, numbers)))
        except OverflowError:
            return False
    for recipe, offsets, stored in writes:
        width, count = recipe.width, len(offsets)
        start = offsets[0]
        if offsets[-1] - start == width * (count - 1):
            window[start : start + width * count] = memoryview(stored).cast("B")
        else:
            deque(map(_PACKERS[recipe], repeat(window), offsets, stored), 0)
    return True


def _chosen(columns: tuple[list[int], list[int], list[int]], chosen: bytes) -> tuple[list[int], list[int], list[int]]:
    first, second, third = columns
    return list(compress(first, chosen)), list(compress(second, chosen)), list(compress(third, chosen))


def _targets_free(offsets: list[int], kinds: bytes, present: set[int], window: memoryview) -> bool:
    """Are the targets in order, apart, inside the section and zero?"""
    wide = max(_DISTINCT[kind].width for kind in present)
    if offsets[-1] + _DISTINCT[kinds[-1]].width > len(window):
        return False
    gaps = list(map(sub, offsets[1:], offsets))
    if gaps and min(gaps) < wide and not all(map(ge, gaps, kinds.translate(_WIDTH))):
        return False
    zeros = bytes(window).translate(_NONZERO)
    if 1 not in zeros:
        return True
    # One number whose byte k tells whether any of bytes k to k+3 is nonzero, and then k to k+7.
    dirty = int.from_bytes(zeros, "little")
    dirty |= dirty >> 8
    dirty |= dirty >> 16
    if any(map(dirty.to_bytes(len(zeros), "little").__getitem__, offsets)):
        return False
    if wide == 4:
        return True
    eight = (dirty | dirty >> 32).to_bytes(len(zeros), "little")
    return not any(map(eight.__getitem__, compress(offsets, kinds.translate(_IS_EIGHT))))
