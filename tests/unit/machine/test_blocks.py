"""Blocks that ran are noted by the translated code, with their sizes, and nothing else is."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from kobox.machine import unicorn_abi as abi
from kobox.machine.blocks import BlockWatch
from kobox.machine.memory import PhysicalMemory
from kobox.machine.unicorn_abi import REG, Unicorn

BASE = 0x10000
#      xor eax,eax; test edi,edi; jz +2; inc eax; hlt
CODE = bytes.fromhex("31c0 85ff 7402 ffc0 f4")
START, TAKEN, END = (0, 6), (6, 3), (8, 1)


@pytest.fixture
def cpu() -> Iterator[Unicorn]:
    memory = PhysicalMemory(1 << 20)
    cpu = Unicorn()
    cpu.map_memory(0, memory.size, memory.host_address)
    memory.write(BASE, CODE)
    yield cpu
    cpu.close()
    memory.close()


def run(cpu: Unicorn, rdi: int) -> None:
    cpu.write(REG["rdi"], rdi)
    assert cpu.run(BASE) == abi.OK


def test_the_way_that_was_taken_is_noted(cpu: Unicorn) -> None:
    code = BlockWatch(cpu).watch(BASE, len(CODE))
    run(cpu, 0)
    assert code.ran() == {START, END}
    code.clear()
    run(cpu, 1)
    assert code.ran() == {START, TAKEN}


def test_nothing_outside_the_range_is_noted(cpu: Unicorn) -> None:
    watch = BlockWatch(cpu)
    end, other = watch.watch(BASE + END[0], 1), watch.watch(BASE + 0x1000, 16)
    run(cpu, 0)
    assert (end.ran(), other.ran()) == ({(0, 1)}, frozenset())


def test_a_range_that_is_watched_again_starts_empty(cpu: Unicorn) -> None:
    watch = BlockWatch(cpu)
    first = watch.watch(BASE, len(CODE))
    run(cpu, 0)
    again = watch.watch(BASE, len(CODE))
    assert again is first
    assert again.ran() == frozenset()


def test_two_ranges_over_the_same_code_both_note(cpu: Unicorn) -> None:
    watch = BlockWatch(cpu)
    whole, part = watch.watch(BASE, len(CODE)), watch.watch(BASE, 7)
    run(cpu, 1)
    assert whole.ran() == part.ran() == {START, TAKEN}


def test_code_that_nobody_watches_any_more_still_runs(cpu: Unicorn) -> None:
    BlockWatch(cpu).watch(BASE, len(CODE))
    gc.collect()
    run(cpu, 0)
    assert cpu.read(REG["rax"]) == 0


def test_another_processor_is_told_that_it_will_not_do(cpu: Unicorn, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobox.errors import NotModelled

    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(NotModelled, match="x86-64 host, this one is aarch64"):
        BlockWatch(cpu)
