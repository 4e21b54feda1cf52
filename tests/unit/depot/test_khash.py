"""The order of kmod's hash table, and the hash of many keys at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kobox.depot.khash import _hash_lanes, hash_order, superfast_hash


@given(length=st.integers(1, 40), data=st.data())
def test_lanes_hash_as_one_by_one(length: int, data: st.DataObject) -> None:
    alphabet = st.characters(min_codepoint=1, max_codepoint=127)
    keys = data.draw(st.lists(st.text(alphabet=alphabet, min_size=length, max_size=length), min_size=1, max_size=12))
    raw = [key.encode() for key in keys]
    assert _hash_lanes(b"".join(raw), len(raw), length) == [superfast_hash(key) for key in raw]


def test_keys_come_by_bucket_and_inside_a_bucket_sorted() -> None:
    keys = [f"name_{number}".encode() for number in range(300)] + ["ü".encode(), b"x" * 70]
    order = hash_order(keys, 16)
    assert sorted(order) == sorted(keys)
    assert order == sorted(keys, key=lambda key: (superfast_hash(key) & 15, key))
