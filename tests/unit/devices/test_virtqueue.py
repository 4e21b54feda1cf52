"""Queues as a driver lays them out, well and badly."""

from __future__ import annotations

import struct

import pytest

from kobox.devices.virtqueue import BrokenQueue, Queue

NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE, AVAILABLE, USED, DATA = 0x0000, 0x1000, 0x2000, 0x3000


class Driver:
    """Memory with one queue of 8."""

    def __init__(self) -> None:
        self.memory = bytearray(0x5000)
        self.queue = Queue(8, 0, True, TABLE, AVAILABLE, USED)
        self.offered = 0

    def view(self, address: int, size: int, write: bool) -> memoryview | None:
        return memoryview(self.memory)[address : address + size] if address + size <= len(self.memory) else None

    def describe(
        self, index: int, address: int, size: int, flags: int = 0, following: int = 0, at: int = TABLE
    ) -> None:
        struct.pack_into("<QIHH", self.memory, at + 16 * index, address, size, flags, following)

    def offer(self, head: int) -> None:
        struct.pack_into("<H", self.memory, AVAILABLE + 4 + 2 * (self.offered % 8), head)
        self.offered += 1
        struct.pack_into("<H", self.memory, AVAILABLE + 2, self.offered & 0xFFFF)


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_a_chain_is_taken_and_given_back(driver: Driver) -> None:
    driver.memory[DATA : DATA + 4] = b"abcd"
    driver.describe(3, DATA, 4, NEXT, 5)
    driver.describe(5, DATA + 16, 2, NEXT | WRITE, 1)
    driver.describe(1, DATA + 32, 1, WRITE)
    assert driver.queue.take(driver.view) is None
    driver.offer(3)
    chain = driver.queue.take(driver.view)
    assert chain is not None
    assert [bytes(part) for part in chain.readable] == [b"abcd"]
    assert [len(part) for part in chain.writable] == [2, 1]
    chain.writable[0][:] = b"xy"
    assert driver.queue.give_back(driver.view, chain, 2)
    assert driver.memory[DATA + 16 : DATA + 18] == b"xy"
    assert struct.unpack_from("<HHII", driver.memory, USED) == (0, 1, 3, 2)
    assert driver.queue.take(driver.view) is None


def test_rings_go_round(driver: Driver) -> None:
    driver.describe(0, DATA, 1)
    for round_ in range(20):
        driver.offer(0)
        chain = driver.queue.take(driver.view)
        assert chain is not None
        driver.queue.give_back(driver.view, chain, round_)
    assert struct.unpack_from("<H", driver.memory, USED + 2) == (20,)
    assert struct.unpack_from("<II", driver.memory, USED + 4 + 8 * 3) == (0, 19)


def test_a_driver_that_wants_no_interrupt_says_so(driver: Driver) -> None:
    driver.describe(0, DATA, 1)
    driver.offer(0)
    chain = driver.queue.take(driver.view)
    assert chain is not None
    struct.pack_into("<H", driver.memory, AVAILABLE, 1)
    assert not driver.queue.give_back(driver.view, chain, 0)


def test_a_chain_may_lie_in_a_table_of_its_own(driver: Driver) -> None:
    driver.describe(2, 0x4000, 32, INDIRECT)
    driver.describe(0, DATA, 3, NEXT, 1, at=0x4000)
    driver.describe(1, DATA + 8, 4, WRITE, at=0x4000)
    driver.offer(2)
    chain = driver.queue.take(driver.view)
    assert chain is not None
    assert (chain.head, len(chain.readable[0]), len(chain.writable[0])) == (2, 3, 4)


@pytest.mark.parametrize(
    ("descriptors", "head", "what"),
    [
        ([(0, DATA, 1, NEXT, 0)], 0, "without an end"),
        ([(0, DATA, 1, NEXT, 99)], 0, "descriptor 99 of a table of 8"),
        ([], 8, "descriptor 8"),
        ([(0, 1 << 60, 16, 0, 0)], 0, "no memory at"),
        ([(0, DATA, 1 << 31, 0, 0)], 0, "no memory at"),
        ([(0, 0x4000, 15, INDIRECT, 0)], 0, "indirect table of 15"),
        ([(0, 0x4000, 0, INDIRECT, 0)], 0, "indirect table of 0"),
        ([(0, DATA, 1, WRITE | NEXT, 1), (1, DATA, 1, 0, 0)], 0, "to read behind one to write"),
    ],
)
def test_chains_that_break_the_rules_are_refused(
    driver: Driver, descriptors: list[tuple[int, int, int, int, int]], head: int, what: str
) -> None:
    for index, address, size, flags, following in descriptors:
        driver.describe(index, address, size, flags, following)
    driver.offer(head)
    with pytest.raises(BrokenQueue, match=what):
        driver.queue.take(driver.view)


def test_a_ring_outside_of_memory_is_refused(driver: Driver) -> None:
    driver.queue.driver = 1 << 40
    with pytest.raises(BrokenQueue, match="no memory at 0x10000000000"):
        driver.queue.take(driver.view)
