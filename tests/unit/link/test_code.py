"""Patching by address."""

from __future__ import annotations

from kobox.link.code import Code, Patch


def test_a_write_is_noted_and_done() -> None:
    memory = bytearray(b"\x90" * 8)
    code = Code({"core": memory}, {"core": 0x1000})
    code.write(0x1002, b"\xcc\xcc", "test")
    assert memory == b"\x90\x90\xcc\xcc" + b"\x90" * 4
    assert code.patches == [Patch(0x1002, b"\xcc\xcc", "test")]


def test_bytes_that_are_right_already_are_no_patch() -> None:
    code = Code({"core": bytearray(b"\x90" * 8)}, {"core": 0x1000})
    code.write(0x1000, b"\x90\x90", "test")
    assert code.patches == []


def test_places_outside_the_module_are_left_alone() -> None:
    code = Code({"core": bytearray(8)}, {"core": 0x1000})
    for address in (0xFFF, 0x1007, 0x1008, 0):
        code.write(address, b"\xcc\xcc", "test")
    assert code.patches == []
    assert code.read(0x2000, 4) == b""
    assert code.read(0x1006, 4) == b"\0\0"
