"""Damaged and hostile modules: whatever the bytes say, the answer is a record or one BadFile.

Every part of a module is asked for, and every rendering of ``kobox readko`` is made, on files that were cut off,
flipped and made to lie. Any other exception fails the test, and a hang runs into the suite's time-out.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
from collections.abc import Callable
from contextlib import redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import PROGBITS, STRTAB, KoBuilder
from kobox.cli.readko import PARTS, as_json, as_text
from kobox.elf import SHT, parse
from kobox.elf.notes import notes_of
from kobox.errors import BadFile
from kobox.ko import KernelModule, parse_module


def rich(bits: int = 64, order: str = "<", machine: int = 62) -> bytes:
    """A small module in which every part is present."""
    builder = KoBuilder("hello", bits=bits, order=order, machine=machine).module(alias=["a*", "b"], import_ns="NS")
    builder.note(".note.gnu.build-id", b"GNU", 3, b"12345678").param("num", "int", "how many").param("on", "bool")
    builder.text(bytes(32)).export("f", crc=1, value=4).export("g", gpl=True, namespace="NS", crc=2)
    builder.version("module_layout", 1).version("_printk", 2).bss(64)
    builder.section("__version_ext_crcs", b"\1\0\0\0").section("__version_ext_names", b"_printk\0")
    return builder.reloc(".text", 4, 4, "_printk", -4).signature(bytes.fromhex("300706092a")).build()


MODULES = [rich(), rich(32, "<", 3), rich(64, ">", 22)]
HELLO = MODULES[0]


def read_everything(module: KernelModule) -> int:
    """Ask for each part on its own, so that one bad part does not hide the next; how many were refused."""
    elf, refused = module.elf, 0
    questions = [
        lambda: list(map(elf.bytes_of, elf.sections)),
        lambda: list(elf.symbols),
        lambda: elf.symbols.by_name,
        lambda: [list(elf.relocations(s)) for s in elf.sections if s.type in (SHT.RELA, SHT.REL)],
        lambda: [list(notes_of(elf, s)) for s in elf.sections if s.type == SHT.NOTE],
        *(lambda name=name: getattr(module, name) for name in ("name", "modinfo", "params", "exports", "imports")),
        *(lambda name=name: getattr(module, name) for name in ("versions", "this_module", "depends", "import_ns")),
        *(lambda name=name: list(as_text(module, [name], True)) for name in PARTS),
        *(lambda name=name: list(as_json(module, [name], False)) for name in PARTS),
    ]
    with redirect_stdout(io.StringIO()):
        for question in questions:
            try:
                question()
            except BadFile:
                refused += 1
    return refused


def survives(data: bytes) -> None:
    """Reading ``data`` gives records or BadFile."""
    try:
        module = parse_module(data, "x.ko")
    except BadFile:
        return
    read_everything(module)


@pytest.mark.parametrize("data", MODULES, ids=["64-bit", "32-bit", "big-endian"])
def test_the_undamaged_module_is_read_without_a_refusal(data: bytes) -> None:
    assert read_everything(parse_module(data, "x.ko")) == 0


def test_a_module_cut_off_at_any_byte_is_read_or_refused() -> None:
    header_and_tables = [*range(130), *range(130, len(HELLO), 7), *range(len(HELLO) - 70, len(HELLO))]
    for size in header_and_tables:
        survives(HELLO[:size])


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, len(MODULES) - 1),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_flipped_bytes_are_read_or_refused(which: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(MODULES[which])
    for place, bits in flips:
        data[place % len(data)] ^= bits
    survives(bytes(data))


SECTION_FIELDS = [*[("I", 0), ("I", 4), ("Q", 8), ("Q", 16), ("Q", 24)], *[("Q", 32), ("I", 40), ("I", 44), ("Q", 48)]]
SYMBOL_FIELDS = [("I", 0), ("B", 4), ("H", 6), ("Q", 8)]
RELOCATION_FIELDS = [("Q", 0), ("I", 8), ("I", 12), ("Q", 16)]
LIES = [0, 1, 7, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


@settings(max_examples=200, deadline=None)
@given(section=st.integers(0, 40), field=st.integers(0, 8), lie=st.one_of(st.sampled_from(LIES), st.integers(0, 9000)))
def test_a_section_header_that_lies_is_read_or_refused(section: int, field: int, lie: int) -> None:
    header = parse(HELLO, "x.ko").header
    form, at = [
        ("I", 0),
        ("I", 4),
        ("Q", 8),
        ("Q", 16),
        ("Q", 24),
        ("Q", 32),
        ("I", 40),
        ("I", 44),
        ("Q", 48),
        ("Q", 56),
    ][field]
    data = bytearray(HELLO)
    limit = 1 << (32 if form == "I" else 64)
    struct.pack_into(f"<{form}", data, header.e_shoff + 64 * (section % header.e_shnum) + at, lie % limit)
    survives(bytes(data))


@settings(max_examples=100, deadline=None)
@given(symbol=st.integers(0, 60), form=st.sampled_from(SYMBOL_FIELDS), lie=st.sampled_from(LIES))
def test_a_symbol_that_lies_is_read_or_refused(symbol: int, form: tuple[str, int], lie: int) -> None:
    elf = parse(HELLO, "x.ko")
    table = next(section for section in elf.sections if section.type == SHT.SYMTAB)
    data = bytearray(HELLO)
    kind, at = form
    limit = 1 << (8 * struct.calcsize(kind))
    struct.pack_into(f"<{kind}", data, table.offset + 24 * (symbol % len(elf.symbols)) + at, lie % limit)
    survives(bytes(data))


@settings(max_examples=100, deadline=None)
@given(
    entry=st.integers(0, 60),
    form=st.sampled_from(RELOCATION_FIELDS),
    lie=st.sampled_from(LIES),
)
def test_a_relocation_that_lies_is_read_or_refused(entry: int, form: tuple[str, int], lie: int) -> None:
    elf = parse(HELLO, "x.ko")
    places = [s.offset + at for s in elf.sections if s.type == SHT.RELA for at in range(0, s.size, 24)]
    data = bytearray(HELLO)
    kind, at = form
    struct.pack_into(f"<{kind}", data, places[entry % len(places)] + at, lie % (1 << (8 * struct.calcsize(kind))))
    survives(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_behind_an_elf_header_are_read_or_refused(junk: bytes) -> None:
    survives(HELLO[:64] + junk)


@settings(max_examples=100, deadline=None)
@given(
    pack=st.sampled_from([lzma.compress, gzip.compress]),
    place=st.integers(0, 1 << 20),
    bits=st.integers(1, 255),
    size=st.integers(0, 1 << 20),
)
def test_a_damaged_compressed_module_is_read_or_refused(
    pack: Callable[[bytes], bytes], place: int, bits: int, size: int
) -> None:
    packed = bytearray(pack(HELLO))
    packed[place % len(packed)] ^= bits
    survives(bytes(packed))
    survives(bytes(packed[: size % len(packed)]))


class TestSmallFilesThatAskForMuch:
    def test_thousands_of_sections_that_share_one_endless_name(self) -> None:
        builder = KoBuilder()
        for number in range(2000):
            builder.section(f"s{number}")
        data = bytearray(builder.section("names", b"n" * 200_000, type=STRTAB, flags=0).build())
        header = parse(bytes(data), "x.ko").header
        struct.pack_into("<H", data, 0x3E, builder.index_of("names"))
        for number in range(header.e_shnum):
            struct.pack_into("<I", data, header.e_shoff + 64 * number, number)
        with pytest.raises(BadFile, match="has no NUL within 4096 bytes"):
            _ = parse(bytes(data), "x.ko").sections

    def test_a_section_of_an_exabyte_is_not_allocated(self) -> None:
        for name in (".modinfo", "__versions", "__param", "__ksymtab", ".note.gnu.build-id"):
            data = KoBuilder().section(name, b"x=1\0", size=1 << 60).build()
            assert read_everything(parse_module(data, "x.ko")) > 0

    def test_thousands_of_parameters_with_one_description_table(self) -> None:
        builder = KoBuilder().rodata(b"p\0").section("__param", bytes(40 * 3000), align=8)
        for number in range(3000):
            builder.reloc("__param", 40 * number, 1, ".rodata").reloc("__param", 40 * number + 16, 1, ".rodata", number)
        module = parse_module(builder.build(), "x.ko")
        assert len(module.params) == 3000

    def test_thousands_of_empty_streams(self) -> None:
        packed = gzip.compress(b"") * 20_000 + gzip.compress(HELLO)
        assert parse_module(packed, "x.ko").name == "hello"

    def test_a_signature_that_claims_the_whole_file(self) -> None:
        data = KoBuilder().section(".x", bytes(100), type=PROGBITS).signature(b"", sig_len=(1 << 32) - 1).build()
        assert read_everything(parse_module(data, "x.ko")) == 0
