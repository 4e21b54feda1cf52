"""Pages of the kernel's ring buffer, built here byte by byte, and the layouts of ``format`` files."""

from __future__ import annotations

import struct

import pytest

from kobox.debug.tracing.ring import Format, PageReader, parse_fields

HEADER = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;
"""
FORMAT = """\
name: open_it
ID: 1234
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int fd;\toffset:8;\tsize:4;\tsigned:1;
\tfield:char comm[8];\toffset:12;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:20;\tsize:4;\tsigned:0;
\tfield:u8 mac[3];\toffset:24;\tsize:3;\tsigned:0;
\tfield:unsigned long where;\toffset:32;\tsize:8;\tsigned:0;

print fmt: "%d", REC->fd
"""


def record(delta: int, data: bytes) -> bytes:
    assert len(data) % 4 == 0
    return struct.pack("<I", delta << 5 | len(data) // 4) + data


def page(stamp: int, records: bytes, flags: int = 0, behind: bytes = b"") -> bytes:
    body = records + behind
    return struct.pack("<QQ", stamp, len(records) | flags) + body + bytes(4080 - len(body))


def test_times_are_the_pages_plus_the_differences() -> None:
    read = PageReader(HEADER).read(page(1000, record(0, b"aaaa") + record(7, b"bbbbbbbb")))
    assert read.records == [(1000, b"aaaa"), (1007, b"bbbbbbbb")]
    assert read.lost == 0


def test_a_long_pause_is_a_record_of_its_own() -> None:
    extend = struct.pack("<II", 5 << 5 | 30, 3)
    read = PageReader(HEADER).read(page(1000, extend + record(1, b"aaaa")))
    assert read.records == [(1000 + (3 << 27) + 5 + 1, b"aaaa")]


def test_an_absolute_stamp_keeps_the_pages_highest_bits() -> None:
    high = 3 << 59
    stamp = struct.pack("<II", 9 << 5 | 31, 1)
    read = PageReader(HEADER).read(page(high | 5, stamp + record(0, b"aaaa")))
    assert read.records == [(high | 1 << 27 | 9, b"aaaa")]


def test_long_records_say_their_length_and_discarded_ones_are_passed_over() -> None:
    long = struct.pack("<II", 2 << 5, 124) + b"x" * 120
    discarded = struct.pack("<II", 4 << 5 | 29, 8) + bytes(4)
    read = PageReader(HEADER).read(page(0, long + discarded + record(1, b"last")))
    assert read.records == [(2, b"x" * 120), (7, b"last")]


def test_padding_ends_a_page() -> None:
    read = PageReader(HEADER).read(page(0, record(0, b"aaaa") + struct.pack("<I", 29) + b"rubbish!"))
    assert read.records == [(0, b"aaaa")]


@pytest.mark.parametrize(("flags", "behind", "lost"), [(1 << 31, b"", 1), (3 << 30, struct.pack("<Q", 77), 77)])
def test_lost_records_are_counted(flags: int, behind: bytes, lost: int) -> None:
    assert PageReader(HEADER).read(page(0, record(0, b"aaaa"), flags, behind)).lost == lost


def test_records_that_were_taken_before_still_count_for_the_time() -> None:
    first = record(3, b"aaaa")
    read = PageReader(HEADER).read(page(1000, first + record(4, b"bbbb")), taken=len(first))
    assert read.records == [(1007, b"bbbb")]


def test_a_record_that_is_cut_off_ends_the_page() -> None:
    assert PageReader(HEADER).read(page(0, record(0, b"aaaa") + b"\1")).records == [(0, b"aaaa")]


def test_members_are_decoded_by_type() -> None:
    form = Format.parse("files", FORMAT)
    assert (form.system, form.name, form.number) == ("files", "open_it", 1234)
    data = struct.pack("<HBxiiI", 1234, 0, 42, -3, 0)[:12] + b"insmod\0\0" + struct.pack("<I", 5 << 16 | 40)
    data += bytes([0xAA, 0xBB, 0xCC]) + bytes(5) + struct.pack("<Q", 1 << 63) + b"name\0\0\0\0"
    assert form.decode(data) == {"fd": -3, "comm": "insmod", "name": "name", "mac": "aabbcc", "where": 1 << 63}


def test_a_picker_takes_numbers_in_the_order_they_lie_in() -> None:
    form = Format.parse("files", FORMAT)
    data = bytes(8) + struct.pack("<i", -3) + bytes(20) + struct.pack("<Q", 9)
    assert form.picker("where", "fd").unpack_from(data) == (-3, 9)


def test_fields_of_older_kernels_may_lack_the_sign() -> None:
    (field,) = parse_fields("field:int old; offset:4; size:4;")
    assert not field.signed
