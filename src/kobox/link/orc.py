"""Sorting the unwinder's tables of a module by address, as ``unwind_module_init`` of arch/x86 does.

A module is linked from many files, and each left its entries in groups, one a section: rising within, closed by an
entry that only ends the range. So the tables are cut into such groups, the groups are put in order and moved as wholes;
only where that does not give a sorted table are entries sorted one by one. Comparing and moving is done on wide
integers, a lane an entry, as in ``columns``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from struct import Struct

from kobox.link.lanes import LANE, U32, halves, ones
from kobox.link.rules import Rules

DISTANCE = 4
_U32 = Struct("<I")


def sort_orc(ips: memoryview, entries: memoryview, rules: Rules) -> bool:
    """Sort the two parallel tables by address; True if they were not in order.

    ``ips`` holds distances from each entry's own place. Of two entries for one address the one that only ends a range
    goes first.
    """
    size, mask = rules.sizes["orc_entry"], rules.orc_terminator_mask
    total = min(len(ips) // DISTANCE, len(entries) // size)
    raw, old = bytes(ips[: total * DISTANCE]), bytes(entries[: total * size])
    falls = _falls(raw, total)
    if not falls:
        return False

    distances = memoryview(raw).cast("i")
    low, high = mask & 0xFF, mask >> 8

    def rank(number: int) -> int:
        """Address and, below it, whether the entry goes on: what entries are sorted by."""
        goes_on = old[(number + 1) * size - 2] & low or old[(number + 1) * size - 1] & high
        return (distances[number] + number * DISTANCE) * 2 + bool(goes_on)

    bounds = {0, total, *(number + 1 for number in falls), *(number + 1 for number in _terminators(old, size, mask))}
    groups = _in_order(list(pairwise(sorted(bounds))), total, rank)
    moved, shifts, place = [], [], 0
    for start, end in groups:
        moved.append(raw[start * DISTANCE : end * DISTANCE])
        shifts.append(_U32.pack((start - place) * DISTANCE & U32) * (end - start))
        place += end - start
    ips[: total * DISTANCE] = _added(b"".join(moved), b"".join(shifts), total)
    entries[: total * size] = b"".join([old[start * size : end * size] for start, end in groups])
    return True


def _in_order(groups: list[tuple[int, int]], total: int, rank: Callable[[int], int]) -> list[tuple[int, int]]:
    """The groups by address; single entries where groups reach into each other."""
    ranked = sorted((rank(start), rank(end - 1), start, end) for start, end in groups)
    if all(before[1] <= after[0] for before, after in pairwise(ranked)):
        return [(start, end) for _, _, start, end in ranked]
    return [(number, number + 1) for number in sorted(range(total), key=rank)]


def _falls(raw: bytes, total: int) -> list[int]:
    """Numbers of the entries whose next one is not at a higher address."""
    pairs = (total + 1) // 2
    single, half = ones(pairs), halves(pairs)
    # Every second distance is taken, so that its lane has room for a borrow; biased, they compare as unsigned numbers.
    number, bias = int.from_bytes(raw, "little"), single << 31
    even, odd = number & half ^ bias, number >> 32 & half ^ bias
    found = []
    for first, here, after in ((0, even, odd), (1, odd, even >> 64)):
        # The next address is higher if its distance, counted from a place further, is not less by a place or more.
        rises = (after + single * (DISTANCE - 1) + (single << 33) - here) >> 33 & single
        found += [2 * lane + first for lane in _set_lanes(rises ^ single, pairs)]
    return sorted(number for number in found if number < total - 1)


def _set_lanes(lanes: int, count: int) -> list[int]:
    """Numbers of the 8-byte lanes that hold a one."""
    if not lanes:
        return []
    raw = lanes.to_bytes(LANE * count, "little")[::LANE]
    found, start = [], raw.find(1)
    while start >= 0:
        found.append(start)
        start = raw.find(1, start + 1)
    return found


@cache
def _any_of(mask: int) -> bytes:
    """A translation of bytes into one where a bit of ``mask`` is set and zero elsewhere."""
    return bytes(number & mask != 0 for number in range(256))


def _terminators(entries: bytes, size: int, mask: int) -> list[int]:
    """Numbers of the entries that only end a range: none of the ``mask`` bits is set in their last two bytes."""
    low = entries[size - 2 :: size].translate(_any_of(mask & 0xFF))
    high = entries[size - 1 :: size].translate(_any_of(mask >> 8))
    either = int.from_bytes(low, "little") | int.from_bytes(high, "little")
    flags = either.to_bytes(len(low), "little")
    found, start = [], flags.find(0)
    while start >= 0:
        found.append(start)
        start = flags.find(0, start + 1)
    return found


def _added(raw: bytes, shifts: bytes, total: int) -> bytes:
    """Each 4-byte number of ``raw`` plus that of ``shifts``, cut to 4 bytes; odd and even ones in separate lanes."""
    pairs = (total + 1) // 2
    half = halves(pairs)
    first, second = int.from_bytes(raw, "little"), int.from_bytes(shifts, "little")
    even = (first & half) + (second & half) & half
    odd = (first >> 32 & half) + (second >> 32 & half) & half
    return (even | odd << 32).to_bytes(LANE * pairs, "little")[: total * DISTANCE]
