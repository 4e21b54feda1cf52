"""Counting executed code: exact, only in the ranges asked for, and off again."""

from __future__ import annotations

import ctypes
import platform

import pytest

from kobox.machine.unicorn_abi import Unicorn
from kobox.machine.work import CodeCounter

LOOP = bytes.fromhex("ffc9 75fc f4")  # again: dec ecx; jnz again; hlt
MEMORY, SIZE = 0x10000, 0x2000
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="only such hosts can count")


@pytest.fixture
def cpu() -> Unicorn:
    buffer = ctypes.create_string_buffer(2 * SIZE)
    start = ctypes.addressof(buffer) + SIZE & ~0xFFF
    made = Unicorn()
    made._keep.append(buffer)
    made.map_memory(MEMORY, 0x1000, start)
    ctypes.memmove(start, LOOP, len(LOOP))
    return made


def run(cpu: Unicorn, turns: int) -> None:
    from kobox.machine.unicorn_abi import REG

    cpu.write(REG["rcx"], turns)
    assert cpu.run(MEMORY) == 0


def counter(cpu: Unicorn) -> tuple[CodeCounter, ctypes.c_uint64]:
    word = ctypes.c_uint64()
    made = CodeCounter.make(cpu, ctypes.addressof(word))
    assert made is not None
    return made, word


def test_every_executed_byte_counts(cpu: Unicorn) -> None:
    run(cpu, 3)  # translated before anybody counts
    counting, word = counter(cpu)
    counting.start([(0, 1 << 64)])
    run(cpu, 100)
    assert word.value == 100 * 4 + 1


def test_code_outside_of_the_ranges_does_not_count(cpu: Unicorn) -> None:
    counting, word = counter(cpu)
    counting.start([(0, MEMORY), (MEMORY + 0x1000, 1 << 64)])
    run(cpu, 100)
    assert word.value == 0


def test_it_can_be_stopped_and_started_again(cpu: Unicorn) -> None:
    counting, word = counter(cpu)
    counting.start([(0, 1 << 64)])
    counting.stop()
    run(cpu, 100)
    assert word.value == 0
    counting.start([(MEMORY, MEMORY + 0x1000)])
    run(cpu, 2)
    assert word.value == 9
