"""What a module offers and needs."""

from __future__ import annotations

import struct

import pytest

from builders import ABS, FUNC, LOCAL, X86_64_64, X86_64_PC32, KoBuilder
from kobox.elf import parse
from kobox.errors import BadFile
from kobox.ko import Export, Import, parse_module


def exports_of(builder: KoBuilder) -> tuple[Export, ...]:
    return parse_module(builder.build(), "x.ko").exports


def test_an_export_has_name_licence_namespace_crc_and_place() -> None:
    builder = KoBuilder().text(bytes(32)).export("f", crc=0xC0FFEE42, value=16)
    builder.export("g", gpl=True, namespace="NS", crc=7)
    assert exports_of(builder) == (
        Export("f", gpl=False, namespace="", crc=0xC0FFEE42, section=1, offset=16),
        Export("g", gpl=True, namespace="NS", crc=7, section=1, offset=0),
    )


def test_those_for_all_licences_come_first() -> None:
    builder = KoBuilder().export("gpl", gpl=True).export("any")
    assert [export.name for export in exports_of(builder)] == ["any", "gpl"]


def test_without_modversions_there_is_no_crc() -> None:
    assert [export.crc for export in exports_of(KoBuilder().export("f"))] == [None]


def test_an_export_of_data_points_into_its_section() -> None:
    (export,) = exports_of(KoBuilder().text().data(bytes(64)).export("table", section=".data", value=8))
    assert (export.section, export.offset) == (2, 8)


def test_an_absolute_symbol_can_be_exported() -> None:
    (export,) = exports_of(KoBuilder().text().symbol("magic", ABS, 0x1234).export("magic"))
    assert (export.section, export.offset) == (ABS, 0x1234)


def test_a_module_without_exports_offers_nothing() -> None:
    assert exports_of(KoBuilder("hello").module()) == ()


def by_hand(word: int, words: int, names: str = "fgh") -> KoBuilder:
    """A table of the given shape, its strings reached through section symbols as newer assemblers leave them."""
    builder = KoBuilder().text(bytes(16)).section("__ksymtab", bytes(len(names) * word * words), align=8)
    builder.section("__ksymtab_strings", "".join(f"{name}\0" for name in names).encode() + b"NS\0")
    kind = X86_64_PC32 if word == 4 else X86_64_64
    for number, name in enumerate(names):
        start = number * word * words
        builder.symbol(name, value=4 * number, type=FUNC).reloc("__ksymtab", start, kind, name)
        builder.reloc("__ksymtab", start + word, kind, "__ksymtab_strings", 2 * number)
    if words == 3:
        builder.reloc("__ksymtab", word * words + 2 * word, kind, "__ksymtab_strings", 2 * len(names))
    return builder


@pytest.mark.parametrize("names", ["fg", "fgh", "fghijk"])
@pytest.mark.parametrize(("word", "words"), [(4, 3), (4, 2), (8, 3), (8, 2)])
def test_every_shape_of_table_that_kernels_have_had_is_read(word: int, words: int, names: str) -> None:
    found = exports_of(by_hand(word, words, names))
    assert [(export.name, export.offset) for export in found] == [(name, 4 * n) for n, name in enumerate(names)]
    assert found[1].namespace == ("NS" if words == 3 else "")


def test_later_kernels_have_a_byte_of_flags_for_each_entry() -> None:
    found = exports_of(by_hand(4, 3).section("__kflagstab", b"\0\1\0"))
    assert [(export.name, export.gpl) for export in found] == [("f", False), ("g", True), ("h", False)]
    with pytest.raises(BadFile, match="__kflagstab: a flag for each entry"):
        exports_of(by_hand(4, 3).section("__kflagstab", b"\0\1"))


def test_crcs_of_older_kernels_are_absolute_symbols() -> None:
    builder = by_hand(8, 2, "fg").section("__kcrctab", bytes(16), align=8)
    builder.symbol("__crc_f", ABS, 0xAABBCCDD).symbol("__crc_g", ABS, 2)
    builder.reloc("__kcrctab", 0, X86_64_64, "__crc_f").reloc("__kcrctab", 8, X86_64_64, "__crc_g")
    assert [export.crc for export in exports_of(builder)] == [0xAABBCCDD, 2]


def test_crcs_of_some_kernels_are_a_distance_away() -> None:
    builder = by_hand(4, 3, "fg").section("__kcrctab", bytes(8), align=4).rodata(struct.pack("<II", 11, 22))
    builder.symbol("__crc_f", ".rodata", bind=LOCAL).symbol("__crc_g", ".rodata", 4, bind=LOCAL)
    builder.reloc("__kcrctab", 0, X86_64_PC32, "__crc_f").reloc("__kcrctab", 4, X86_64_PC32, "__crc_g")
    assert [export.crc for export in exports_of(builder)] == [11, 22]


def test_a_crc_that_is_left_undefined_is_none() -> None:
    builder = by_hand(4, 3, "fg").section("__kcrctab", bytes(8), align=4)
    builder.reloc("__kcrctab", 0, X86_64_PC32, "__crc_f").reloc("__kcrctab", 4, X86_64_PC32, "__crc_g")
    assert [export.crc for export in exports_of(builder)] == [None, None]


@pytest.mark.parametrize(("bits", "order", "machine"), [(64, ">", 22), (32, "<", 3), (32, ">", 8)])
def test_other_machines_are_read_too(bits: int, order: str, machine: int) -> None:
    builder = KoBuilder(bits=bits, order=order, machine=machine).text(bytes(8))
    found = exports_of(builder.export("f", crc=5, value=4).export("g", gpl=True, namespace="NS"))
    assert found == (Export("f", False, "", 5, 1, 4), Export("g", True, "NS", None, 1, 0))


def test_a_table_without_its_relocations_is_refused() -> None:
    builder = KoBuilder().section("__ksymtab", bytes(12), align=4)
    with pytest.raises(BadFile, match=r"x\.ko: __ksymtab: its relocations fit no known layout of export entries"):
        exports_of(builder)


def test_a_name_that_points_behind_the_strings_is_refused() -> None:
    builder = KoBuilder().text().symbol("f").section("__ksymtab_strings", b"f\0").section("__ksymtab", bytes(12))
    builder.reloc("__ksymtab", 0, X86_64_PC32, "f").reloc("__ksymtab", 4, X86_64_PC32, "__ksymtab_strings", 2)
    with pytest.raises(BadFile, match="__ksymtab: a string starts behind the end of its section: found 0x"):
        exports_of(builder)


def test_a_relocation_against_a_symbol_that_is_not_there_is_refused() -> None:
    builder = KoBuilder().text().symbol("f").section("__ksymtab_strings", b"f\0").section("__ksymtab", bytes(12))
    data = bytearray(builder.reloc("__ksymtab", 0, X86_64_PC32, "f").build())
    relocations = parse(bytes(data), "x.ko").section(".rela__ksymtab")
    assert relocations is not None
    struct.pack_into("<I", data, relocations.offset + 12, 5000)
    with pytest.raises(BadFile, match="__ksymtab: a relocation names no symbol: found 0x1388"):
        _ = parse_module(bytes(data), "x.ko").exports


class TestImports:
    def test_undefined_symbols_are_imports_in_the_tables_order(self) -> None:
        module = parse_module(KoBuilder().text().undefined("a").symbol("f").undefined("b", weak=True).build(), "x.ko")
        assert module.imports == (Import("a", weak=False, index=1), Import("b", weak=True, index=3))

    def test_a_module_that_needs_nothing_imports_nothing(self) -> None:
        assert parse_module(KoBuilder().text().symbol("f").build(), "x.ko").imports == ()
