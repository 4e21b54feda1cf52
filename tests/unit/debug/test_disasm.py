"""Decoding code bytes: the faulting instruction, its operand, and a lead-in that ends exactly there."""

from __future__ import annotations

from kobox.debug.disasm import decode, instruction_at, with_instructions
from kobox.debug.records import Code, Kind, Oops, Registers, Symbol


def test_the_instruction_at_rip_is_marked():
    code = Code(0x1000, bytes.fromhex("90 31c0 c704250000000 02a000000 c3".replace(" ", "")), 3)
    marked = [one for one in decode(code) if one.faulting]
    assert [(one.address, one.text) for one in marked] == [(0x1003, "movl $0x2a, 0")]


def test_garbage_before_the_first_boundary_is_left_out():
    code = Code(0x1000, bytes.fromhex("ff ff ff 0f1f4400 00 488b4728".replace(" ", "")), 8)
    listed = decode(code)
    assert listed[-1].faulting
    assert listed[0].address > 0x1000
    assert sum(len(one.data) for one in listed) == 0x100C - listed[0].address


def test_the_operands_address_is_worked_out_from_registers():
    found = instruction_at(bytes.fromhex("488b44cf10"), 0x1000, Registers(di=0x100, cx=3))  # mov 0x10(%rdi,%rcx,8)
    assert found.memory.address == 0x100 + 3 * 8 + 0x10
    assert (found.memory.base, found.memory.index, found.memory.size) == ("rdi", "rcx", 8)


def test_a_store_is_told_from_a_load():
    assert instruction_at(bytes.fromhex("488907"), 0).memory.writes
    assert not instruction_at(bytes.fromhex("488b07"), 0).memory.writes


def test_lea_touches_no_memory():
    assert instruction_at(bytes.fromhex("488d4708"), 0).memory is None


def test_a_per_cpu_operand_has_no_plain_address():
    assert instruction_at(bytes.fromhex("65488b042528000000"), 0, Registers()).memory.address is None


def test_bytes_that_are_no_instruction_decode_to_nothing():
    assert instruction_at(b"\x06", 0) is None
    assert decode(Code(0, None)) == ()


def test_without_addresses_the_code_counts_from_the_functions_start():
    oops = Oops(
        Kind.BUG, "t", symbol=Symbol("f", 2, 9), code=Code(0, bytes.fromhex("ffffff31c0 0f0b 90".replace(" ", "")), 5)
    )
    assert [(one.address, one.text) for one in with_instructions(oops).instructions] == [
        (0, "xorl %eax, %eax"),
        (2, "ud2"),
        (4, "nop"),
    ]
