"""Index files: what is written is found again, by key, by wildcard and in a dump; broken files say where."""

from __future__ import annotations

import ctypes
import random
import struct
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kobox.depot.alias_table import AliasTable
from kobox.depot.index import IndexEntry, IndexFile
from kobox.depot.index_write import CHILDREN_FIRST, PARENTS_FIRST, IndexValues, write_index
from kobox.depot.names import matcher, normal_alias, wildcard
from kobox.errors import BadFile

KEYS = st.text(alphabet="abc-:_*?[]x0", max_size=8)
PATTERNS = st.text(alphabet="ab01*?-", max_size=8)


def written(path: Path, entries: list[tuple[str, int, str]], order: str = CHILDREN_FIRST) -> Path:
    values = IndexValues()
    for key, priority, value in entries:
        values.add(key.encode(), priority, value.encode())
    path.write_bytes(write_index(values, order))
    return path


def opened(path: Path, entries: list[tuple[str, int, str]], order: str = CHILDREN_FIRST) -> IndexFile:
    return IndexFile(written(path, entries, order))


def test_a_key_finds_its_value_and_a_part_of_it_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "x.bin", [("foobar", 1, "one"), ("foo", 2, "two"), ("fox", 3, "three")]) as index:
        assert index.lookup("foo") == [IndexEntry(2, "two")]
        assert index.lookup("foobar") == [IndexEntry(1, "one")]
        assert index.lookup("fo") == []
        assert index.lookup("foobars") == []
        assert index.lookup("") == []


def test_values_of_one_key_stand_by_priority_and_the_last_of_equals_first(tmp_path: Path) -> None:
    entries = [("k", 5, "five"), ("k", 1, "one"), ("k", 5, "five again")]
    with opened(tmp_path / "x.bin", entries) as index:
        assert [entry.value for entry in index.lookup("k")] == ["one", "five again", "five"]


def test_a_wildcard_in_the_index_matches_a_key(tmp_path: Path) -> None:
    entries = [("pci:v1d*sv*", 3, "a"), ("pci:v1d2sv3", 2, "b"), ("usb:v?p[0-9]*", 1, "c"), ("*", 9, "all")]
    with opened(tmp_path / "x.bin", entries) as index:
        assert [entry.value for entry in index.search_wild("pci:v1d2sv3")] == ["b", "a", "all"]
        assert [entry.value for entry in index.search_wild("usb:v1p77")] == ["c", "all"]
        assert [entry.value for entry in index.search_wild("usb:v1px")] == ["all"]


def test_a_dump_lists_a_key_before_longer_ones(tmp_path: Path) -> None:
    with opened(tmp_path / "x.bin", [("ab", 1, "x"), ("a", 2, "y"), ("b", 3, "z")]) as index:
        assert [(key, entry.value) for key, entry in index.dump("p:")] == [("p:a", "y"), ("p:ab", "x"), ("p:b", "z")]


def test_an_index_without_entries_is_a_header_and_nothing_is_found(tmp_path: Path) -> None:
    with opened(tmp_path / "x.bin", []) as index:
        assert (tmp_path / "x.bin").stat().st_size == 12
        assert index.lookup("a") == []
        assert index.search_wild("a") == []


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    path = written(tmp_path / "x.bin", [("ab", 7, "v")])
    leaf = b"b\0" + struct.pack(">II", 1, 7) + b"v\0"
    root = b"aa" + struct.pack(">I", 12 | 0xC0000000)
    assert path.read_bytes() == struct.pack(">III", 0xB007F457, 0x00020001, 12 + len(leaf) | 0x20000000) + leaf + root


def test_parents_first_puts_the_root_behind_the_header(tmp_path: Path) -> None:
    path = written(tmp_path / "x.bin", [("ab", 7, "v")], PARENTS_FIRST)
    leaf = b"b\0" + struct.pack(">II", 1, 7) + b"v\0"
    assert path.read_bytes() == struct.pack(">III", 0xB007F457, 0x00020001, 0x2000000C) + (
        b"aa" + struct.pack(">I", 18 | 0xC0000000) + leaf
    )


