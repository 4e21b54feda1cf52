"""Relocation sections applied fast, when nothing is odd about them.

More than half of a distribution's 5.6 million relocations fill tables without gaps: unwinder addresses, return sites,
traced functions, pointers. There the columns of the section (offset, symbol, addend) are read as strided views and laid
out in large integers, one 64-bit lane an entry, on which one addition adds them all; the result is stored in one go. A
lane never overflows into the next: 64-bit values are added as two halves of 32 bits, each with a lane to itself.

Scattered targets gain nothing by that and take a loop that does no more than it must.

What is not plain is declined with nothing written: an unknown type, a symbol outside the symbol table, a target outside
the section, out of order, overlapping another or holding a nonzero byte, a value that does not fit.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property, lru_cache
from struct import Struct
from struct import error as StructError

from kobox.elf.constants import R_X86_64
from kobox.elf.layouts import LAYOUTS
from kobox.link.lanes import LANE, U32, halves, ones

U64 = (1 << 64) - 1
BLOCK = 1024
"""Entries taken at once: few enough that all their lanes stay in the processor's cache."""

_NONE, _PC32, _PLT32 = R_X86_64.NONE, R_X86_64.PC32, R_X86_64.PLT32
_ABS64, _PC64 = R_X86_64.ABS64, R_X86_64.PC64
_ABS32, _ABS32S = R_X86_64.ABS32, R_X86_64.ABS32S
_RELATIVE = frozenset({_PC32, _PLT32, _PC64})
_WIDE = frozenset({_ABS64, _PC64})
_NARROW = frozenset({_PC32, _PLT32, _ABS32, _ABS32S})
_ROW = LAYOUTS[64, "<"].rela
_LANE = Struct("8s")
_ZERO4, _ZERO8 = bytes(4), bytes(8)
_PACK_S32, _PACK_S64 = Struct("<i").pack_into, Struct("<q").pack_into


