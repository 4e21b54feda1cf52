"""An ELF file as records: what is read, when, and what is refused."""

from __future__ import annotations

import struct

import pytest

from builders import ABS, ALLOC, EXEC, NOBITS, PROGBITS, WRITE, KoBuilder
from kobox.elf import EM, ET, SHF, SHT, parse
from kobox.errors import BadFile

E_SHOFF, E_SHENTSIZE, E_SHNUM, E_SHSTRNDX = 0x28, 0x3A, 0x3C, 0x3E


def patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    """``data`` with one field written over."""
    out = bytearray(data)
    struct.pack_into(form, out, offset, value)
    return bytes(out)


def test_the_header_has_the_specifications_names() -> None:
    header = parse(KoBuilder().text().build(), "x.ko").header
    assert (header.e_type, header.e_machine, header.e_shentsize) == (ET.REL, EM.X86_64, 64)


def test_sections_come_in_the_files_order_with_all_their_fields() -> None:
    data = KoBuilder().text(b"\x90\xc3").section(".odd", b"abc", flags=ALLOC | WRITE, align=32, entsize=7).build()
    null, text, odd, *_ = parse(data, "x.ko").sections
    assert (null.index, null.type, null.name) == (0, SHT.NULL, "")
    assert (text.index, text.name, text.type, text.size, text.flags) == (1, ".text", PROGBITS, 2, ALLOC | EXEC)
    assert (odd.addralign, odd.entsize, odd.offset % 32, odd.flags) == (32, 7, 0, SHF.ALLOC | SHF.WRITE)


def test_a_sections_bytes_are_a_view_of_the_file() -> None:
    elf = parse(KoBuilder().text(b"\x90\xc3").build(), "x.ko")
    section = elf.section(".text")
    assert section is not None
    assert bytes(elf.bytes_of(section)) == b"\x90\xc3"


def test_a_section_that_is_not_there_is_none() -> None:
    elf = parse(KoBuilder().text().build(), "x.ko")
    assert elf.section(".data") is None
    assert elf.section("") is None


def test_a_name_inside_another_name_is_not_confused_with_it() -> None:
    elf = parse(KoBuilder().text(name=".init.text").section("text", b"1").build(), "x.ko")
    section = elf.section("text")
    assert section is not None
    assert (section.index, section.name) == (2, "text")


def test_only_loaded_sections_are_found_where_the_kernel_looks() -> None:
    elf = parse(KoBuilder().section(".modinfo", b"x\0", flags=0).build(), "x.ko")
    assert elf.section(".modinfo") is not None
    assert elf.alloc_section(".modinfo") is None


def test_the_loaded_one_of_two_sections_with_one_name_is_found() -> None:
    data = KoBuilder().section(".aaaa", b"1", flags=0).section(".bbbb", b"2").build()
    elf = parse(data.replace(b".bbbb\0", b".aaaa\0"), "x.ko")
    first, loaded = elf.section(".aaaa"), elf.alloc_section(".aaaa")
    assert first is not None
    assert loaded is not None
    assert (first.index, loaded.index) == (1, 2)


def test_nobits_has_no_bytes_however_large_it_claims_to_be() -> None:
    elf = parse(KoBuilder().bss(1 << 40).build(), "x.ko")
    section = elf.section(".bss")
    assert section is not None
    assert (section.type, section.size, len(elf.bytes_of(section))) == (NOBITS, 1 << 40, 0)


def test_a_section_outside_the_file_is_refused_when_its_bytes_are_asked_for() -> None:
    elf = parse(KoBuilder().section(".lie", b"abc", size=1 << 30).text().build(), "x.ko")
    section = elf.section(".lie")
    assert section is not None
    with pytest.raises(BadFile, match=r"x\.ko: section 1 \(\.lie\): 0x40000000 bytes at 0x40 lie outside the file"):
        elf.bytes_of(section)
    assert elf.section(".text") is not None


@pytest.mark.parametrize("data", [b"", b"\x7f", b"\x7fEL", b"#!/bin/sh\n" * 20, b"\x1f\x8b" + bytes(100)])
def test_what_is_no_elf_file_is_told_so(data: bytes) -> None:
    with pytest.raises(BadFile, match="is no ELF file: it starts with"):
        parse(data, "x.ko")