@settings(max_examples=200, deadline=None)
@given(entries=st.lists(st.tuples(KEYS, st.integers(0, 9), st.sampled_from(["m", "n", "long_name"])), max_size=25))
def test_both_orders_hold_the_same_and_every_key_is_found(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    with opened(folder / "a.bin", entries) as one, opened(folder / "b.bin", entries, PARENTS_FIRST) as other:
        assert list(one.dump()) == list(other.dump())
        assert sorted(key for key, _ in one.dump()) == sorted(key for key, _, _ in entries)
        for key, priority, value in entries:
            assert IndexEntry(priority, value) in one.lookup(key)


@settings(max_examples=200, deadline=None)
@given(
    patterns=st.lists(st.tuples(PATTERNS, st.integers(0, 5)), max_size=30),
    keys=st.lists(st.text(alphabet="ab01-*", max_size=8), max_size=10),
)
def test_the_table_in_memory_answers_as_the_file(
    tmp_path_factory: pytest.TempPathFactory, patterns: list[tuple[str, int]], keys: list[str]
) -> None:
    entries = [(pattern, priority, f"m{number}") for number, (pattern, priority) in enumerate(patterns)]
    with opened(tmp_path_factory.mktemp("index") / "a.bin", entries) as index:
        table = AliasTable(index)
        for key in keys:
            assert table.search(key) == index.search_wild(key)


def test_the_table_tries_large_groups_by_their_anchors(tmp_path: Path) -> None:
    entries = [(f"acpi*:PNP{number:04X}:*", number, f"m{number}") for number in range(200)]
    with opened(tmp_path / "x.bin", [*entries, ("acpi*", 3, "any")]) as index:
        table = AliasTable(index)
        assert [entry.value for entry in table.search("acpi:PNP0010:PNP0003:")] == ["any", "m3", "m16"]
        assert [entry.value for entry in table.search("acpi")] == ["any"]
        assert table.search("acpi:PNP0010:PNP0003:") == index.search_wild("acpi:PNP0010:PNP0003:")


@settings(max_examples=500, deadline=None)
@given(pattern=st.text(alphabet="ab*?[]!^-\\:.", max_size=8), key=st.text(alphabet="ab]-[!^.", max_size=6))
def test_wildcards_match_as_the_c_library_says(pattern: str, key: str) -> None:
    assume(normal_alias(pattern) is not None)  # others never get into an index
    assume("[." not in pattern)  # collating symbols, which no alias has
    fnmatch = ctypes.CDLL(None).fnmatch
    expected = fnmatch(pattern.encode(), key.encode(), 0) == 0
    assert bool(wildcard(pattern).fullmatch(key)) == expected
    assert bool(matcher(pattern)(key)) == expected


@settings(max_examples=500, deadline=None)
@given(pattern=st.text(alphabet="ab*", max_size=8), key=st.text(alphabet="ab", max_size=8))
def test_stars_alone_match_as_the_c_library_says(pattern: str, key: str) -> None:
    fnmatch = ctypes.CDLL(None).fnmatch
    assert bool(matcher(pattern)(key)) == (fnmatch(pattern.encode(), key.encode(), 0) == 0)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "too short"),
        (struct.pack(">III", 1, 0x20001, 12), "magic"),
        (struct.pack(">III", 0xB007F457, 0x30001, 12), "version"),
    ],
)
def test_a_file_that_is_no_index_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=what) as raised:
        IndexFile(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_nodes_in_a_loop_end_in_an_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.bin"
    root = 0x2000000C
    path.write_bytes(struct.pack(">III", 0xB007F457, 0x20001, root) + b"**" + struct.pack(">I", root) + bytes(size))
    with IndexFile(path) as index:
        with pytest.raises(BadFile, match="loop"):
            list(index.dump())
        with pytest.raises(BadFile, match="loop"):
            index.search_wild("abc")


def test_a_damaged_index_gives_an_answer_or_bad_file(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = written(tmp_path / "x.bin", [(f"key{number}*", number, "value") for number in range(40)])
    sound = path.read_bytes()
    answers = 0
    for _ in range(400):
        data = bytearray(sound[: rng.choice([len(sound), rng.randrange(12, len(sound))])])
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(12, len(data)) if len(data) > 12 else 11] = rng.randrange(256)
        path.write_bytes(data)
        try:
            with IndexFile(path) as index:
                index.search_wild("key7x")
                answers += len(list(index.dump())) >= 0
        except BadFile:
            continue
    assert answers > 0


def test_a_key_beyond_seven_bits_is_refused() -> None:
    values = IndexValues()
    values.add("ü".encode(), 0, b"m")
    with pytest.raises(BadFile, match="7-bit"):
        write_index(values)


def test_adding_the_same_value_twice_is_told(tmp_path: Path) -> None:
    values = IndexValues()
    assert not values.add(b"k", 1, b"m")
    assert not values.add(b"k", 1, b"n")
    assert values.add(b"k", 2, b"m")