class SymbolValues:
    """A module's symbols by number: their signed addresses, and (made when asked for) the same as 8 bytes each."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = values

    @cached_property
    def lanes(self) -> list[bytes]:
        return [lane for (lane,) in _LANE.iter_unpack(array("q", self.values).tobytes())]


def apply_section(rows: memoryview, window: memoryview, address: int, symbols: SymbolValues) -> bool:
    """Apply the entries ``rows``, at least one, to ``window``, which is at ``address``.

    False, with nothing written, if any entry is not plain.
    """
    places = rows.cast("Q")[0::3]
    if places[-1] - places[0] == (8 if rows[8] in _WIDE else 4) * (len(places) - 1):
        return _apply_table(rows, window, address, symbols.lanes) or _apply_scattered(
            rows, window, address, symbols.values
        )
    return _apply_scattered(rows, window, address, symbols.values)


def _apply_scattered(rows: memoryview, window: memoryview, address: int, values: Sequence[int]) -> bool:
    """One entry after the other, as long as all are in rising order and fit."""
    before, end = bytes(window), 0
    base = address - (1 << 64) if address >= 1 << 63 else address
    try:
        for offset, kind, symbol, addend in _ROW.iter_unpack(rows):
            if kind in (_PC32, _PLT32):
                free = before[offset : offset + 4] == _ZERO4
                _PACK_S32(window, offset, values[symbol] + addend - base - offset)
            elif kind == _ABS64:
                free = before[offset : offset + 8] == _ZERO8
                _PACK_S64(window, offset, values[symbol] + addend)
            elif kind == _ABS32S:
                free = before[offset : offset + 4] == _ZERO4
                _PACK_S32(window, offset, values[symbol] + addend)
            elif kind == _PC64:
                free = before[offset : offset + 8] == _ZERO8
                _PACK_S64(window, offset, values[symbol] + addend - base - offset)
            else:
                free = kind == _NONE
                if free:
                    continue
            if not free or offset < end:
                break
            end = offset + (8 if kind in _WIDE else 4)
        else:
            return True
    except (StructError, IndexError, OverflowError):
        pass
    window[:] = before
    return False


def _apply_table(rows: memoryview, window: memoryview, address: int, symbols: Sequence[bytes]) -> bool:
    """Entries of one width, side by side from the first to the last."""
    first = end = rows.cast("Q")[0]
    stored = []
    for start in range(0, len(rows), BLOCK * _ROW.size):
        block = rows[start : start + BLOCK * _ROW.size]
        made = _block(block, address, symbols) if block.cast("Q")[0] == end else None
        if made is None:
            return False
        stored.append(made)
        end += len(made)
    if end > len(window) or bytes(window[first:end]) != bytes(end - first):
        return False
    window[first:end] = b"".join(stored)
    return True


def _block(rows: memoryview, address: int, symbols: Sequence[bytes]) -> bytes | None:
    """What a few entries store, side by side; None if one is not plain."""
    types = rows[8::24].tobytes()
    count = len(types)
    present = frozenset(types[:1] if types == types[:1] * count else types)
    if not (present <= _NARROW or present <= _WIDE) or not _types_are_bytes(rows, types):
        return None
    places = rows.cast("Q")[0::3]
    if places.tobytes() != _ramp(places[0], count, 8 if present <= _WIDE else 4):
        return None
    return _values(rows, present, count, address, symbols)


def _types_are_bytes(rows: memoryview, types: bytes) -> bool:
    """Is every type below 256, so that its low byte is all of it?"""
    words = rows.cast("I")[2::6].tobytes()
    return len(words) - words.count(0) == len(types) - types.count(0)


@lru_cache(maxsize=512)
def _ramp(first: int, count: int, width: int) -> bytes:
    """Offsets side by side, in lanes: tables begin at 0, so that blocks of one number are alike in all modules."""
    return array("Q", range(first, first + width * count, width)).tobytes() if first < 1 << 32 else b""


def _values(
    rows: memoryview, present: frozenset[int], count: int, address: int, lanes: Sequence[bytes]
) -> bytes | None:
    """What each entry stores, side by side; None if a symbol is unknown or a value does not fit."""
    symbols = _symbols(rows, count, lanes)
    if symbols is None:
        return None
    quads = rows.cast("Q")
    wide, relative = bool(present & _WIDE), present & _RELATIVE
    single, half = ones(count), halves(count)
    base = int.from_bytes(symbols, "little")
    addend = int.from_bytes(quads[2::3].tobytes(), "little")
    low = (base & half) + (addend & half)
    high = kinds = 0
    if wide or present != relative:
        high = (base >> 32 & half) + (addend >> 32 & half)
        kinds = int.from_bytes(quads[1::3].tobytes(), "little") if len(present) > 1 else 0
    if relative:
        # Of the narrow types the absolute ones have bit 3 set, of the wide types the relative one.
        chosen = single
        if present != relative:
            chosen = kinds >> 3 & single if wide else (kinds >> 3 & single) ^ single
        mask = (chosen << 32) - chosen
        # Subtracting the place is adding its complement and one.
        places = int.from_bytes(quads[0::3].tobytes(), "little")
        less = 1 - address & U64
        low += ((places & half ^ half) & mask) + chosen * (less & U32)
        if wide:
            high += ((places >> 32 & half ^ half) & mask) + chosen * (less >> 32)
    if wide or present != relative:
        high = high + (low >> 32 & half) & half
        low &= half
        if wide:
            return (high << 32 | low).to_bytes(LANE * count, "little")
        if not _fit(present, low, high, kinds, single):
            return None
    return memoryview(low.to_bytes(LANE * count, "little")).cast("I")[0::2].tobytes()


def _fit(present: frozenset[int], low: int, high: int, kinds: int, single: int) -> bool:
    """Do the absolute values among narrow ones survive being cut to 32 bits, each by its own sign rule?"""
    signed = unsigned = 0
    if len(present) == 1:
        signed, unsigned = (single, 0) if _ABS32S in present else (0, single)
    else:
        absolute = kinds >> 3 & single
        signed, unsigned = absolute & kinds, absolute & ~kinds
    sign = low >> 31 & single
    extended = (sign << 32) - sign
    return not high & ((unsigned << 32) - unsigned) and not (high ^ extended) & ((signed << 32) - signed)


def _symbols(rows: memoryview, count: int, lanes: Sequence[bytes]) -> bytes | None:
    """The value of each entry's symbol in 8 bytes; None if a number is outside the table."""
    column = rows.cast("I")[3::6]
    raw = column.tobytes()
    if raw == raw[:4] * count:
        first = column[0]
        return lanes[first] * count if first < len(lanes) else None
    try:
        return b"".join(map(lanes.__getitem__, column.tolist()))
    except IndexError:
        return None