def test_a_file_of_a_known_other_kind_gets_a_hint() -> None:
    with pytest.raises(BadFile, match=r"; hint: it looks like an archive \(\.deb or \.a\)$"):
        parse(b"!<arch>\ndebian-binary", "x.ko")


@pytest.mark.parametrize("size", [4, 19, 20, 63])
def test_a_file_that_ends_in_its_header_is_refused(size: int) -> None:
    with pytest.raises(BadFile, match=r"x\.ko: ELF header"):
        parse(KoBuilder().build()[:size], "x.ko")


def test_parsing_looks_at_the_header_only() -> None:
    damaged = patched(KoBuilder().text().build(), E_SHOFF, "<Q", 1 << 50)
    elf = parse(damaged, "x.ko")
    assert elf.header.e_shoff == 1 << 50
    with pytest.raises(BadFile, match="section headers"):
        _ = elf.sections


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (E_SHENTSIZE, 1, "section headers have the wrong size: found 0x1, expected 0x40"),
        (E_SHNUM, 0xFFFF, "section headers: .* lie outside the file"),
        (E_SHSTRNDX, 0, "e_shstrndx names no section"),
        (E_SHSTRNDX, 99, "e_shstrndx names no section: found 0x63"),
    ],
)
def test_an_impossible_section_table_says_which_field_is_wrong(offset: int, value: int, message: str) -> None:
    elf = parse(patched(KoBuilder().text().build(), offset, "<H", value), "x.ko")
    with pytest.raises(BadFile, match=message):
        elf.section(".text")


def test_a_file_without_sections_has_none() -> None:
    data = patched(patched(KoBuilder().build(), E_SHNUM, "<H", 0), E_SHSTRNDX, "<H", 0)
    elf = parse(data, "x.ko")
    assert (elf.sections, elf.section(".text"), len(elf.symbols)) == ((), None, 0)


@pytest.mark.parametrize("ident", [(4, 0), (4, 1), (4, 3), (5, 0), (5, 2), (6, 9), (7, 65), (15, 1)])
def test_identification_bytes_are_ignored_as_the_kernel_ignores_them(ident: tuple[int, int]) -> None:
    place, value = ident
    elf = parse(patched(KoBuilder().text(b"\xc3").build(), place, "B", value), "x.ko")
    assert [section.name for section in elf.sections[:2]] == ["", ".text"]


@pytest.mark.parametrize(
    ("bits", "order", "machine"),
    [(64, "<", EM.AARCH64), (64, ">", EM.S390), (32, "<", EM.ARM), (32, ">", EM.MIPS), (64, ">", EM.PPC64)],
)
def test_every_word_size_and_byte_order_reads_the_same(bits: int, order: str, machine: int) -> None:
    builder = KoBuilder(bits=bits, order=order, machine=machine).text(b"1234").undefined("printk", weak=True)
    elf = parse(builder.reloc(".text", 0, 7, "printk", -4).build(), "x.ko")
    assert (elf.layout.bits, elf.layout.order, elf.header.e_machine) == (bits, order, machine)
    text = elf.section(".text")
    assert text is not None
    (relocations,) = elf.relocations_of(text)
    assert list(relocations) == [(0, 7, 1, -4 if bits == 64 else 0)]
    assert (relocations.target, relocations.explicit) == (text.index, bits == 64)
    symbol = elf.symbols.find("printk")
    assert symbol is not None
    assert symbol.is_weak
    assert symbol.is_undefined


def test_a_label_is_the_symbols_name_or_its_sections() -> None:
    elf = parse(KoBuilder().text(bytes(8)).rodata(b"x").reloc(".text", 0, 2, ".rodata").symbol("f").build(), "x.ko")
    assert [elf.label(number) for number in range(3)] == ["", ".rodata", "f"]
    with pytest.raises(BadFile, match="symbol table: no such symbol: found 0x3"):
        elf.label(3)


def test_a_special_section_number_is_no_section() -> None:
    elf = parse(KoBuilder().symbol("abs", ABS, 7).build(), "x.ko")
    assert elf.section_at(ABS) is None
    assert elf.section_at(0) is None
