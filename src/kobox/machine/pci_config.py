"""Configuration space of one PCI function: bytes, which of their bits software may write, and the list of capabilities.

PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification 5.0, chapter 7. It knows nothing of what the
bits do: that is ``pci_function``.
"""

from __future__ import annotations

CONFIG_SIZE, EXPRESS_CONFIG_SIZE = 256, 4096
VENDOR, DEVICE, COMMAND, STATUS, REVISION, CLASS, CACHE_LINE, HEADER_TYPE = 0, 2, 4, 6, 8, 9, 0xC, 0xE
BAR_0, SUBSYSTEM_VENDOR, SUBSYSTEM, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = 0x10, 0x2C, 0x2E, 0x34, 0x3C, 0x3D
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_NO_INTX = 1, 2, 4, 1 << 10
_COMMAND_BITS = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX | 1 << 6 | 1 << 8
STATUS_INTERRUPT, STATUS_CAPABILITIES = 1 << 3, 1 << 4
_STATUS_ERRORS = 0xF900
"""Written as one, they become zero."""
_FIRST_CAPABILITY = 0x40


class ConfigSpace:
    """``size`` bytes. ``writable`` and ``cleared`` are masks of bits that a write sets as given, or clears where it
    writes one."""

    __slots__ = ("_last_link", "_next_free", "cleared", "data", "writable")

    def __init__(self, size: int = CONFIG_SIZE) -> None:
        self.data, self.writable, self.cleared = bytearray(size), bytearray(size), bytearray(size)
        self._last_link, self._next_free = CAPABILITIES, _FIRST_CAPABILITY
        self.allow(COMMAND, 2, _COMMAND_BITS)
        self.allow(CACHE_LINE, 2, 0xFFFF)
        self.allow(INTERRUPT_LINE, 1, 0xFF)
        self.cleared[STATUS : STATUS + 2] = _STATUS_ERRORS.to_bytes(2, "little")

    def get(self, offset: int, size: int) -> int:
        """A little-endian number; bits of space that is not there read as zero."""
        return int.from_bytes(self.data[offset : offset + size], "little")

    def put(self, offset: int, size: int, value: int) -> None:
        """Store a number whatever software may write there."""
        self.data[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def allow(self, offset: int, size: int, bits: int) -> None:
        """Let software write these bits of the number at ``offset``."""
        self.writable[offset : offset + size] = bits.to_bytes(size, "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """A write by software."""
        for at in range(offset, min(offset + size, len(self.data))):
            byte, mask = value >> 8 * (at - offset) & 0xFF, self.writable[at]
            self.data[at] = (self.data[at] & ~mask | byte & mask) & ~(byte & self.cleared[at])

    def add_capability(self, number: int, body: bytes) -> int:
        """Append a capability to the list; ``body`` is what follows its number and link. Returns where it begins."""
        at, end = self._next_free, self._next_free + 2 + len(body)
        if end > CONFIG_SIZE:
            raise ValueError(f"capability {number:#x} of {len(body)} bytes: no room in configuration space")
        self.data[at] = number
        self.data[at + 2 : end] = body
        self.data[self._last_link] = at
        self.put(STATUS, 2, self.get(STATUS, 2) | STATUS_CAPABILITIES)
        self._last_link, self._next_free = at + 1, (end + 3) & ~3
        return at
