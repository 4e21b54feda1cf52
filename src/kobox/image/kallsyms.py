"""kallsyms: the kernel's own symbol table, found in its read-only data and expanded.

Nothing points at the tables and their order differs between releases, so each is found by agreeing with the others:
the token index must be the offsets of the token table's strings, every marker must be the place of its 256th name, the
offsets must ascend. Follows kernel/kallsyms.c and scripts/kallsyms.c.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator
from itertools import accumulate
from operator import le
from typing import NamedTuple

from kobox.errors import BadFile

_DIGITS = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00"
_STEP = 256
_MAX_NAME = 1024
_MASK = 0xFFFFFFFFFFFFFFFF
_MARKERS = re.compile(rb"(?s)(?=\0{4}(?:.[\x02-\xff].\0){2})")
"""Two more markers are asked for: a kernel of fewer than 513 symbols does not exist."""


class Kallsyms(NamedTuple):
    """Columns in the table's own order, which is ascending by address. ``types`` are the letters of nm."""

    names: list[bytes]
    types: bytes
    addresses: array[int]


class _Tokens(NamedTuple):
    table_off: int
    end_off: int
    strings: list[bytes]


def read_kallsyms(data: bytes, text_base: int, name: str) -> Kallsyms:
    """Find and expand the tables in ``data`` (the flat kernel or its read-only part, 8-byte aligned); ``text_base`` is
    the kernel map's first virtual address. BadFile says which table could not be found."""
    tokens = _find_tokens(data, name)
    for markers_off, markers in _marker_candidates(data, tokens.table_off):
        found = _find_names(data, markers_off, markers)
        if found is None:
            continue
        count_off, names_off, count = found
        addresses = _find_addresses(data, count_off, tokens.end_off, count, text_base)
        if addresses is None:
            raise BadFile(name, "kallsyms", f"no table of {count} addresses beside the names")
        names, types = _expand(data, names_off, count, tokens.strings)
        return Kallsyms(names, types, addresses)
    raise BadFile(name, "kallsyms", "names and markers not found", hint="kernel built without CONFIG_KALLSYMS?")


def _find_tokens(data: bytes, name: str) -> _Tokens:
    """Each digit is a token of its own at its own ASCII code; the index behind the table proves the find."""
    at = data.find(_DIGITS)
    while at >= 0:
        tokens = _tokens_around(data, at)
        if tokens is not None:
            return tokens
        at = data.find(_DIGITS, at + 1)
    raise BadFile(name, "kallsyms", "token table not found", hint="kernel built without CONFIG_KALLSYMS?")


