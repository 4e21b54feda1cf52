"""ORC tables: bit layouts of several releases, lookup, sorting of a module's tables."""

from __future__ import annotations

import struct

import pytest

from kobox.debug.orc import OrcLayout, OrcReg, OrcTable, OrcType, sort_module_tables
from kobox.errors import BadFile

OLD = {
    "sp_offset": (0, 16),
    "bp_offset": (16, 16),
    "sp_reg": (32, 4),
    "bp_reg": (36, 4),
    "type": (40, 2),
    "end": (42, 1),
}
NEW = {
    "sp_offset": (0, 16),
    "bp_offset": (16, 16),
    "sp_reg": (32, 4),
    "bp_reg": (36, 4),
    "type": (40, 3),
    "signal": (43, 1),
}
LAYOUT = OrcLayout.from_members(6, OLD)


def entry(sp_offset=8, bp_offset=0, sp_reg=OrcReg.SP, bp_reg=OrcReg.UNDEFINED, rest=0) -> bytes:
    return struct.pack("<hhBB", sp_offset, bp_offset, sp_reg | bp_reg << 4, rest)


def table(base: int, *rows: tuple[int, bytes]) -> OrcTable:
    ips = b"".join(struct.pack("<i", addr - (base + 4 * index)) for index, (addr, _) in enumerate(rows))
    return OrcTable.from_bytes(LAYOUT, base, ips, b"".join(raw for _, raw in rows))


def test_offsets_are_signed():
    found = LAYOUT.decode(entry(sp_offset=16, bp_offset=-16, sp_reg=OrcReg.BP, bp_reg=OrcReg.PREV_SP))
    assert (found.sp_offset, found.bp_offset, found.sp_reg, found.bp_reg) == (16, -16, OrcReg.BP, OrcReg.PREV_SP)


def test_the_end_bit_of_older_kernels_ends_the_stack():
    assert LAYOUT.decode(entry(sp_reg=OrcReg.UNDEFINED, rest=1 << 2)).type is OrcType.END_OF_STACK
    assert LAYOUT.decode(entry(sp_reg=OrcReg.UNDEFINED)).type is OrcType.UNDEFINED


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (0, OrcType.UNDEFINED),
        (1, OrcType.END_OF_STACK),
        (2, OrcType.CALL),
        (3, OrcType.REGS),
        (4, OrcType.REGS_PARTIAL),
    ],
)
def test_newer_kernels_have_five_types(number: int, kind: OrcType):
    assert OrcLayout.from_members(6, NEW).decode(entry(rest=number)).type is kind


def test_a_signal_frame_is_a_bit_of_its_own_in_newer_kernels_and_follows_from_the_type_in_older():
    assert OrcLayout.from_members(6, NEW).decode(entry(rest=2 | 1 << 3)).signal
    assert LAYOUT.decode(entry(rest=1)).signal
    assert not LAYOUT.decode(entry(rest=0)).signal


def test_a_structure_without_the_needed_members_is_refused_by_name():
    with pytest.raises(BadFile, match="sp_reg, bp_reg, type"):
        OrcLayout.from_members(4, {"sp_offset": (0, 16), "bp_offset": (16, 16)})


def test_the_entry_that_covers_an_address_is_found():
    orc = table(0x9000, (0x1000, entry(8)), (0x1004, entry(16)), (0x2000, entry(24)))
    assert [orc.find(ip).sp_offset for ip in (0x1000, 0x1003, 0x1004, 0x1FFF, 0x2000, 0xFFFF)] == [8, 8, 16, 16, 24, 24]


def test_of_entries_with_the_same_address_the_last_one_counts():
    assert table(0x9000, (0x1000, entry(8)), (0x1000, entry(32))).find(0x1000).sp_offset == 32


def test_an_empty_table_finds_nothing():
    assert table(0x9000).find(0x1000) is None


def test_tables_of_unequal_length_are_refused():
    with pytest.raises(BadFile, match="table size"):
        OrcTable.from_bytes(LAYOUT, 0, bytes(8), bytes(6))


def test_a_modules_tables_are_sorted_with_offsets_adjusted_and_terminators_first():
    rows = [(0x3000, entry(24)), (0x1000, entry(8)), (0x2000, entry(16)), (0x2000, entry(0, sp_reg=OrcReg.UNDEFINED))]
    base = 0x9000
    ips = bytearray(b"".join(struct.pack("<i", addr - (base + 4 * n)) for n, (addr, _) in enumerate(rows)))
    entries = bytearray(b"".join(raw for _, raw in rows))
    sort_module_tables(LAYOUT, base, ips, entries)
    orc = OrcTable.from_bytes(LAYOUT, base, ips, entries)
    assert [orc.address(n) for n in range(4)] == [0x1000, 0x2000, 0x2000, 0x3000]
    assert [orc.find(ip).sp_offset for ip in (0x1500, 0x2000, 0x3000)] == [8, 16, 24]


def test_addresses_of_the_upper_half_are_unsigned():
    base = 0xFFFFFFFFC0009000
    assert table(base, (0xFFFFFFFFC0001000, entry())).address(0) == 0xFFFFFFFFC0001000
