"""The firmware's tables: the smallest ACPI set that describes this board (one CPU, local APIC, I/O APIC, no fixed
hardware).

ACPI 6.4, chapter 5. Addresses are physical; the root pointer lies where a BIOS would put it.
"""

from __future__ import annotations

import struct

ROOT_POINTER_ADDR = 0xF0000
_OEM = b"KOBOX "
_HARDWARE_REDUCED = 1 << 20


def tables(base: int, apic_base: int, ioapic_base: int) -> bytes:
    """Bytes to store at ``base``: RSDP first, then XSDT, FADT, DSDT, MADT, each on a 64-byte border."""
    place = base + 64
    dsdt_addr, place = place, place + 64
    dsdt = _table(b"DSDT", 2, b"")
    madt_body = struct.pack("<II", apic_base, 0)
    madt_body += struct.pack("<BBBBI", 0, 8, 0, 0, 1)  # processor 0, APIC id 0, enabled
    madt_body += struct.pack("<BBBBII", 1, 12, 0, 0, ioapic_base, 0)
    madt, madt_addr = _table(b"APIC", 3, madt_body), place
    place += (len(madt) + 63) & ~63
    fadt, fadt_addr = _fadt(dsdt_addr), place
    place += (len(fadt) + 63) & ~63
    xsdt = _table(b"XSDT", 1, struct.pack("<2Q", fadt_addr, madt_addr))
    image = bytearray(place + len(xsdt) - base)
    for address, data in ((dsdt_addr, dsdt), (madt_addr, madt), (fadt_addr, fadt), (place, xsdt)):
        image[address - base : address - base + len(data)] = data
    image[:36] = _root_pointer(place)
    return bytes(image)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    header = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, _OEM, b"KOBOXPC ", 1, b"KBX ", 1)
    data = bytearray(header + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def _fadt(dsdt_addr: int) -> bytes:
    body = bytearray(276 - 36)
    struct.pack_into("<I", body, 40 - 36, dsdt_addr)
    struct.pack_into("<I", body, 112 - 36, _HARDWARE_REDUCED)
    struct.pack_into("<Q", body, 140 - 36, dsdt_addr)
    return _table(b"FACP", 6, bytes(body))


def _root_pointer(xsdt_addr: int) -> bytes:
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM, 2, 0, 36, xsdt_addr, 0))
    data[8] = -sum(data[:20]) & 0xFF
    data[32] = -sum(data) & 0xFF
    return bytes(data)
