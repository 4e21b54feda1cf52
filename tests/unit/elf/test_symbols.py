"""Symbols in columns, relocations as a stream."""

from __future__ import annotations

import struct

import pytest

from builders import ABS, FUNC, LOCAL, OBJECT, RELA, KoBuilder
from kobox.elf import SHN, SHT, STB, STT, Symbol, parse
from kobox.errors import BadFile


def test_columns_have_the_files_values_and_one_length() -> None:
    builder = KoBuilder().text(bytes(16)).symbol("f", ".text", 4, size=8, type=FUNC, other=2).symbol("a", ABS, 99)
    symbols = parse(builder.build(), "x.ko").symbols
    assert symbols.names == ("", "f", "a")
    assert list(symbols.values) == [0, 4, 99]
    assert list(symbols.sizes) == [0, 8, 0]
    assert list(symbols.infos) == [0, STB.GLOBAL << 4 | STT.FUNC, STB.GLOBAL << 4]
    assert list(symbols.others) == [0, 2, 0]
    assert list(symbols.shndxs) == [0, 1, SHN.ABS]
    assert len(symbols) == 3


def test_iterating_gives_the_records_that_indexing_gives() -> None:
    builder = KoBuilder().text().symbol("f", type=FUNC).symbol("v", value=1, type=OBJECT, bind=LOCAL).undefined("u")
    symbols = parse(builder.build(), "x.ko").symbols
    assert list(symbols) == [symbols[number] for number in range(len(symbols))]
    assert symbols[1] == Symbol(1, "v", 1, 0, STT.OBJECT, 0, 1)
    assert (symbols[2].bind, symbols[2].type) == (STB.GLOBAL, STT.FUNC)


@pytest.mark.parametrize(("bits", "order", "machine"), [(64, ">", 22), (32, "<", 3), (32, ">", 8)])
def test_other_shapes_of_elf_give_the_same_columns(bits: int, order: str, machine: int) -> None:
    def said(builder: KoBuilder) -> KoBuilder:
        return builder.text(bytes(8)).symbol("f", ".text", 4, size=3, type=FUNC, other=1).undefined("u", weak=True)

    here = parse(said(KoBuilder()).build(), "x.ko").symbols
    there = parse(said(KoBuilder(bits=bits, order=order, machine=machine)).build(), "x.ko").symbols
    assert list(there) == list(here)


def test_a_stripped_file_has_an_empty_table() -> None:
    data = KoBuilder().text().symbol("f").build()
    elf = parse(data, "x.ko")
    table = next(section for section in elf.sections if section.type == SHT.SYMTAB)
    stripped = bytearray(data)
    struct.pack_into("<I", stripped, elf.header.e_shoff + 64 * table.index + 4, SHT.NULL)
    symbols = parse(bytes(stripped), "x.ko").symbols
    assert (len(symbols), symbols.names, symbols.undefined(), symbols.find("f")) == (0, (), [], None)


def test_a_symbol_table_without_its_strings_is_refused() -> None:
    data = KoBuilder().text().symbol("f").build()
    elf = parse(data, "x.ko")
    table = next(section for section in elf.sections if section.type == SHT.SYMTAB)
    damaged = bytearray(data)
    struct.pack_into("<I", damaged, elf.header.e_shoff + 64 * table.index + 40, 77)
    with pytest.raises(BadFile, match=r"\(\.symtab\): sh_link: no such section: found 0x4d"):
        _ = parse(bytes(damaged), "x.ko").symbols


def test_a_part_of_a_symbol_at_the_end_is_not_read() -> None:
    data = KoBuilder().text().symbol("f").build()
    elf = parse(data, "x.ko")
    table = next(section for section in elf.sections if section.type == SHT.SYMTAB)
    damaged = bytearray(data)
    struct.pack_into("<Q", damaged, elf.header.e_shoff + 64 * table.index + 32, table.size + 5)
    assert parse(bytes(damaged), "x.ko").symbols.names == ("", "f")


def test_a_global_symbol_is_found_before_a_local_one_of_the_same_name() -> None:
    builder = KoBuilder().text(bytes(8)).symbol("aa", value=1, bind=LOCAL).symbol("bb", value=2).symbol("cc", value=3)
    data = builder.build().replace(b"\0bb\0", b"\0aa\0").replace(b"\0cc\0", b"\0aa\0")
    found = parse(data, "x.ko").symbols.find("aa")
    assert found is not None
    assert found.value == 2


def test_undefined_symbols_leave_out_the_null_symbol_and_nameless_ones() -> None:
    symbols = parse(KoBuilder().text().undefined("a").symbol("f").undefined("b").build(), "x.ko").symbols
    assert symbols.undefined() == [(1, "a"), (3, "b")]


def test_a_bad_name_is_found_when_names_are_asked_for_not_before() -> None:
    data = KoBuilder().text().symbol("f", value=3).build()
    elf = parse(data, "x.ko")
    table = next(section for section in elf.sections if section.type == SHT.SYMTAB)
    damaged = bytearray(data)
    struct.pack_into("<I", damaged, table.offset + 24, 0xFFFFFF)
    symbols = parse(bytes(damaged), "x.ko").symbols
    assert symbols.values[1] == 3
    with pytest.raises(BadFile, match="a string starts outside the table: found 0xffffff"):
        _ = symbols.names


class TestRelocations:
    def test_entries_are_offset_type_symbol_and_addend(self) -> None:
        builder = KoBuilder().text(bytes(16)).reloc(".text", 1, 4, "printk", -4).reloc(".text", 8, 11, ".text", 6)
        elf = parse(builder.build(), "x.ko")
        section = elf.section(".rela.text")
        assert section is not None
        entries = list(elf.relocations(section))
        assert [(offset, kind, elf.label(symbol), addend) for offset, kind, symbol, addend in entries] == [
            (1, 4, "printk", -4),
            (8, 11, ".text", 6),
        ]

    def test_their_number_is_known_without_reading_them(self) -> None:
        elf = parse(KoBuilder().text(bytes(16)).reloc(".text", 1, 4, "a").reloc(".text", 8, 4, "b").build(), "x.ko")
        section = elf.section(".rela.text")
        assert section is not None
        assert len(elf.relocations(section)) == 2

    def test_a_section_that_holds_none_is_refused(self) -> None:
        elf = parse(KoBuilder().text().build(), "x.ko")
        section = elf.section(".text")
        assert section is not None
        with pytest.raises(BadFile, match="is no relocation section: sh_type: found 0x1"):
            elf.relocations(section)

    def test_tables_that_claim_more_than_the_file_are_refused_before_they_are_walked(self) -> None:
        builder = KoBuilder().text(bytes(8))
        for number in range(40):
            builder.section(f".rela{number}", bytes(24 * 40), type=RELA, flags=0, info=1)
        data = builder.build()
        elf = parse(data, "x.ko")
        overlapping = bytearray(data)
        for section in elf.sections:
            if section.type == SHT.RELA:
                struct.pack_into("<QQ", overlapping, elf.header.e_shoff + 64 * section.index + 24, 64, len(data) - 64)
        elf = parse(bytes(overlapping), "x.ko")
        text = elf.section(".text")
        assert text is not None
        with pytest.raises(BadFile, match="its relocations are more than the file has bytes"):
            list(elf.relocations_of(text))
