"""CRCs of the symbols that a module was built against, in both forms."""

from __future__ import annotations

import struct

import pytest

from builders import KoBuilder
from kobox.ko import parse_module
from kobox.ko.versions import read_extended_entries, read_version_entries


def versions_of(builder: KoBuilder) -> dict[str, int]:
    return parse_module(builder.build(), "x.ko").versions


def extended(*entries: tuple[str, int]) -> KoBuilder:
    crcs = b"".join(struct.pack("<I", crc) for _, crc in entries)
    names = b"".join(name.encode() + b"\0" for name, _ in entries)
    return KoBuilder().section("__version_ext_crcs", crcs).section("__version_ext_names", names)


def test_each_entry_is_a_name_and_a_crc() -> None:
    assert versions_of(KoBuilder().version("module_layout", 1).version("_printk", 0x92997ED8)) == {
        "module_layout": 1,
        "_printk": 0x92997ED8,
    }


def test_the_first_of_two_entries_counts_and_both_are_told() -> None:
    module = parse_module(KoBuilder().version("f", 1).version("f", 2).build(), "x.ko")
    assert module.versions == {"f": 1}
    assert read_version_entries(module.elf) == (("f", 1), ("f", 2))


def test_all_64_bits_of_a_crc_are_kept_because_the_kernel_compares_them() -> None:
    assert versions_of(KoBuilder().version("f", 0xFF00000001)) == {"f": 0xFF00000001}


def test_a_name_that_fills_its_field_needs_no_nul() -> None:
    assert versions_of(KoBuilder().version("x" * 56, 7)) == {"x" * 56: 7}


def test_a_part_of_an_entry_at_the_end_is_not_read() -> None:
    assert versions_of(KoBuilder().version("f", 1).section("__versions", b"\2" * 63)) == {"f": 1}


def test_a_module_without_versions_has_none() -> None:
    assert versions_of(KoBuilder().text()) == {}


@pytest.mark.parametrize(("bits", "order", "machine"), [(64, ">", 22), (32, "<", 3), (32, ">", 8)])
def test_other_machines_keep_the_crc_in_their_own_word(bits: int, order: str, machine: int) -> None:
    assert versions_of(KoBuilder(bits=bits, order=order, machine=machine).version("f", 0x12345678)) == {"f": 0x12345678}


def test_the_extended_form_has_names_of_any_length() -> None:
    long = "_RNv" + "x" * 400
    assert versions_of(extended((long, 5), ("f", 6))) == {long: 5, "f": 6}


def test_the_extended_form_is_looked_up_before_the_other() -> None:
    assert versions_of(extended(("f", 2)).version("f", 1).version("g", 3)) == {"f": 2, "g": 3}


def test_more_crcs_than_names_are_left_over() -> None:
    builder = extended(("f", 2)).section("__version_ext_crcs", b"\1\0\0\0\2\0")
    assert read_extended_entries(parse_module(builder.build(), "x.ko").elf) == (("f", 2),)


def test_one_half_of_the_extended_form_alone_says_nothing() -> None:
    assert versions_of(KoBuilder().section("__version_ext_crcs", b"\1\0\0\0")) == {}
