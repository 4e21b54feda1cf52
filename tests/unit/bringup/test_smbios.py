"""The firmware's description of the board, read back as a kernel reads it."""

from __future__ import annotations

import struct

from kobox.bringup.smbios import tables
from kobox.machine.cpu_model import Board, load_model

BASE = 0xF8000


def structures(data: bytes) -> list[tuple[int, bytes, list[bytes]]]:
    size, start = struct.unpack_from("<IQ", data, 12)
    at, end = start - BASE, start - BASE + size
    found = []
    while at < end:
        kind, length, _ = struct.unpack_from("<BBH", data, at)
        stop = data.index(b"\0\0", at + length)
        found.append((kind, data[at : at + length], data[at + length : stop].split(b"\0")))
        at = stop + 2
    assert at == end
    return found


def test_the_entry_point_adds_up_to_zero_and_names_the_structures() -> None:
    data = tables(BASE, load_model().board)
    assert data[:5] == b"_SM3_"
    assert sum(data[: data[6]]) & 0xFF == 0
    assert [kind for kind, _, _ in structures(data)] == [0, 1, 127]


def test_fields_name_the_board_s_strings_by_number() -> None:
    data = tables(BASE, Board("maker", "thing", "firm", "1.2", "04/05/2006"))
    bios, system, _ = structures(data)
    assert [bios[2][bios[1][place] - 1] for place in (4, 5, 8)] == [b"firm", b"1.2", b"04/05/2006"]
    assert [system[2][system[1][place] - 1] for place in (4, 5)] == [b"maker", b"thing"]
    assert (len(bios[1]), len(system[1])) == (26, 27)
