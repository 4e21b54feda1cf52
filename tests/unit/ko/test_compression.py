"""Compressed modules: the format is told by the first bytes, the size is bounded, half a file is an error."""

from __future__ import annotations

import gzip
import lzma

import pytest
import zstandard

from builders import KoBuilder
from kobox.errors import BadFile
from kobox.ko import decompress, format_of, parse_module

PLAIN = KoBuilder("hello").module().build()


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


PACKERS = {"xz": lzma.compress, "gzip": gzip.compress, "zstd": zstd}
each_format = pytest.mark.parametrize("kind", PACKERS)


@each_format
def test_a_compressed_module_is_the_module_inside(kind: str) -> None:
    packed = PACKERS[kind](PLAIN)
    module = parse_module(packed, "hello.ko")
    assert (module.name, module.compression, module.file_size) == ("hello", kind, len(packed))
    assert bytes(module.data) == PLAIN


def test_the_files_name_says_nothing_about_its_format() -> None:
    assert parse_module(lzma.compress(PLAIN), "hello.ko.zst").compression == "xz"
    assert parse_module(PLAIN, "hello.ko.xz").compression is None


def test_a_plain_file_is_handed_back_uncopied() -> None:
    assert decompress(PLAIN, "hello.ko") is PLAIN


def test_formats_are_told_by_their_magic() -> None:
    starts = [b"\xfd7zXZ\0...", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x7fELF", b"", b"\xfd7zXZ"]
    assert [format_of(start) for start in starts] == ["xz", "gzip", "zstd", None, None, None]


@each_format
def test_several_streams_in_a_row_are_one_file(kind: str) -> None:
    pack = PACKERS[kind]
    assert decompress(pack(PLAIN[:100]) + pack(b"") + pack(PLAIN[100:]), "x.ko") == PLAIN


@pytest.mark.parametrize("kind", ["xz", "gzip"])
def test_zero_padding_may_follow(kind: str) -> None:
    assert decompress(PACKERS[kind](PLAIN) + bytes(8), "x.ko") == PLAIN


def test_a_zstd_frame_without_a_size_is_read_to_its_end() -> None:
    assert decompress(zstd(PLAIN * 30, write_content_size=False), "x.ko.zst") == PLAIN * 30


@each_format
def test_anything_else_that_follows_is_refused(kind: str) -> None:
    with pytest.raises(BadFile, match=f"^x.ko: {kind}: 3 bytes follow the compressed stream$"):
        decompress(PACKERS[kind](PLAIN) + b"abc", "x.ko")


@each_format
def test_a_file_cut_off_anywhere_is_refused(kind: str) -> None:
    packed = PACKERS[kind](PLAIN)
    for size in (6, 20, len(packed) // 2, len(packed) - 1):
        with pytest.raises(BadFile, match=f"^x.ko: {kind}: the compressed stream is cut off"):
            decompress(packed[:size], "x.ko")


@each_format
def test_damage_in_the_stream_is_one_clear_line(kind: str) -> None:
    packed = bytearray(PACKERS[kind](PLAIN))
    packed[len(packed) // 2 :] = bytes(0xAA for _ in packed[len(packed) // 2 :])
    with pytest.raises(BadFile) as caught:
        decompress(bytes(packed), "x.ko")
    assert str(caught.value).startswith(f"x.ko: {kind}: ")
    assert "\n" not in str(caught.value)


@each_format
def test_what_unpacks_to_more_than_allowed_is_refused_early(kind: str) -> None:
    bomb = PACKERS[kind](bytes(50_000_000))
    with pytest.raises(BadFile, match="unpacks to more than is allowed: expected at most 1,000,000 bytes"):
        decompress(bomb, "x.ko", limit=1_000_000)


def test_the_limit_itself_is_allowed() -> None:
    packed = lzma.compress(PLAIN)
    assert decompress(packed, "x.ko", limit=len(PLAIN)) == PLAIN
    with pytest.raises(BadFile, match="unpacks to more"):
        decompress(packed, "x.ko", limit=len(PLAIN) - 1)


def test_a_compressed_text_is_still_no_module() -> None:
    with pytest.raises(BadFile, match="is no ELF file"):
        parse_module(gzip.compress(b"hello, world"), "x.ko.gz")
