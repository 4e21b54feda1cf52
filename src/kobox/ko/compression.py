"""Module files are plain, xz, gzip or zstd; the first bytes say which, whatever the file is called.

Several streams in a row are one file, as the tools of each format have it. xz's and gzip's zero padding is allowed, and
anything else after the last stream is an error: a module is never half a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from kobox.elf import Buffer
from kobox.errors import BadFile, NotModelled

MAX_SIZE: Final = 1 << 30
"""The most that is unpacked from one file, 1 GiB unless the caller says otherwise: few bytes can ask for petabytes."""

_XZ_MEMORY: Final = 256 << 20
"""What one xz stream may allocate; ``xz -9`` needs 65 MiB. zstd's own default limit is a window of 128 MiB."""

_XZ_DICTIONARY: Final = 1 << 20
"""As ``xz --lzma2=dict=1MiB``, with which Debian and kbuild pack modules."""

_STEP: Final = 1 << 10
"""Input unpacked at once. It bounds what a step can give: 256 of zstd's 128 KiB blocks, 1 MiB of gzip."""


class _Stream(Protocol):
    """What ``lzma``, ``zlib`` and ``zstandard`` agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Format(NamedTuple):
    name: str
    magic: bytes
    padded: bool
    """Zero bytes may follow a stream."""
    library: Callable[[str], tuple[Callable[[], _Stream], type[Exception]]]
    """Imports the library: how to begin a stream, and what it raises. Given the file's name, for the error."""


def format_of(data: Buffer) -> str | None:
    """``"xz"``, ``"gzip"``, ``"zstd"``, or None for a file that is not compressed."""
    found = _format_of(data)
    return found.name if found else None


def decompress(data: Buffer, file: str, limit: int = MAX_SIZE) -> Buffer:
    """The bytes inside; ``data`` itself when it is not compressed. ``file`` is what errors call it."""
    kind = _format_of(data)
    if kind is None:
        return data
    pieces: list[bytes] = []
    size = 0
    for piece in _unpacked(memoryview(data).cast("B"), kind, file):
        size += len(piece)
        if size > limit:
            raise BadFile(file, kind.name, "unpacks to more than is allowed", expected=f"at most {limit:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def compress(data: Buffer, kind: str) -> bytes:
    """``data`` in a format that ``format_of`` names, in a form that the kernel's own decompressors take.

    The in-kernel xz knows CRC32 only and one dictionary size is what distributions use; gzip without name and time, so
    that the same module gives the same file.
    """
    if kind == "xz":
        import lzma

        filters = [{"id": lzma.FILTER_LZMA2, "preset": lzma.PRESET_DEFAULT, "dict_size": _XZ_DICTIONARY}]
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    if kind == "gzip":
        import gzip

        return gzip.compress(data, 9, mtime=0)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(write_content_size=True).compress(data)
    raise ValueError(f"no compression is called {kind!r}")


def _format_of(data: Buffer) -> _Format | None:
    start = bytes(data[:6])
    return next((kind for kind in _FORMATS if start.startswith(kind.magic)), None)


def _unpacked(data: memoryview, kind: _Format, file: str) -> Iterator[bytes]:
    begin, failure = kind.library(file)
    at = 0
    while at < len(data):
        if bytes(data[at : at + len(kind.magic)]) != kind.magic:
            raise BadFile(file, kind.name, f"{len(data) - at} bytes follow the compressed stream")
        stream = begin()
        while not stream.eof:
            if at >= len(data):
                hint = "the file was not copied completely"
                raise BadFile(file, kind.name, "the compressed stream is cut off", hint=hint)
            step = bytes(data[at : at + _STEP])
            try:
                yield stream.decompress(step)
            except failure as error:
                raise BadFile(file, kind.name, _reason(error)) from error
            at += len(step)
        at -= len(stream.unused_data)
        while kind.padded and at < len(data) and not data[at]:
            at += 1


def _reason(error: Exception) -> str:
    return str(error).removeprefix("zstd decompressor error: ").removeprefix("zstd decompress error: ")


def _xz(_: str) -> tuple[Callable[[], _Stream], type[Exception]]:
    import lzma

    return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), lzma.LZMAError


def _gzip(_: str) -> tuple[Callable[[], _Stream], type[Exception]]:
    import zlib

    return lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), zlib.error


def _zstd(file: str) -> tuple[Callable[[], _Stream], type[Exception]]:
    try:
        import zstandard
    except ImportError as error:
        raise NotModelled(f"{file}: is zstd compressed, and the package zstandard is not here") from error
    return zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError


_FORMATS: Final = (
    _Format("xz", b"\xfd7zXZ\0", True, _xz),
    _Format("gzip", b"\x1f\x8b", True, _gzip),
    _Format("zstd", b"\x28\xb5\x2f\xfd", False, _zstd),
)
