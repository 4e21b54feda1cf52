"""A bootable x86 kernel file (``vmlinuz``, ``bzImage``) and the ``vmlinux`` packed inside it.

Follows Documentation/arch/x86/boot.rst for the setup header. Knows the packings that the kernel's build offers and
nothing of ELF. The build appends the unpacked length to every packed payload: a decompressor must stop at the end of
its own stream, and the four bytes then check the result.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from kobox.errors import BadFile, NotModelled
from kobox.image.lzo import unpack_lzop

ELF_MAGIC = b"\x7fELF"
_SECTOR = 512


class BootFile(NamedTuple):
    """What the setup header says. ``banner`` begins with the release; ``protocol`` is 0x020f for 2.15."""

    protocol: int
    banner: str
    payload_off: int
    payload_size: int

    @property
    def release(self) -> str:
        return self.banner.split(" ", 1)[0]


def read_header(data: bytes, name: str) -> BootFile:
    """Read the setup header; BadFile when this is no x86 kernel with a payload."""
    if len(data) < 0x250 or data[0x202:0x206] != b"HdrS":
        raise BadFile(
            name, "setup header", "no x86 kernel: no 'HdrS' at 0x202", hint="give a vmlinuz, bzImage or vmlinux"
        )
    protocol, banner_off = struct.unpack_from("<H", data, 0x206)[0], struct.unpack_from("<H", data, 0x20E)[0]
    if protocol < 0x0208:
        raise BadFile(name, "setup header", "boot protocol without a payload", protocol, 0x0208)
    setup_sectors = data[0x1F1] or 4
    payload_off, payload_size = struct.unpack_from("<II", data, 0x248)
    payload_off += (setup_sectors + 1) * _SECTOR
    if payload_off + payload_size > len(data):
        raise BadFile(
            name,
            "payload",
            "file is cut short",
            len(data),
            payload_off + payload_size,
            hint="copy or download it again",
        )
    return BootFile(protocol, _text_at(data, banner_off + 0x200) if banner_off else "", payload_off, payload_size)


def unpack(data: bytes, name: str) -> bytes:
    """The ``vmlinux`` inside; a file that is one already is returned as it is."""
    if data.startswith(ELF_MAGIC):
        return data
    header = read_header(data, name)
    payload = data[header.payload_off : header.payload_off + header.payload_size]
    return _unpack_payload(payload, name)


def packing_of(data: bytes, name: str) -> str:
    """How the kernel is packed: ``xz``, ``zstd``, ``gzip``, ``lz4``, ``lzma``, ``lzo``, ``bzip2`` or ``none``."""
    if data.startswith(ELF_MAGIC):
        return "none"
    header = read_header(data, name)
    return _packing(data[header.payload_off : header.payload_off + 16], name)[0]


def _unpack_payload(payload: bytes, name: str) -> bytes:
    packing, unpacker = _packing(payload, name)
    try:
        unpacked = unpacker(payload)
    except BadFile:
        raise
    except (ValueError, EOFError, OSError, lzma.LZMAError, zlib.error, RuntimeError, struct.error, IndexError) as error:
        raise BadFile(name, f"payload ({packing})", f"damaged: {error}", hint="copy or download it again") from error
    if packing != "none":
        stated = int.from_bytes(payload[-4:], "little")
        if stated != len(unpacked) & 0xFFFFFFFF:
            raise BadFile(name, f"payload ({packing})", "unpacked size", len(unpacked), stated)
    return unpacked


def _packing(payload: bytes, name: str) -> tuple[str, Callable[[bytes], bytes]]:
    for magic, packing, unpacker in _PACKINGS:
        if payload.startswith(magic):
            return packing, unpacker
    raise NotModelled(f"{name}: payload: packing with magic {payload[:6].hex(' ')} is not known")


def _xz(payload: bytes) -> bytes:
    return _stream(lzma.LZMADecompressor(lzma.FORMAT_XZ), payload)


def _lzma(payload: bytes) -> bytes:
    return _stream(lzma.LZMADecompressor(lzma.FORMAT_ALONE), payload)


def _bzip2(payload: bytes) -> bytes:
    return _stream(bz2.BZ2Decompressor(), payload)


def _gzip(payload: bytes) -> bytes:
    return _stream(zlib.decompressobj(wbits=31), payload)


def _stream(decompressor: lzma.LZMADecompressor | bz2.BZ2Decompressor | zlib._Decompress, payload: bytes) -> bytes:
    unpacked = decompressor.decompress(payload)
    if not decompressor.eof:
        raise EOFError("the stream ends early")
    return unpacked


def _zstd(payload: bytes) -> bytes:
    import zstandard  # 10 ms that a machine with an xz kernel need not pay

    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        unpacked = decompressor.decompress(payload)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if not decompressor.eof:
        raise EOFError("the frame ends early")
    return unpacked


def _lz4(payload: bytes) -> bytes:
    """The legacy frame: a magic, then blocks with their packed size, 8 MiB each when unpacked."""
    from lz4.block import decompress  # type: ignore[attr-defined]  # the package's stub does not list it

    pieces, at = [], 4
    while at + 4 < len(payload):
        size = int.from_bytes(payload[at : at + 4], "little")
        if size == 0x184C2102:  # a concatenated frame
            at += 4
            continue
        if at + 4 + size > len(payload):
            raise EOFError("the last block ends early")
        pieces.append(decompress(payload[at + 4 : at + 4 + size], uncompressed_size=8 << 20))
        at += 4 + size
    return b"".join(pieces)


_PACKINGS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\x02\x21\x4c\x18", "lz4", _lz4),
    (b"\x89LZO\0", "lzo", unpack_lzop),
    (b"BZh", "bzip2", _bzip2),
    (b"\x5d\0\0", "lzma", _lzma),
    (ELF_MAGIC, "none", bytes),
)


def _text_at(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + 4096)
    return data[offset : end if end >= 0 else offset].decode("ascii", "replace")
