"""Instruction lengths, against well-known encodings and against capstone."""

from __future__ import annotations

import random

import capstone
import pytest

from kobox.link.insn import decode


@pytest.mark.parametrize(
    ("code", "length"),
    [
        ("90", 1),
        ("c3", 1),
        ("6690", 2),
        ("0f1f4400 00", 5),
        ("66662e0f1f840000000000", 11),
        ("e8 00000000", 5),
        ("2ee9 00000000", 6),
        ("eb fe", 2),
        ("0f84 00000000", 6),
        ("48b8 0102030405060708", 10),
        ("b8 01020304", 5),
        ("66b8 0102", 4),
        ("48c7c0 ffffffff", 7),
        ("66c70425 00000000 0100", 10),
        ("f6c0 01", 3),
        ("f7d8", 2),
        ("f7c0 01000000", 6),
        ("488b05 10000000", 7),
        ("65488b0425 28000000", 9),
        ("a1 0102030405060708", 9),
        ("f3 0f1efa", 4),
        ("0f0b", 2),
        ("0fb9cc", 3),
        ("c5f877", 3),
        ("c4e27d59c1", 5),
        ("c4e37d39c101", 6),
        ("62f17c4828c1", 6),
        ("660f3a0fc108", 6),
        ("c8 1000 00", 4),
        ("f0480fb111", 5),
    ],
)
def test_lengths_of_known_instructions(code: str, length: int) -> None:
    insn = decode(bytes.fromhex(code) + b"\x90" * 8)
    assert insn is not None
    assert insn.length == length


@pytest.mark.parametrize("code", ["06", "9a", "0f04", "0f", "e8 0000", "", "66", "ea"])
def test_what_is_no_instruction_or_is_cut_off_has_none(code: str) -> None:
    assert decode(bytes.fromhex(code)) is None


def test_relative_parts_are_pointed_out() -> None:
    jump = decode(bytes.fromhex("2ee900000000"))
    load = decode(bytes.fromhex("488b0510000000"))
    store = decode(bytes.fromhex("c70510000000 01000000"))
    assert jump is not None
    assert load is not None
    assert store is not None
    assert (jump.branch, jump.rip) == ((2, 4), None)
    assert (load.branch, load.rip) == (None, 3)
    assert (store.rip, store.length) == (2, 10)


def test_decoding_starts_where_it_is_told() -> None:
    insn = decode(b"\xcc\x0f\x1f\x00", 1)
    assert insn is not None
    assert (insn.length, insn.opcode) == (3, b"\x0f\x1f")


def test_common_opcodes_are_as_long_as_capstone_says() -> None:
    reference = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    choose = random.Random(6)
    odd = {0x0F, 0x26, 0x2E, 0x36, 0x3E, 0x62, 0x64, 0x65, 0x66, 0x67, 0x8F, 0xC4, 0xC5, 0xF0, 0xF2, 0xF3}
    plain = [opcode for opcode in range(256) if opcode not in odd and opcode & 0xF0 != 0x40]
    compared = 0
    for _ in range(20000):
        opcode = choose.choice(plain)
        code = choose.choice([b"", b"\x48", b"\x44"]) + bytes([opcode, *choose.choices(range(256), k=13)])
        theirs = next(reference.disasm_lite(code, 0, 1), None)
        ours = decode(code)
        if theirs is None:
            continue
        assert ours is not None, code.hex()
        assert ours.length == theirs[1], code.hex()
        compared += 1
    assert compared > 5000
