"""What a boot loader and firmware leave in memory for the kernel: boot parameters, memory map, command line, ACPI
and SMBIOS tables.

Layout of the parameters: the boot protocol (Documentation/x86/boot.rst and zero-page.rst), fixed for all kernels.
"""

from __future__ import annotations

import hashlib
import struct

from kobox.bringup import acpi, efi, smbios
from kobox.efi.variables import Variables
from kobox.machine.cpu_model import Board
from kobox.machine.memory import PAGE_SIZE, PhysicalMemory
from kobox.machine.pc import APIC_BASE, IOAPIC_BASE
from kobox.machine.pci_bus import ECAM_BASE, ECAM_SIZE

PARAMS_ADDR = 0x90000
_COMMAND_LINE_ADDR, _SETUP_DATA_ADDR = 0x91000, 0x92000
_LOW_END, _HIGH_START = 0x9F000, 0x100000
_USABLE, _RESERVED = 1, 2
_PROTOCOL_VERSION = 0x20F
_SETUP_RNG_SEED = 9


def place(
    memory: PhysicalMemory,
    ram_size: int,
    command_line: str,
    board: Board,
    seed: int | None = None,
    variables: Variables | None = None,
) -> None:
    """Store everything; ``ram_size`` is what the memory map tells the kernel it has, ``seed`` what its random numbers
    begin with (None: nothing is handed over). ``variables`` are those of a machine with UEFI (None: it has a BIOS)."""
    text = command_line.encode() + b"\0"
    if len(text) > PAGE_SIZE // 2:
        raise ValueError(f"kernel command line of {len(text)} bytes, at most {PAGE_SIZE // 2}")
    memory.write(_COMMAND_LINE_ADDR, text)
    mok = efi.mok_table(variables) if variables is not None else b""
    setup_data = _SETUP_DATA_ADDR if seed is not None else 0
    parameters = bytearray(_parameters(ram_size - len(mok), setup_data, variables is not None))
    if variables is not None:
        parameters[0x1C0:0x1E0] = efi.place(memory, efi.memory_map(_LOW_END, _HIGH_START, ram_size, len(mok)), mok)
        parameters[0x1EC] = efi.secure_boot_mode(variables)
    memory.write(PARAMS_ADDR, bytes(parameters))
    if seed is not None:
        data = hashlib.sha256(f"kobox seed {seed}".encode()).digest()
        memory.write(_SETUP_DATA_ADDR, struct.pack("<QII", 0, _SETUP_RNG_SEED, len(data)) + data)
    memory.write(acpi.ROOT_POINTER_ADDR, acpi.tables(acpi.ROOT_POINTER_ADDR, APIC_BASE, IOAPIC_BASE))
    memory.write(smbios.ENTRY_POINT_ADDR, smbios.tables(smbios.ENTRY_POINT_ADDR, board))


def _parameters(ram_size: int, setup_data: int, has_efi: bool) -> bytes:
    page = bytearray(PAGE_SIZE)
    struct.pack_into("<Q", page, 0x70, acpi.ROOT_POINTER_ADDR)
    memory_map = [
        *_low_memory(has_efi),
        (acpi.ROOT_POINTER_ADDR, _HIGH_START - acpi.ROOT_POINTER_ADDR, _RESERVED),
        (_HIGH_START, ram_size - _HIGH_START, _USABLE),
        (ECAM_BASE, ECAM_SIZE, _RESERVED),
    ]
    page[0x1E8] = len(memory_map)
    for index, (start, length, kind) in enumerate(memory_map):
        struct.pack_into("<QQI", page, 0x2D0 + index * 20, start, length, kind)
    struct.pack_into("<H", page, 0x1FA, 0xFFFF)  # video mode: normal
    struct.pack_into("<H", page, 0x206, _PROTOCOL_VERSION)
    page[0x210], page[0x211] = 0xFF, 1  # unknown loader, kernel loaded high
    struct.pack_into("<II", page, 0x228, _COMMAND_LINE_ADDR, 0)
    struct.pack_into("<I", page, 0x238, PAGE_SIZE // 2)
    struct.pack_into("<Q", page, 0x250, setup_data)
    return bytes(page)


def _low_memory(has_efi: bool) -> list[tuple[int, int, int]]:
    if not has_efi:
        return [(0, _LOW_END, _USABLE)]
    return [
        (0, efi.START, _USABLE),
        (efi.START, efi.END - efi.START, _RESERVED),
        (efi.END, _LOW_END - efi.END, _USABLE),
    ]
