"""The firmware's tables: the smallest ACPI set that describes this board (one CPU, local APIC, I/O APIC, the fixed
hardware of ``machine.isa``, the PCI bus of ``machine.pci_bus``).

ACPI 6.4, chapter 5; PCI Firmware Specification 3.0, 4.1 (MCFG). Addresses are physical; the root pointer lies where a
BIOS would put it.
"""

from __future__ import annotations

import struct

from kobox.bringup import aml
from kobox.machine import isa, pci_bus

ROOT_POINTER_ADDR = 0xF0000
_OEM = b"KOBOX "
_FLAGS = 1 << 0 | 1 << 2 | 1 << 5
"""WBINVD works, C1 on all processors, no sleep button: as the modelled machine says."""
_PC_COMPATIBLE = 1
_ACTIVE_HIGH, _LEVEL = 1, 3 << 2
_OVERRIDES = ((0, 2, 0), (5, 5, _ACTIVE_HIGH | _LEVEL), (9, 9, _ACTIVE_HIGH | _LEVEL),
              (10, 10, _ACTIVE_HIGH | _LEVEL), (11, 11, _ACTIVE_HIGH | _LEVEL))  # fmt: skip
"""(interrupt of the ISA bus, line of the I/O APIC, its polarity and trigger)."""


def tables(base: int, apic_base: int, ioapic_base: int) -> bytes:
    """Bytes to store at ``base``: RSDP first, then FACS, DSDT, MADT, FADT, MCFG, XSDT, each on a 64-byte border."""
    place = base + 64
    facs_addr, place = place, place + 64
    facs = struct.pack("<4sIIIIIQB31x", b"FACS", 64, 0, 0, 0, 0, 0, 2)
    dsdt, dsdt_addr = _table(b"DSDT", 2, _pci_host() + _owned()), place
    place += (len(dsdt) + 63) & ~63
    madt_body = struct.pack("<II", apic_base, _PC_COMPATIBLE)
    madt_body += struct.pack("<BBBBI", 0, 8, 0, 0, 1)  # processor 0, APIC id 0, enabled
    madt_body += struct.pack("<BBBBII", 1, 12, 0, 0, ioapic_base, 0)
    for source, line, flags in _OVERRIDES:
        madt_body += struct.pack("<BBBBIH", 2, 10, 0, source, line, flags)
    madt, madt_addr = _table(b"APIC", 3, madt_body), place
    place += (len(madt) + 63) & ~63
    fadt, fadt_addr = _fadt(facs_addr, dsdt_addr), place
    place += (len(fadt) + 63) & ~63
    mcfg_body = struct.pack("<8xQHBB4x", pci_bus.ECAM_BASE, 0, 0, pci_bus.BUSES - 1)
    mcfg, mcfg_addr = _table(b"MCFG", 1, mcfg_body), place
    place += (len(mcfg) + 63) & ~63
    xsdt = _table(b"XSDT", 1, struct.pack("<3Q", fadt_addr, madt_addr, mcfg_addr))
    image = bytearray(place + len(xsdt) - base)
    placed = ((facs_addr, facs), (dsdt_addr, dsdt), (madt_addr, madt), (fadt_addr, fadt), (mcfg_addr, mcfg))
    for address, data in (*placed, (place, xsdt)):
        image[address - base : address - base + len(data)] = data
    image[:36] = _root_pointer(place)
    return bytes(image)


def _pci_host() -> bytes:
    """The host bridge: what it passes on, where interrupts of its slots come in, and that the kernel may control all
    that it asks for."""
    port, window = pci_bus.ADDRESS_PORT, pci_bus.WINDOW_BASE
    passed_on = aml.resources(
        aml.buses(0, pci_bus.BUSES - 1),
        aml.ports(port, 8),
        aml.port_window(0, port - 1),
        aml.port_window(port + 8, 0xFFFF),
        aml.memory_window(0xA0000, 0xBFFFF),
        aml.memory_window(window, pci_bus.WINDOW_END - 1),
    )
    routes = [
        aml.package(*map(aml.integer, (slot << 16 | 0xFFFF, pin - 1, 0, pci_bus.line_of(slot, pin))))
        for slot in range(32)
        for pin in (1, 2, 3, 4)
    ]
    body = aml.name(b"_HID", aml.eisa_id("PNP0A08")) + aml.name(b"_CID", aml.eisa_id("PNP0A03"))
    body += aml.name(b"_UID", aml.integer(0)) + aml.name(b"_BBN", aml.integer(0))
    body += aml.name(b"_CRS", passed_on) + aml.name(b"_PRT", aml.package(*routes))
    body += aml.method(b"_OSC", 4, aml.give_back(aml.ARGUMENT_3))
    return aml.scope(b"_SB_", aml.device(b"PCI0", body))


def _owned() -> bytes:
    """Addresses that no driver may take: configuration space."""
    body = aml.name(b"_HID", aml.eisa_id("PNP0C01"))
    body += aml.name(b"_CRS", aml.resources(aml.memory(pci_bus.ECAM_BASE, pci_bus.ECAM_SIZE)))
    return aml.scope(b"_SB_", aml.device(b"DRAC", body))


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    header = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, _OEM, b"KOBOXPC ", 1, b"KBX ", 1)
    data = bytearray(header + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def _fadt(facs_addr: int, dsdt_addr: int) -> bytes:
    """Blocks of registers twice: as ports, and as generic addresses."""
    table = bytearray(276)
    struct.pack_into("<II", table, 36, facs_addr, dsdt_addr)
    struct.pack_into("<H", table, 46, isa.POWER_INTERRUPT)
    struct.pack_into("<I", table, 56, isa.POWER_EVENT)
    struct.pack_into("<I", table, 64, isa.POWER_CONTROL)
    struct.pack_into("<II", table, 76, isa.POWER_TIMER, isa.GENERAL_EVENT)
    struct.pack_into("<6B", table, 88, 4, 2, 0, 4, isa.GENERAL_EVENT_SIZE, 0)
    struct.pack_into("<HH", table, 96, 0xFFF, 0xFFF)  # no C2, no C3
    table[108] = 0x32  # where the clock keeps the century
    struct.pack_into("<I", table, 112, _FLAGS)
    struct.pack_into("<Q", table, 140, dsdt_addr)
    blocks = ((148, isa.POWER_EVENT, 4), (172, isa.POWER_CONTROL, 2), (208, isa.POWER_TIMER, 4),
              (220, isa.GENERAL_EVENT, isa.GENERAL_EVENT_SIZE))  # fmt: skip
    for at, port, size in blocks:
        struct.pack_into("<BBBBQ", table, at, 1, size * 8, 0, 0, port)
    return _table(b"FACP", 6, bytes(table[36:]))


def _root_pointer(xsdt_addr: int) -> bytes:
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM, 2, 0, 36, xsdt_addr, 0))
    data[8] = -sum(data[:20]) & 0xFF
    data[32] = -sum(data) & 0xFF
    return bytes(data)
