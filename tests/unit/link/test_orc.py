"""The unwinder's tables come out sorted, and still describe the same code."""

from __future__ import annotations

import random
import struct

import pytest

from kobox.link.orc import sort_orc
from kobox.link.rules import default_rules

RULES = default_rules()


def orc(places: list[int], flags: list[int]) -> tuple[bytearray, bytearray]:
    ips = bytearray(b"".join(struct.pack("<i", place - 4 * number) for number, place in enumerate(places)))
    return ips, bytearray(b"".join(struct.pack("<hhH", number, 0, flag) for number, flag in enumerate(flags)))


def test_unwind_entries_are_sorted_together() -> None:
    ips, entries = orc([0x30, 0x10, 0x20], [5, 5, 5])
    assert sort_orc(memoryview(ips), memoryview(entries), RULES)
    places = [distance + 4 * number for number, (distance,) in enumerate(struct.iter_unpack("<i", ips))]
    assert places == [0x10, 0x20, 0x30]
    assert [offset for offset, _, _ in struct.iter_unpack("<hhH", entries)] == [1, 2, 0]


def test_an_entry_that_ends_a_range_goes_before_one_that_starts_another_there() -> None:
    ips, entries = orc([0x10, 0x20, 0x20], [5, 5, 0])
    assert sort_orc(memoryview(ips), memoryview(entries), RULES)
    assert [flags for _, _, flags in struct.iter_unpack("<hhH", entries)] == [5, 0, 5]


def test_sorted_unwind_entries_are_left_alone() -> None:
    ips, entries = orc([0x10, 0x20, 0x30], [5, 0, 5])
    before = bytes(ips)
    assert not sort_orc(memoryview(ips), memoryview(entries), RULES)
    assert ips == before


def described(ips: bytearray, entries: bytearray) -> list[tuple[int, bool, int]]:
    """Each entry's address, whether it goes on, and which one it was."""
    places = [distance + 4 * number for number, (distance,) in enumerate(struct.iter_unpack("<i", ips))]
    rows = struct.iter_unpack("<hhH", entries)
    return [(place, bool(flags & 0x40F), number) for place, (number, _, flags) in zip(places, rows, strict=True)]


@pytest.mark.parametrize("seed", range(30))
def test_any_table_is_sorted(seed: int) -> None:
    choose = random.Random(seed)
    places: list[int] = []
    flags: list[int] = []
    start = -0x100000
    for _ in range(choose.randint(1, 12)):
        here = choose.choice([start, 0x40000 + start, choose.randrange(-(1 << 20), 1 << 20)])
        for _ in range(choose.choice([1, 5, 17, 100])):
            places.append(here)
            flags.append(5)
            here += choose.randint(1, 40)
        places.append(here)
        flags.append(0)
        start = here if choose.random() < 0.5 else here + 16
    ips, entries = orc(places, flags)
    before = described(ips, entries)
    sort_orc(memoryview(ips), memoryview(entries), RULES)
    after = described(ips, entries)
    assert [entry[:2] for entry in after] == sorted(entry[:2] for entry in before)
    assert sorted(after) == sorted(before)


def test_distances_at_the_edges_of_their_range_are_compared_right() -> None:
    ips = bytearray(struct.pack("<iiii", (1 << 31) - 1, -(1 << 31), -5, 0))
    entries = bytearray(struct.pack("<hhHhhHhhHhhH", 0, 0, 5, 1, 0, 5, 2, 0, 5, 3, 0, 5))
    wanted = sorted(described(ips, entries))[1:3]
    assert wanted == [(3, True, 2), (12, True, 3)]


def test_an_odd_number_of_entries_is_sorted_to_the_last() -> None:
    ips, entries = orc([0x30, 0x20, 0x10], [5, 5, 5])
    assert sort_orc(memoryview(ips), memoryview(entries), RULES)
    assert [number for _, _, number in described(ips, entries)] == [2, 1, 0]


def test_tables_without_entries_are_sorted() -> None:
    assert not sort_orc(memoryview(bytearray()), memoryview(bytearray()), RULES)
    assert not sort_orc(memoryview(bytearray(4)), memoryview(bytearray(6)), RULES._replace())
