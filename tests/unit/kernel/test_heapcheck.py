"""Sizes that leave room for a redzone, and instructions that run at another place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kobox.errors import NotModelled
from kobox.kapi.slab import HEAP_TABLES
from kobox.kernel.heapcheck import ENLARGED_MAX, REDZONE_MIN, bucket, room, slack_of
from kobox.kernel.heapcheck_gate import FAMILY
from kobox.kernel.heapcheck_guard import displaced

ENTRY, PLACE = 0xFFFF_FFFF_8100_1000, 0xFFFF_FFFF_8012_0000


class Code:
    """A guest with one function and nothing else."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.symbols = self

    def at(self, address: int) -> None:
        """No symbol is known."""

    def read(self, address: int, size: int) -> bytes:
        return self._body.ljust(size, b"\xcc")[:size]


def moved(body: str) -> bytes:
    return displaced(Code(bytes.fromhex(body)), "it", ENTRY, PLACE)  # type: ignore[arg-type]


def goal_of(code: bytes, at: int, length: int) -> int:
    """Where the 32-bit distance at the end of an instruction leads."""
    (distance,) = struct.unpack_from("<i", code, at + length - 4)
    return PLACE + at + length + int(distance)


@given(st.integers(1, ENLARGED_MAX))
def test_there_is_room_for_a_redzone_behind_every_size(size: int) -> None:
    assert slack_of(size) >= REDZONE_MIN
    assert room(size) <= max(2 * size, size + REDZONE_MIN)


@given(st.integers(0, 18))
def test_a_power_of_two_stays_aligned_to_itself(power: int) -> None:
    given_size = bucket(room(1 << power))
    assert given_size & given_size - 1 == 0
    assert given_size >= 2 << power


@given(st.integers(ENLARGED_MAX + 1, 1 << 64))
def test_what_is_large_is_asked_for_as_it_is(size: int) -> None:
    assert room(size) == size


def test_the_gate_lets_every_function_of_the_checker_through() -> None:
    names = [name for table in HEAP_TABLES for one in table for name in (one.name, *one.also)]
    assert [name for name in names if FAMILY.search(name) is None] == []
    assert FAMILY.search("_printk") is None
    assert FAMILY.search("alloc_workqueue") is None


def test_nothing_stays_nothing() -> None:
    assert (room(0), slack_of(0)) == (0, 0)


def test_plain_instructions_are_copied_and_followed_by_a_jump_back() -> None:
    code = moved("53 4889fb 488b742408 c3")
    assert code[:9] == bytes.fromhex("53 4889fb 488b742408")
    assert goal_of(code, 9, 5) == ENTRY + 9


def test_a_short_branch_becomes_a_long_one_to_the_same_place() -> None:
    code = moved("4885f6 7405 e971faffff")
    assert code[3:5] == b"\x0f\x84"
    assert goal_of(code, 3, 6) == ENTRY + 10
    assert goal_of(code, 9, 5) == ENTRY + 5


def test_an_operand_relative_to_the_instruction_keeps_its_address() -> None:
    code = moved("658b0534f7d27e a90000f000")
    wanted = ENTRY + 7 + 0x7ED2F734 & (1 << 64) - 1
    assert goal_of(code, 0, 7) & (1 << 64) - 1 == wanted


@pytest.mark.parametrize("body", ["0f1f440000 c3", "6690 6690 6690", "e8ebd6dbff", "53 eb02 9090"])
def test_code_that_the_kernel_may_patch_is_left_alone(body: str) -> None:
    with pytest.raises(NotModelled):
        moved(body)


def test_a_function_that_jumps_back_to_its_start_is_left_alone() -> None:
    with pytest.raises(NotModelled, match="jumps into"):
        moved("53 4889fb 4889fe 90 75f7 c3")
