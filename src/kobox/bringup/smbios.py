"""The firmware's description of the board (SMBIOS 3): who made it and which firmware it has. The kernel prints this in
its oopses ("Hardware name") and matches quirks against it.

DMTF DSP0134, chapters 5 to 7: a 64-bit entry point, structures 0 (BIOS), 1 (system) and 127 (end).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kobox.machine.cpu_model import Board

ENTRY_POINT_ADDR = 0xF8000
"""Where a kernel looks: on a 16-byte border between 0xF0000 and 0xFFFFF."""


def tables(base: int, board: Board) -> bytes:
    """Bytes to store at ``base``: the entry point, and the structures 32 bytes behind it."""
    bios = struct.pack("<BBHBBQ2B2B2BH", 1, 2, 0xE800, 3, 0, 1 << 3, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0)
    system = struct.pack("<4B16s3B", 1, 2, 0, 0, bytes(16), 6, 0, 0)
    structures = _structure(0, bios, (board.bios_vendor, board.bios_version, board.bios_date))
    structures += _structure(1, system, (board.vendor, board.product))
    structures += _structure(127, b"", ())
    entry = bytearray(struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, 3, 0, 0, 1, 0, len(structures), base + 32))
    entry[5] = -sum(entry) & 0xFF
    return bytes(entry.ljust(32, b"\0")) + structures


def _structure(kind: int, body: bytes, texts: Sequence[str]) -> bytes:
    """Header, fields, and the strings that fields name by number from 1; an empty list of them is one more NUL."""
    strings = b"".join(text.encode("latin-1") + b"\0" for text in texts) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), kind) + body + strings + b"\0"
