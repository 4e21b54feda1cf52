"""The firmware's ACPI tables as a kernel follows them: pointers, checksums, the registers that they name."""

from __future__ import annotations

import struct

from kobox.bringup import acpi
from kobox.machine import isa, pci_bus

BASE = acpi.ROOT_POINTER_ADDR
IMAGE = acpi.tables(BASE, 0xFEE0_0000, 0xFEC0_0000)


def table_at(address: int) -> bytes:
    (length,) = struct.unpack_from("<I", IMAGE, address - BASE + 4)
    return IMAGE[address - BASE : address - BASE + length]


def listed() -> dict[bytes, bytes]:
    """Tables by signature, as the root pointer leads to them."""
    (xsdt_addr,) = struct.unpack_from("<Q", IMAGE, 24)
    xsdt = table_at(xsdt_addr)
    addresses = struct.unpack_from(f"<{(len(xsdt) - 36) // 8}Q", xsdt, 36)
    return {xsdt[:4]: xsdt} | {table[:4]: table for table in map(table_at, addresses)}


def test_the_root_pointer_and_every_table_sum_to_zero() -> None:
    assert IMAGE[:8] == b"RSD PTR "
    assert sum(IMAGE[:20]) & 0xFF == sum(IMAGE[:36]) & 0xFF == 0
    found = listed()
    assert set(found) == {b"XSDT", b"FACP", b"APIC", b"MCFG"}
    assert {name: sum(table) & 0xFF for name, table in found.items()} == dict.fromkeys(found, 0)


def test_the_fixed_hardware_is_named_twice_and_lies_where_the_board_has_it() -> None:
    fadt = listed()[b"FACP"]
    facs_addr, dsdt_addr = struct.unpack_from("<II", fadt, 36)
    assert table_at(facs_addr)[:4] == b"FACS"
    assert facs_addr % 64 == 0, "the kernel and the firmware share a lock in it"
    assert table_at(dsdt_addr)[:4] == b"DSDT"
    assert sum(table_at(dsdt_addr)) & 0xFF == 0
    assert struct.unpack_from("<H", fadt, 46) == (isa.POWER_INTERRUPT,)
    blocks = {56: 148, 64: 172, 76: 208, 80: 220}  # old place of each block's port: its generic address
    for old, new in blocks.items():
        (port,) = struct.unpack_from("<I", fadt, old)
        space, _, _, _, address = struct.unpack_from("<BBBBQ", fadt, new)
        assert (space, address) == (1, port)
        assert port in isa.Power(dict, lambda: 0).ports


def test_the_interrupt_of_power_management_is_level_and_high_at_the_io_apic() -> None:
    madt, at = listed()[b"APIC"], 44
    overrides = {}
    while at < len(madt):
        kind, length = madt[at], madt[at + 1]
        if kind == 2:
            _, source, line, flags = struct.unpack_from("<BBIH", madt, at + 2)
            overrides[source] = (line, flags)
        at += length
    assert at == len(madt)
    assert overrides[isa.POWER_INTERRUPT] == (isa.POWER_INTERRUPT, 0b1101)
    assert overrides[0] == (2, 0)


def test_configuration_space_lies_where_the_table_for_it_says() -> None:
    base, segment, first, last = struct.unpack_from("<QHBB", listed()[b"MCFG"], 44)
    assert (base, segment, first) == (pci_bus.ECAM_BASE, 0, 0)
    assert (last + 1) << 20 == pci_bus.ECAM_SIZE
