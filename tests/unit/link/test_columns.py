"""The fast ways against the plain one: the same bytes, or declined with nothing written."""

from __future__ import annotations

import random
import struct

import pytest

from kobox.elf.constants import R_X86_64
from kobox.link.columns import BLOCK, SymbolValues, apply_section
from kobox.link.relocate import RECIPES

ADDRESS = 0xFFFFFFFFC0001000
U64 = (1 << 64) - 1
KINDS = sorted(RECIPES)
VALUES = [0, -0x7F000000, 0x1234, -1, 0x7FFFFFFF, -0x3FFFE000, 16]


def row(offset: int, kind: int, symbol: int, addend: int) -> bytes:
    return struct.pack("<QIIq", offset, kind, symbol, addend)


def one_by_one(rows: list[tuple[int, int, int, int]], size: int, values: list[int]) -> bytes:
    memory = bytearray(size)
    for offset, kind, symbol, addend in rows:
        if kind in RECIPES:
            recipe = RECIPES[kind]
            value = values[symbol] + addend - (ADDRESS + offset if recipe.relative else 0)
            memory[offset : offset + recipe.width] = struct.pack("<Q", value & U64)[: recipe.width]
    return bytes(memory)


def applied(rows: list[tuple[int, int, int, int]], size: int, values: list[int] = VALUES) -> tuple[bool, bytes]:
    memory = bytearray(size)
    raw = memoryview(b"".join(row(*entry) for entry in rows))
    return apply_section(raw, memoryview(memory), ADDRESS, SymbolValues(values)), bytes(memory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_one_type_side_by_side(kind: int, count: int) -> None:
    width = RECIPES[kind].width
    rows = [(width * number, kind, 2, number) for number in range(count)]
    assert applied(rows, width * count) == (True, one_by_one(rows, width * count, VALUES))


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_with_gaps_comes_out_as_one_by_one(seed: int) -> None:
    choose = random.Random(seed)
    fast = [kind for kind in KINDS if kind != R_X86_64.ABS32]
    kinds = choose.sample([*fast, R_X86_64.NONE], choose.randint(1, len(fast)))
    rows, offset = [], choose.randint(0, 9)
    for _ in range(choose.choice([3, 50, 2 * BLOCK])):
        kind = choose.choice(kinds)
        symbol = choose.choice([0, 1, 2, 3, 5, 6] if kind in (R_X86_64.PC32, R_X86_64.PLT32) else range(len(VALUES)))
        rows.append((offset, kind, symbol, choose.choice([0, 7]) if symbol != 4 else 0))
        offset += choose.choice([8, 9, 31])
    assert applied(rows, offset + 8) == (True, one_by_one(rows, offset + 8, VALUES))


def test_a_table_need_not_begin_at_the_start_of_its_section() -> None:
    rows = [(8 + 4 * number, R_X86_64.PC32, 1, number) for number in range(3 * BLOCK)]
    size = 12 + 12 * BLOCK
    assert applied(rows, size) == (True, one_by_one(rows, size, VALUES))


def test_a_table_with_a_hole_that_another_entry_fills_twice_is_declined() -> None:
    rows = [(0, R_X86_64.PC32, 1, 0), (4, R_X86_64.PC32, 1, 0), (4, R_X86_64.PC32, 1, 0), (12, R_X86_64.PC32, 1, 0)]
    assert applied(rows, 64) == (False, bytes(64))


@pytest.mark.parametrize("value", [1 << 31, -(1 << 31) - 1, 1 << 62, -(1 << 62)])
def test_a_signed_value_that_does_not_fit_is_declined(value: int) -> None:
    rows = [(0, R_X86_64.ABS32S, 0, 0), (4, R_X86_64.ABS32S, 1, 0), (8, R_X86_64.PC32, 0, 0)]
    assert applied(rows, 12, [0, value]) == (False, bytes(12))


@pytest.mark.parametrize("value", [1 << 32, -1, 1 << 62])
def test_an_unsigned_value_that_does_not_fit_is_declined(value: int) -> None:
    rows = [(0, R_X86_64.ABS32, 0, 0), (4, R_X86_64.ABS32, 1, 0), (8, R_X86_64.ABS32S, 0, 0)]
    assert applied(rows, 12, [0, value]) == (False, bytes(12))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(0, 99, 0, 0)], id="unknown type"),
        pytest.param([(0, 0x102, 0, 0)], id="type above a byte"),
        pytest.param([(0, R_X86_64.PC32, 70, 0)], id="symbol outside the table"),
        pytest.param([(0, R_X86_64.PC32, 0, 0), (0, R_X86_64.PC32, 70, 0)], id="second symbol outside"),
        pytest.param([(61, R_X86_64.PC32, 0, 0)], id="target past the end"),
        pytest.param([(1 << 63, R_X86_64.PC32, 0, 0)], id="target far outside"),
        pytest.param([(57, R_X86_64.ABS64, 0, 0)], id="wide target past the end"),
        pytest.param([(0, R_X86_64.PC32, 0, 0), (2, R_X86_64.PC32, 0, 0)], id="overlap"),
        pytest.param([(0, R_X86_64.PC32, 0, 0), (0, R_X86_64.PC32, 0, 0)], id="same target twice"),
        pytest.param([(0, R_X86_64.ABS64, 1, 0), (4, R_X86_64.ABS32S, 1, 0)], id="overlap of widths"),
        pytest.param([(8, R_X86_64.ABS64, 1, 0), (4, R_X86_64.ABS32S, 1, 0)], id="widths out of order"),
        pytest.param([(8, R_X86_64.PC32, 1, 0), (4, R_X86_64.PC32, 1, 0)], id="out of order"),
    ],
)
def test_what_is_not_plain_is_declined_with_nothing_written(rows: list[tuple[int, int, int, int]]) -> None:
    assert applied(rows, 64) == (False, bytes(64))


@pytest.mark.parametrize("dirty", [0, 1, 2, 3])
def test_any_nonzero_byte_in_a_target_is_noticed(dirty: int) -> None:
    memory = bytearray(12)
    memory[4 + dirty] = 0xFF
    raw = memoryview(row(0, R_X86_64.PC32, 1, 0) + row(4, R_X86_64.PC32, 1, 0))
    before = bytes(memory)
    assert not apply_section(raw, memoryview(memory), ADDRESS, SymbolValues(VALUES))
    assert memory == before


def test_nonzero_bytes_beside_the_targets_do_not_matter() -> None:
    memory = bytearray(b"\xff" * 12)
    memory[4:8] = bytes(4)
    assert apply_section(memoryview(row(4, R_X86_64.ABS32S, 2, 0)), memoryview(memory), ADDRESS, SymbolValues(VALUES))
    assert memory == b"\xff" * 4 + struct.pack("<I", 0x1234) + b"\xff" * 4
