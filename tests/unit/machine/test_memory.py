"""Guest memory: what a snapshot holds, and that a reset gives exactly that back."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.machine import memory
from kobox.machine.memory import PAGE_SIZE, PhysicalMemory

SIZE = 8 << 20


@pytest.fixture(params=["pagemap", "no pagemap"])
def ram(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PhysicalMemory]:
    """Memory with some pages written; also where the kernel does not tell which pages were touched."""
    if request.param == "no pagemap":
        monkeypatch.setattr(memory, "_page_flags", lambda address, size, meaning: b"\1" * (size // PAGE_SIZE))
    own = PhysicalMemory(SIZE)
    scattered = random.Random(1)
    for _ in range(200):
        own.write(scattered.randrange(SIZE - 8), b"written")
    yield own
    own.close()


def digest(ram: PhysicalMemory) -> str:
    return hashlib.sha256(ram.bytes).hexdigest()


def test_a_reset_gives_back_what_was_frozen(ram: PhysicalMemory) -> None:
    before = digest(ram)
    ram.freeze()
    assert digest(ram) == before
    ram.write(0x5000, b"later")
    assert digest(ram) != before
    ram.reset()
    assert digest(ram) == before


def test_every_later_reset_gives_it_back_too_whatever_was_written_before(ram: PhysicalMemory) -> None:
    ram.freeze()
    before = digest(ram)
    often, chance = range(0x10_0000, 0x14_0000, 0x3000), random.Random(2)
    for turn in range(6):
        for place in (*often, *(chance.randrange(SIZE - 8) for _ in range(turn * 20))):
            ram.write(place, b"turn %d" % turn)
        assert digest(ram) != before
        ram.reset()
        assert digest(ram) == before


def test_more_pages_than_a_reset_copies_are_given_back(ram: PhysicalMemory) -> None:
    ram.freeze()
    before = digest(ram)
    for turn in range(4):
        for place in range(0, SIZE, PAGE_SIZE):
            ram.write(place, b"turn %d" % turn)
        ram.reset()
        assert digest(ram) == before


def test_resets_after_a_second_snapshot_go_back_to_that_one(ram: PhysicalMemory) -> None:
    ram.freeze()
    for _ in range(3):
        ram.write(0x5000, b"first")
        ram.reset()
    ram.write(0x5000, b"second")
    ram.freeze()
    after = digest(ram)
    for _ in range(4):
        ram.write(0x5000, b"third")
        ram.reset()
        assert digest(ram) == after


def test_a_second_snapshot_holds_the_first_and_what_came_since(ram: PhysicalMemory) -> None:
    ram.freeze()
    ram.write(0x7000, b"between")
    both = digest(ram)
    ram.freeze()
    ram.write(0x7000, b"too late")
    ram.reset()
    assert digest(ram) == both


def test_what_was_zeroed_since_the_first_snapshot_stays_zero(ram: PhysicalMemory) -> None:
    ram.write(0x9000, b"gone soon")
    ram.freeze()
    ram.write(0x9000, bytes(9))
    ram.freeze()
    ram.reset()
    assert ram.read(0x9000, 9) == bytes(9)


def test_a_saved_file_is_whole_and_has_holes(ram: PhysicalMemory, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    with open(path, "wb") as file:
        os.ftruncate(file.fileno(), SIZE)
        ram.save(file.fileno())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest(ram)
    assert path.stat().st_blocks * 512 < SIZE // 2
    other = PhysicalMemory(SIZE)
    other.use_file(path)
    assert digest(other) == digest(ram)
    other.close()


def test_states_pushed_on_one_another_are_given_back_in_turn(ram: PhysicalMemory) -> None:
    ram.freeze()
    states, chance = [digest(ram)], random.Random(3)
    for turn in range(3):
        for _ in range(50):
            ram.write(chance.randrange(SIZE - 8), b"push %d" % turn)
        ram.push()
        states.append(digest(ram))
    for state in reversed(states):
        for turn in range(3):
            for _ in range(30 * turn):
                ram.write(chance.randrange(SIZE - 8), b"later")
            ram.reset()
            assert digest(ram) == state
        if state != states[0]:
            ram.pop()


def test_a_frozen_state_is_reset_to_whatever_was_pushed_before(ram: PhysicalMemory) -> None:
    ram.freeze()
    ram.write(0x5000, b"pushed")
    ram.push()
    ram.write(0x6000, b"frozen")
    ram.freeze()
    before = digest(ram)
    ram.write(0x5000, b"later!")
    ram.reset()
    assert digest(ram) == before
