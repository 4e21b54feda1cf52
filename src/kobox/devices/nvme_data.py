"""What an NVMe controller says of itself: the data structures of Identify and of log pages.

NVM Express Base Specification 1.4, 5.15 (Identify) and 5.14 (Get Log Page).
"""

from __future__ import annotations

import struct

PAGE = 4096
VERSION = 0x0001_0400
MOST_TRANSFERRED = 5
"""Of a command: 2 to this power pages."""
SECTOR_SHIFT = 9
_QUEUE_ENTRY_SIZES, _COMPLETION_SIZES = 0x66, 0x44
_DISCARD, _WRITE_ZEROES = 1 << 2, 1 << 3
_HAS_CACHE = 1
_KELVIN = 300
ERRORS, HEALTH, FIRMWARE = 1, 2, 3


def controller(vendor: int, serial: str, model: str, discards: bool) -> bytes:
    """Identify, CNS 1."""
    data = bytearray(PAGE)
    struct.pack_into("<HH20s40s8s", data, 0, vendor, vendor, _text(serial, 20), _text(model, 40), _text("1", 8))
    data[77] = MOST_TRANSFERRED
    struct.pack_into("<HI", data, 78, 0, VERSION)
    data[259], data[262] = 3, 0  # four events may be waited for; one entry of the error log
    struct.pack_into("<HH", data, 266, 343, 353)  # warning and critical temperature
    data[512], data[513] = _QUEUE_ENTRY_SIZES, _COMPLETION_SIZES
    struct.pack_into("<IH", data, 516, 1, _WRITE_ZEROES | (_DISCARD if discards else 0))
    data[525] = _HAS_CACHE
    name = f"nqn.2014-08.org.nvmexpress:kobox:{serial}".encode()
    data[768 : 768 + len(name)] = name
    struct.pack_into("<H", data, 2048, 2500)  # power state 0: 25 W
    return bytes(data)


def namespace(sectors: int, identifier: bytes) -> bytes:
    """Identify, CNS 0: one format, sectors of 512 bytes. ``identifier``: 8 bytes (EUI-64)."""
    data = bytearray(PAGE)
    struct.pack_into("<QQQ", data, 0, sectors, sectors, sectors)
    data[120:128] = identifier
    struct.pack_into("<I", data, 128, SECTOR_SHIFT << 16)
    return bytes(data)


def active_namespaces(above: int) -> bytes:
    """Identify, CNS 2: the ids behind one; there is only 1."""
    return struct.pack("<I", 1 if above < 1 else 0).ljust(PAGE, b"\0")


def descriptors(identifier: bytes) -> bytes:
    """Identify, CNS 3: names of a namespace."""
    return (struct.pack("<BBH", 1, len(identifier), 0) + identifier).ljust(PAGE, b"\0")


def log_page(number: int) -> bytes | None:
    """One page; None for one that there is not."""
    if number not in (ERRORS, HEALTH, FIRMWARE):
        return None
    data = bytearray(PAGE)
    if number == HEALTH:
        struct.pack_into("<BHBB", data, 0, 0, _KELVIN, 100, 10)
    elif number == FIRMWARE:
        data[0], data[8:16] = 1, _text("1", 8)
    return bytes(data)


def _text(text: str, size: int) -> bytes:
    """Padded with spaces, as all of its texts are."""
    return text.encode("ascii", "replace")[:size].ljust(size)