def _tokens_around(data: bytes, zero_off: int) -> _Tokens | None:
    ends, at = [], zero_off
    for _ in range(0x30, 256):
        end = data.find(b"\0", at, at + 64)
        if end < 0:
            return None
        ends.append(at - zero_off)
        at = end + 1
    for index_off in range(-(-at // 4) * 4, -(-at // 4) * 4 + 64, 4):
        index = struct.unpack_from("<256H", data, index_off) if index_off + 512 <= len(data) else ()
        if index and [value - index[0x30] for value in index[0x30:]] == ends and index[0x30] <= zero_off:
            table_off = zero_off - index[0x30]
            strings = data[table_off : zero_off + ends[-1] + 64].split(b"\0", 256)[:256]
            lengths = (len(string) + 1 for string in strings)
            if list(accumulate(lengths, initial=0))[:256] == list(index):
                return _Tokens(table_off, index_off + 512, strings)
    return None


def _marker_candidates(data: bytes, limit: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Places before the token table that look like markers: 0, then ascending by plausible lengths of 256 names."""
    for window in (1 << 20, 16 << 20):
        floor = max(0, limit - window)
        for match in _MARKERS.finditer(data, floor, limit):
            at = match.start()
            if at % 4 == 0:
                run = _ascending(data, at, limit)
                # What follows the table may happen to continue it: the table may be shorter than the run.
                for count in range(len(run), max(0, len(run) - 3), -1):
                    yield at, run[:count]


def _ascending(data: bytes, at: int, limit: int) -> tuple[int, ...]:
    values = array("I", data[at : at + (limit - at) // 4 * 4 if limit - at < 1 << 16 else at + (1 << 16)])
    last = 0
    for number, value in enumerate(values):
        if number and not 2 * _STEP <= value - last <= _MAX_NAME * _STEP:
            return tuple(values[:number])
        last = value
    return tuple(values)


def _find_names(data: bytes, markers_off: int, markers: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Offsets of the count and of the names, and the count: names end where the markers begin and agree with them."""
    low, high = _STEP * (len(markers) - 1), _STEP * len(markers)
    last = markers_off - markers[-1]
    for names_off in range(last // 4 * 4, max(8, last - _STEP * _MAX_NAME) - 1, -4):
        for count_off in (names_off - 8, names_off - 4):
            (count,) = struct.unpack_from("<I", data, count_off)
            if low < count <= high and _names_agree(data, names_off, count, markers_off, markers):
                return count_off, names_off, count
    return None


def _names_agree(data: bytes, names_off: int, count: int, markers_off: int, markers: tuple[int, ...]) -> bool:
    at = names_off
    for number in range(count):
        if number % _STEP == 0 and at - names_off != markers[number // _STEP]:
            return False
        size = data[at]
        at += 1
        if size & 0x80:
            size = (size & 0x7F) | data[at] << 7
            at += 1
        if not size:
            return False
        at += size
        if at > markers_off:
            return False
    return markers_off - at < 8


def _find_addresses(data: bytes, count_off: int, tokens_end: int, count: int, text_base: int) -> array[int] | None:
    """The offsets stand before the count (up to 6.3) or behind the token index, with their base right after them; newer
    kernels have no base, and each offset is a distance from its own place."""
    size = 4 * count
    behind = [(off, pad) for off in range(-(-tokens_end // 4) * 4, tokens_end + 16, 4) for pad in (0, 4)]
    before = [(count_off - 8 - pad - size - gap, pad) for gap in (0, 4, 8) for pad in (0, 4)]
    for offsets_off, pad in [*before, *behind]:
        base_off = offsets_off + size + pad
        if offsets_off < 0 or base_off + 8 > len(data):
            continue
        (base,) = struct.unpack_from("<Q", data, base_off)
        if base < text_base or base - text_base >= len(data):
            continue
        addresses = _absolute(array("i", data[offsets_off : offsets_off + size]), base)
        if addresses is not None:
            return addresses
    for offsets_off, _ in behind:
        addresses = _from_own_places(data[offsets_off : offsets_off + size], text_base + offsets_off, len(data))
        if addresses is not None and len(addresses) == count:
            return addresses
    return None


def _from_own_places(table: bytes, place: int, limit: int) -> array[int] | None:
    """Addresses from distances that are each relative to their own place, None unless they ascend inside the kernel."""
    offsets = array("i", table)
    if not offsets or not -limit < offsets[0] < limit:
        return None
    addresses = array("Q", [(place + 4 * number + offset) & _MASK for number, offset in enumerate(offsets)])
    return addresses if _ascends(addresses) else None


def _absolute(offsets: array[int], base: int) -> array[int] | None:
    """Addresses from offsets, None unless they ascend. With absolute per-CPU symbols a negative offset counts down from
    the base and any other is an address; without, all are unsigned distances from the base."""
    if any(offset < 0 for offset in offsets):
        addresses = array("Q", [offset if offset >= 0 else (base - 1 - offset) & _MASK for offset in offsets])
        if _ascends(addresses):
            return addresses
    addresses = array("Q", [(base + (offset & 0xFFFFFFFF)) & _MASK for offset in offsets])
    return addresses if _ascends(addresses) else None


def _ascends(values: array[int]) -> bool:
    return all(map(le, values, values[1:]))


def _expand(data: bytes, at: int, count: int, tokens: list[bytes]) -> tuple[list[bytes], bytes]:
    names, types = [], bytearray()
    token_of, join = tokens.__getitem__, b"".join
    for _ in range(count):
        size = data[at]
        at += 1
        if size & 0x80:
            size = (size & 0x7F) | data[at] << 7
            at += 1
        text = join(map(token_of, data[at : at + size]))
        types.append(text[0])
        names.append(text[1:])
        at += size
    return names, bytes(types)
