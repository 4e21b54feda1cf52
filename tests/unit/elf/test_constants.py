"""Numbers and their names."""

from __future__ import annotations

from kobox.elf import EM, SHT, STB, name_of, relocation_name


def test_a_number_has_the_specifications_name_without_prefix() -> None:
    assert [name_of(SHT, number) for number in (0, 4, 8)] == ["NULL", "RELA", "NOBITS"]
    assert name_of(STB, 2) == "WEAK"


def test_a_number_without_a_name_is_shown_in_hex() -> None:
    assert name_of(SHT, 0x6FFFFFF5) == "0x6ffffff5"


def test_relocations_are_spelled_as_readelf_spells_them() -> None:
    named = [relocation_name(EM.X86_64, kind) for kind in (0, 1, 2, 4, 10, 11, 24)]
    expected = ["NONE", "64", "PC32", "PLT32", "32", "32S", "PC64"]
    assert named == [f"R_X86_64_{name}" for name in expected]
    assert relocation_name(EM.X86_64, 99) == "0x63"
    assert relocation_name(EM.ARM, 2) == "0x2"
