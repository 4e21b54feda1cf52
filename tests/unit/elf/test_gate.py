"""The bounds gate: bytes that are in the file, or a BadFile that says which part lies."""

from __future__ import annotations

import mmap
from pathlib import Path
from struct import Struct

import pytest

from kobox.elf import Gate, StringTable
from kobox.elf.gate import LONGEST_NAME
from kobox.errors import BadFile


def test_bytes_inside_the_file_come_as_a_view_not_a_copy() -> None:
    data = bytearray(b"abcdef")
    taken = Gate("x.ko", data).take(2, 3, "middle")
    data[3] = ord("X")
    assert bytes(taken) == b"cXe"


def test_what_is_taken_cannot_be_written() -> None:
    assert Gate("x.ko", bytearray(b"abc")).take(0, 3, "all").readonly


@pytest.mark.parametrize(("offset", "size"), [(0, 6), (6, 0), (5, 1), (0, 0)])
def test_the_edges_of_the_file_are_inside(offset: int, size: int) -> None:
    assert len(Gate("x.ko", b"abcdef").take(offset, size, "edge")) == size


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 7), (6, 1), (7, 0), (-1, 1), (0, -1), (-1, 7), (1 << 63, 1), (1, (1 << 64) - 1)]
)
def test_anything_beyond_the_edges_is_a_bad_file(offset: int, size: int) -> None:
    with pytest.raises(BadFile) as caught:
        Gate("x.ko", b"abcdef").take(offset, size, "section 3 (.text)")
    assert str(caught.value).startswith("x.ko: section 3 (.text): ")


def test_a_huge_size_is_refused_without_being_allocated() -> None:
    with pytest.raises(BadFile):
        Gate("x.ko", b"abc").take(0, 1 << 62, "lie")


def test_a_record_is_unpacked_at_its_offset() -> None:
    assert Gate("x.ko", b"\0\1\2\3\4").unpack(Struct("<HH"), 1, "record") == (0x0201, 0x0403)


def test_a_mapped_file_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    assert bytes(Gate("f", memoryview(mapped)).take(1, 3, "x")) == b"ell"


def test_a_string_ends_at_its_nul() -> None:
    assert Gate("x.ko", b"one\0two\0").string(4, 8, "names") == "two"


def test_a_string_must_end_before_its_section_does() -> None:
    with pytest.raises(BadFile, match="has no NUL within 2 bytes"):
        Gate("x.ko", b"one\0").string(0, 2, "names")


@pytest.mark.parametrize("offset", [2, 3, 1 << 70])
def test_a_string_cannot_start_behind_its_section(offset: int) -> None:
    with pytest.raises(BadFile, match=f"a string starts behind the end of its section: found {offset:#x}"):
        Gate("x.ko", b"one\0").string(offset, 2, "names")


class TestStringTable:
    def test_any_offset_is_a_string_because_linkers_share_tails(self) -> None:
        table = StringTable("x.ko", ".strtab", b"\0printk\0")
        assert [table.at(offset) for offset in (0, 1, 3, 7)] == ["", "printk", "intk", ""]

    def test_many_strings_are_what_each_one_is(self) -> None:
        table = StringTable("x.ko", ".strtab", b"\0a\0bc\0")
        assert table.many([1, 0, 3, 4, 1]) == [table.at(offset) for offset in (1, 0, 3, 4, 1)]

    def test_text_that_is_not_ascii_is_found_by_its_byte_offset(self) -> None:
        table = StringTable("x.ko", ".strtab", "\0Michał\0end\0".encode())
        assert table.many([1, 9]) == ["Michał", "end"]

    def test_bytes_that_are_not_text_survive_a_round_trip(self) -> None:
        name = StringTable("x.ko", ".strtab", b"\xff\xfe\0").at(0)
        assert name.encode("utf-8", "surrogateescape") == b"\xff\xfe"

    @pytest.mark.parametrize("data", [b"\0abc\0", b"\0ab\xe9\0"])
    @pytest.mark.parametrize("offset", [5, 6, 1 << 31, 1 << 70])
    def test_an_offset_outside_the_table_is_named(self, data: bytes, offset: int) -> None:
        table = StringTable("x.ko", ".strtab", data)
        with pytest.raises(BadFile, match=f"a string starts outside the table: found {offset:#x}, expected below 0x5"):
            table.many([0, offset])

    @pytest.mark.parametrize("data", [b"\0abc", b"\0ab\xe9"])
    def test_a_string_without_an_end_is_refused(self, data: bytes) -> None:
        with pytest.raises(BadFile, match="the string at 0x1 has no NUL"):
            StringTable("x.ko", ".strtab", data).at(1)

    def test_names_have_a_longest_length_so_that_overlapping_ones_stay_cheap(self) -> None:
        longest = b"x" * LONGEST_NAME
        assert StringTable("x.ko", ".strtab", longest + b"\0").at(0) == longest.decode()
        with pytest.raises(BadFile, match="has no NUL within 4096 bytes"):
            StringTable("x.ko", ".strtab", b"y" + longest + b"\0").many([0])

    def test_every_place_where_a_name_can_be_read_is_found(self) -> None:
        table = StringTable("x.ko", ".shstrtab", b"\0.rela.text\0.text\0.text.unlikely\0")
        assert table.offsets_of(".text") == {6, 12}
        assert table.offsets_of(".data") == set()
