"""Module files are plain, xz, gzip or zstd; the first bytes say which, whatever the file is called.

Several streams in a row are one file, as the tools of each format have it. xz's and gzip's zero padding is allowed, and
anything else after the last stream is an error: a module is never half a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from kobox.elf import Buffer
from kobox.errors import BadFile, NotModelled

MAX_SIZE: Final = 1 << 30
"""The most that is unpacked from one file, 1 GiB unless the caller says otherwise: few bytes can ask for petabytes."""

_STEP: Final = 1 << 20
_ZSTD_STEP: Final = 1 << 10
"""Input handed to zstd at once: 256 blocks at most, so no step can unpack more than 32 MiB."""


def format_of(data: Buffer) -> str | None:
    """``"xz"``, ``"gzip"``, ``"zstd"``, or None for a file that is not compressed."""
    start = bytes(data[:6])
    return next((name for magic, name in _MAGICS if start.startswith(magic)), None)


def decompress(data: Buffer, file: str, limit: int = MAX_SIZE) -> Buffer:
    """The bytes inside; ``data`` itself when it is not compressed. ``file`` is what errors call it."""
    kind = format_of(data)
    if kind is None:
        return data
    pieces: list[bytes] = []
    size = 0
    for piece in _UNPACKERS[kind](bytes(data), file):
        size += len(piece)
        if size > limit:
            raise BadFile(file, kind, "unpacks to more than is allowed", expected=f"at most {limit:#x} bytes")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _unxz(data: bytes, file: str) -> Iterator[bytes]:
    import lzma

    while True:
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        try:
            yield stream.decompress(data, _STEP)
            while not stream.eof and not stream.needs_input:
                yield stream.decompress(b"", _STEP)
        except lzma.LZMAError as error:
            raise BadFile(file, "xz", str(error)) from error
        if not stream.eof:
            raise _cut_off(file, "xz")
        data = stream.unused_data.lstrip(b"\0")
        if not data:
            return
        if not data.startswith(b"\xfd7zXZ\0"):
            raise _trailing(file, "xz", len(data))


def _gunzip(data: bytes, file: str) -> Iterator[bytes]:
    import zlib

    while True:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            yield stream.decompress(data, _STEP)
            while not stream.eof and stream.unconsumed_tail:
                yield stream.decompress(stream.unconsumed_tail, _STEP)
            if not stream.eof:
                yield stream.flush(_STEP)
        except zlib.error as error:
            raise BadFile(file, "gzip", str(error)) from error
        if not stream.eof:
            raise _cut_off(file, "gzip")
        data = stream.unused_data.lstrip(b"\0")
        if not data:
            return
        if not data.startswith(b"\x1f\x8b"):
            raise _trailing(file, "gzip", len(data))


def _unzstd(data: bytes, file: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise NotModelled(f"{file}: zstd needs the package zstandard", "pip install zstandard") from error

    rest = memoryview(data)
    while True:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            while rest and not frame.eof:
                yield frame.decompress(rest[:_ZSTD_STEP])
                rest = rest[_ZSTD_STEP:]
        except zstandard.ZstdError as error:
            raise BadFile(file, "zstd", str(error).removeprefix("zstd decompressor error: ")) from error
        if not frame.eof:
            raise _cut_off(file, "zstd")
        rest = memoryview(frame.unused_data + bytes(rest))
        if not rest:
            return
        if not bytes(rest[:4]) == _ZSTD_MAGIC:
            raise _trailing(file, "zstd", len(rest))


def _cut_off(file: str, kind: str) -> BadFile:
    return BadFile(file, kind, "the compressed stream is cut off", hint="the file was not copied completely")


def _trailing(file: str, kind: str, count: int) -> BadFile:
    return BadFile(file, kind, f"{count} bytes follow the compressed stream")


_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MAGICS: Final = ((b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b", "gzip"), (_ZSTD_MAGIC, "zstd"))
_UNPACKERS: Final[dict[str, Callable[[bytes, str], Iterator[bytes]]]] = {
    "xz": _unxz,
    "gzip": _gunzip,
    "zstd": _unzstd,
}
