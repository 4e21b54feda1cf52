"""Rings of an xHCI controller, well laid and badly."""

from __future__ import annotations

import struct

import pytest

from kobox.devices.xhci_rings import CHAIN, DATA, LINK, NORMAL, SETUP, STATUS, TOGGLE, Broken, EventRing, Ring


class Memory:
    """16 KiB; nothing but ones behind it."""

    def __init__(self) -> None:
        self.data = bytearray(16384)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.data[address : address + size]) if address + size <= len(self.data) else b"\xff" * size

    def put(self, index: int, kind: int, flags: int = 0, parameter: int = 0, cycle: int = 1, base: int = 0) -> None:
        struct.pack_into("<QII", self.data, base + 16 * index, parameter, 0, kind << 10 | flags | cycle)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_a_transfer_is_what_is_chained(memory: Memory) -> None:
    memory.put(0, NORMAL, CHAIN)
    memory.put(1, NORMAL)
    memory.put(2, NORMAL)
    ring = Ring(0, 1)
    assert [trb.address for trb in ring.peek(memory.read)] == [0, 16]
    assert ring.dequeue == 0, "it was only looked at"
    ring.skip(memory.read, 2)
    assert [trb.address for trb in ring.peek(memory.read)] == [32]
    ring.skip(memory.read, 1)
    assert ring.peek(memory.read) == []


def test_a_control_transfer_ends_with_its_status(memory: Memory) -> None:
    for index, kind in enumerate((SETUP, DATA, STATUS)):
        memory.put(index, kind)
    assert [trb.kind for trb in Ring(0, 1).peek(memory.read)] == [SETUP, DATA, STATUS]


def test_half_of_a_transfer_is_none(memory: Memory) -> None:
    memory.put(0, NORMAL, CHAIN)
    assert Ring(0, 1).peek(memory.read) == []


def test_a_link_leads_on_and_turns_the_cycle(memory: Memory) -> None:
    memory.put(0, NORMAL, CHAIN)
    memory.put(1, LINK, TOGGLE | CHAIN, parameter=4096)
    memory.put(0, NORMAL, cycle=0, base=4096)
    ring = Ring(0, 1)
    assert [trb.address for trb in ring.peek(memory.read)] == [0, 4096]
    ring.skip(memory.read, 2)
    assert (ring.dequeue, ring.cycle) == (4112, 0)


def test_rings_that_lead_nowhere_are_broken(memory: Memory) -> None:
    memory.put(0, LINK, parameter=0)
    with pytest.raises(Broken):
        Ring(0, 1).peek(memory.read)
    for index in range(1024):
        memory.put(index, NORMAL, CHAIN)
    with pytest.raises(Broken):
        Ring(0, 1).peek(memory.read)
    with pytest.raises(Broken):
        Ring(1 << 40, 1).peek(memory.read)


def test_events_go_round_through_every_piece_and_wait_for_the_driver(memory: Memory) -> None:
    for index, (base, size) in enumerate(((4096, 4), (8192, 3))):
        struct.pack_into("<QII", memory.data, 16 * index, base, size, 0)
    ring = EventRing(0, 2, taken=4096)
    assert not ring.unseen
    places = [ring.place(memory.read) for _ in range(6)]
    assert places == [(at, 1) for at in (4096, 4112, 4128, 4144, 8192, 8208)]
    assert ring.unseen
    assert ring.place(memory.read) is None, "one more, and full would look like empty"
    ring.taken = 8192
    assert [ring.place(memory.read) for _ in range(2)] == [(8224, 1), (4096, 0)]
    ring.taken = 4112
    assert not ring.unseen


def test_without_a_table_there_is_no_place(memory: Memory) -> None:
    assert EventRing().place(memory.read) is None
