"""A relocation section applied as a whole: columns of numbers instead of entries.

A distribution's modules hold 5.6 million relocations; a Python step for each would cost more than all the rest of
linking. So the columns of a section (offset, symbol, addend) are read as strided views and laid out in large integers,
one 64-bit lane an entry, on which one addition adds them all. Only looking up symbols and storing scattered results
still costs something for each entry.

A lane never overflows into the next: 64-bit values are added as two halves of 32 bits, each with a lane to itself.

What is not plain is declined with nothing written: an unknown type, a symbol outside the table, a target outside the
section or holding a nonzero byte, a value that does not fit. ``relocate`` then takes the entries one by one.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress, repeat
from operator import ge, sub
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from kobox.elf.constants import R_X86_64
from kobox.link.lanes import LANE, U32, halves, ones

U64 = (1 << 64) - 1
BLOCK = 1024
"""Entries taken at once: few enough that all their lanes stay in the processor's cache."""

_NONE = R_X86_64.NONE
_ABS64, _PC64 = R_X86_64.ABS64, R_X86_64.PC64
_ABS32, _ABS32S = R_X86_64.ABS32, R_X86_64.ABS32S
_RELATIVE = frozenset({R_X86_64.PC32, R_X86_64.PLT32, _PC64})
_WIDE = frozenset({_ABS64, _PC64})
_KNOWN = _RELATIVE | {_ABS64, _ABS32, _ABS32S}

_WIDTHS = bytes(8 if kind in _WIDE else 4 if kind in _KNOWN else 0 for kind in range(256))
_IS_WIDE = bytes(kind in _WIDE for kind in range(256))
_IS_KNOWN = bytes(kind in _KNOWN for kind in range(256))
_IS_NARROW = bytes(kind in _KNOWN - _WIDE for kind in range(256))
_ROW = Struct("24s")
_LANE = Struct("8s")
_STORE = {4: Struct("<I").pack_into, 8: Struct("<Q").pack_into}


class _Part(NamedTuple):
    """Entries of one width: their bytes, their types, and which types there are."""

    rows: memoryview
    types: bytes
    present: frozenset[int]


def lanes_of(values: Sequence[int]) -> list[bytes]:
    """Signed addresses as 8 bytes each, which is how ``apply_columns`` wants a module's symbols."""
    return [lane for (lane,) in _LANE.iter_unpack(array("q", values).tobytes())]


def apply_columns(rows: memoryview, window: memoryview, address: int, symbols: Sequence[bytes]) -> bool:
    """Apply the entries ``rows`` to ``window``, which is at ``address``, using ``symbols`` (see ``lanes_of``).

    False, with nothing written, if any entry is not plain.
    """
    before = bytes(window)
    nonzero = 0
    for start in range(0, len(rows), BLOCK * _ROW.size):
        written = _apply_block(rows[start : start + BLOCK * _ROW.size], window, address, symbols)
        if written is None:
            window[:] = before
            return False
        nonzero += written
    # Each byte that is written nonzero over a zero leaves one zero less. Any other sum tells of a byte that was not
    # zero when its turn came: a damaged target, or two targets that overlap.
    if before.count(0) - bytes(window).count(0) != nonzero:
        window[:] = before
        return False
    return True


def _apply_block(rows: memoryview, window: memoryview, address: int, symbols: Sequence[bytes]) -> int | None:
    """Apply a few entries; the number of nonzero bytes written, or None (with some written) if one is not plain."""
    whole = _as_part(rows, rows[8::24].tobytes())
    if not whole.present <= _KNOWN | {_NONE} or not _types_are_bytes(whole):
        return None
    if _NONE in whole.present:
        whole = _chosen(whole, _IS_KNOWN)
        if not whole.types:
            return 0
    parts = [whole]
    if whole.present & _WIDE and whole.present - _WIDE:
        if not _apart(whole):
            return None
        parts = [_chosen(whole, marks) for marks in (_IS_NARROW, _IS_WIDE)]
    nonzero = 0
    for part in parts:
        stored = _values(part, address, symbols)
        if stored is None or not _store(part, stored, window):
            return None
        nonzero += len(stored) - stored.count(0)
    return nonzero


def _as_part(rows: memoryview, types: bytes) -> _Part:
    return _Part(rows, types, frozenset(types[:1] if types == types[:1] * len(types) else types))


def _types_are_bytes(part: _Part) -> bool:
    """Is every type below 256, so that its low byte is all of it?"""
    words = part.rows.cast("I")[2::6].tobytes()
    return len(words) - words.count(0) == len(part.types) - part.types.count(0)


def _apart(part: _Part) -> bool:
    """Are the targets in order, none reaching into the next? Then the order of writing does not matter."""
    offsets = part.rows.cast("Q")[0::3].tolist()
    return all(map(ge, map(sub, offsets[1:], offsets), part.types.translate(_WIDTHS)))


def _chosen(part: _Part, marks: bytes) -> _Part:
    """The entries whose type is marked."""
    kept = part.types.translate(marks)
    rows = b"".join([row for (row,) in compress(_ROW.iter_unpack(part.rows), kept)])
    return _as_part(memoryview(rows), bytes(compress(part.types, kept)))


def _values(part: _Part, address: int, lanes: Sequence[bytes]) -> bytes | None:
    """What each entry stores, side by side; None if a symbol is unknown or a value does not fit."""
    rows, types, present = part
    count = len(types)
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


@lru_cache(maxsize=512)
def _ramp(first: int, count: int, width: int) -> bytes:
    """Offsets side by side, in lanes: tables begin at 0, so that blocks of one number are alike in all modules."""
    return array("Q", range(first, first + width * count, width)).tobytes()


def _store(part: _Part, stored: bytes, window: memoryview) -> bool:
    """Write ``stored`` to the targets; False if one lies outside."""
    count = len(part.types)
    width = len(stored) // count
    places = part.rows.cast("Q")[0::3]
    first, span = places[0], width * count
    if places[-1] - first == span - width and places.tobytes() == _ramp(first, count, width):
        if first + span > len(window):
            return False
        window[first : first + span] = stored
        return True
    numbers = (memoryview(stored).cast("I") if width == 4 else memoryview(stored).cast("Q")).tolist()
    try:
        deque(map(_STORE[width], repeat(window), places.tolist(), numbers), 0)
    except (StructError, OverflowError):
        return False
    return True
