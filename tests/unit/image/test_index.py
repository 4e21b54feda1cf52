"""The hash table finds every name it was built of and no other."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kobox.image.index import Slots, build_slots, map_file, write_tables


@given(st.lists(st.binary(max_size=6), max_size=60), st.binary(max_size=6))
def test_every_record_is_found_in_order(names: list[bytes], other: bytes) -> None:
    slots = Slots(memoryview(build_slots(names, len(names))).cast("B"), lambda number, name: names[number] == name)
    for name in [*names, other]:
        expected = [number for number, known in enumerate(names) if known == name]
        assert list(slots.all(name)) == expected
        assert slots.first(name) == (expected[0] if expected else -1)


def test_numbers_may_be_given_beside_the_names() -> None:
    names = {7: b"seven", 40: b"forty"}
    table = build_slots(names.values(), len(names), names)
    slots = Slots(memoryview(table).cast("B"), lambda number, name: names[number] == name)
    assert slots.first(b"forty") == 40


def test_tables_are_written_aligned_and_found_again(tmp_path: Path) -> None:
    places = write_tables(tmp_path / "index", {"one": b"abc", "two": b"", "three": build_slots([b"x"], 1)})
    mapped = map_file(tmp_path / "index")
    assert bytes(mapped[places["one"][0] :][: places["one"][1]]) == b"abc"
    assert places["two"][1] == 0
    assert places["three"][0] % 8 == 0
