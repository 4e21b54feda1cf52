"""Unpacking of the lzop format as the kernel's build writes it (``lzop -9``): plain Python, no extension module.

Kernels packed with LZO are rare; one takes half a minute here. The stream format is described in the kernel's
Documentation/staging/lzo.rst, the file format in lzop's own manual.
"""

from __future__ import annotations

import struct

_MAGIC = b"\x89LZO\x00\x0d\x0a\x1a\x0a"
_ADLER_D, _ADLER_C, _CRC_D, _CRC_C = 0x1, 0x2, 0x100, 0x200
_EXTRA, _FILTER = 0x40, 0x800


def unpack_lzop(data: bytes) -> bytes:
    """The content of an lzop file; ValueError when it is damaged. Checksums of blocks are not compared."""
    if not data.startswith(_MAGIC):
        raise ValueError("no lzop header")
    at, flags = _skip_header(data)
    pieces: list[bytes] = []
    while True:
        (size,) = struct.unpack_from(">I", data, at)
        at += 4
        if size == 0:
            return b"".join(pieces)
        (packed,) = struct.unpack_from(">I", data, at)
        at += 4
        at += 4 * (bool(flags & _ADLER_D) + bool(flags & _CRC_D))
        if packed < size:
            at += 4 * (bool(flags & _ADLER_C) + bool(flags & _CRC_C))
        block = data[at : at + packed]
        if len(block) != packed:
            raise ValueError("the last block ends early")
        at += packed
        pieces.append(block if packed == size else unpack_lzo1x(block, size))


def _skip_header(data: bytes) -> tuple[int, int]:
    at = len(_MAGIC)
    (version,) = struct.unpack_from(">H", data, at)
    at += 4 + (2 if version >= 0x0940 else 0)  # version, library version, version needed to extract
    at += 1 + (1 if version >= 0x0940 else 0)  # method, level
    (flags,) = struct.unpack_from(">I", data, at)
    at += 4 + (4 if flags & _FILTER else 0)
    at += 8 + (4 if version >= 0x0940 else 0)  # mode, time stamp in one or two words
    at += 1 + data[at] + 4  # file name, header checksum
    if flags & _EXTRA:
        (extra,) = struct.unpack_from(">I", data, at)
        at += 8 + extra
    return at, flags


def unpack_lzo1x(data: bytes, size: int) -> bytes:
    """One LZO1X block of a known unpacked size."""
    out = bytearray()
    at, state = 0, 0
    if data[0] > 17:
        count = data[0] - 17
        out += data[1 : 1 + count]
        at, state = 1 + count, min(count, 4)
    while True:
        code = data[at]
        at += 1
        if code < 16 and state == 0:
            count, at = _length(data, at, code, 15)
            out += data[at : at + count + 3]
            at, state = at + count + 3, 4
            continue
        distance, count, at, state = _match(data, at, code, state)
        if distance == 0:
            break
        _copy(out, distance, count)
        out += data[at : at + state]
        at += state
    if len(out) != size:
        raise ValueError(f"block of {len(out)} bytes, expected {size}")
    return bytes(out)


def _match(data: bytes, at: int, code: int, state: int) -> tuple[int, int, int, int]:
    """Decode one back reference: distance (0 is the end mark), length, next position, literals that follow."""
    if code >= 64:
        distance = (data[at] << 3) + ((code >> 2) & 7) + 1
        return distance, (code >> 5) + 1, at + 1, code & 3
    if code >= 32:
        count, at = _length(data, at, code & 31, 31)
        word = data[at] | data[at + 1] << 8
        return (word >> 2) + 1, count + 2, at + 2, word & 3
    if code >= 16:
        count, at = _length(data, at, code & 7, 7)
        word = data[at] | data[at + 1] << 8
        distance = ((code & 8) << 11) + (word >> 2)
        return (distance + 0x4000 if distance else 0), count + 2, at + 2, word & 3
    base, count = (0x801, 3) if state == 4 else (1, 2)
    return (data[at] << 2) + (code >> 2) + base, count, at + 1, code & 3


def _length(data: bytes, at: int, count: int, mask: int) -> tuple[int, int]:
    """A length whose small field is zero goes on in the following bytes, 255 for each zero byte."""
    if count:
        return count, at
    count = mask
    while data[at] == 0:
        count += 255
        at += 1
    return count + data[at], at + 1


def _copy(out: bytearray, distance: int, count: int) -> None:
    start = len(out) - distance
    if start < 0:
        raise ValueError("a reference before the start")
    if distance >= count:
        out += out[start : start + count]
        return
    piece = bytes(out[start:])
    out += (piece * (count // distance + 1))[:count]
