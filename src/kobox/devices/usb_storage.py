"""A USB stick: mass storage by bulk-only transport, SCSI commands, in front of a backing.

Universal Serial Bus Mass Storage Class, Bulk-Only Transport 1.0; SCSI Block Commands 3 and Primary Commands 4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from kobox.devices.backing import SECTOR, Backing, Undo
from kobox.devices.usb_device import BULK, IN, Endpoint, Interface, Setup, UsbDevice

_COMMAND, _STATUS = struct.Struct("<4sIIBBB16s"), struct.Struct("<4sIIB")
_COMMAND_SIGNATURE, _STATUS_SIGNATURE = b"USBC", b"USBS"
_PASSED, _FAILED, _PHASE_ERROR = 0, 1, 2
_RESET, _GET_MAX_LUN = 0xFF, 0xFE
_NO_SENSE, _MEDIUM_ERROR, _ILLEGAL, _PROTECTED = (0, 0), (3, 0x11), (5, 0x20), (7, 0x27)
_OUT_OF_RANGE = (5, 0x21)
_CACHE_PAGE = bytes([8, 18, 4]) + bytes(17)
_MOST_WRITTEN = 4 << 20


class UsbStorage(UsbDevice):
    """``/dev/sda`` and so on. ``backing``: see ``backing.Backing``."""

    product, strings = 0x0DD1, ("kobox", "USB stick", "0123456789AB")
    interfaces = (Interface((8, 6, 0x50), (Endpoint(1 | IN, BULK, 512), Endpoint(2, BULK, 512))),)
    kept_outside = frozenset({"backing"})

    def __init__(self, backing: Backing, *, read_only: bool = False) -> None:
        super().__init__()
        self.backing, self.read_only = Undo(backing), read_only
        self._begin()

    def _begin(self) -> None:
        self.answer: bytearray = bytearray()
        """What the host has yet to read: data."""
        self.status: bytes = b""
        """And then this."""
        self.expected = 0
        """Bytes that the host has yet to send."""
        self.received = bytearray()
        self.target = 0
        self.tag = 0
        self.sense = _NO_SENSE

    def reset(self) -> None:
        """See ``UsbDevice``."""
        super().reset()
        self._begin()

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """See ``UsbDevice``."""
        if setup.request == _GET_MAX_LUN:
            return b"\0"
        if setup.request == _RESET:
            self._begin()
            return b""
        return None

    # -- transport ------------------------------------------------------------------------------------------------

    def read(self, endpoint: int, size: int) -> bytes | None:
        """Data, then the status; a transfer of data ends where the data does."""
        if self.answer:
            piece = bytes(self.answer[:size])
            del self.answer[:size]
            return piece
        if self.status:
            status, self.status = self.status, b""
            return status
        return None

    def write(self, endpoint: int, data: bytes) -> bool:
        """A command, or what belongs to one."""
        if self.expected:
            self.received += data
            self.expected -= len(data)
            if self.expected <= 0:
                self._store()
            return True
        if len(data) != _COMMAND.size or data[:4] != _COMMAND_SIGNATURE:
            return False
        _, self.tag, length, flags, _, _, command = _COMMAND.unpack(data)
        self._do(command, length, bool(flags & IN))
        return True

    def _do(self, command: bytes, length: int, to_host: bool) -> None:
        handler = _HANDLERS.get(command[0])
        try:
            answer = self._refuse(_ILLEGAL) if handler is None else handler(self, command)
        except OSError:
            answer = self._refuse(_MEDIUM_ERROR)
        if answer is None:
            # not done; what the host insists on sending or reading is empty
            self._finish(_FAILED, length)
            self.expected, self.target = (0 if to_host else length), -1
            self.answer = bytearray(length if to_host else 0)
        elif self.expected:
            self.received.clear()
        else:
            self.sense = _NO_SENSE if command[0] != 3 else self.sense
            self.answer = bytearray(answer[:length])
            self._finish(_PASSED, length - len(self.answer))
            if to_host and len(self.answer) < length:
                self.answer = self.answer or bytearray()

    def _store(self) -> None:
        if self.target < 0:
            self.received.clear()
            self.ready(1)
            return
        status = _PASSED
        try:
            self.backing.write_from(self.target, [memoryview(bytes(self.received))])
        except OSError:
            self.sense, status = _MEDIUM_ERROR, _FAILED
        self.received.clear()
        self._finish(status, 0)

    def _finish(self, status: int, left: int) -> None:
        self.status = _STATUS.pack(_STATUS_SIGNATURE, self.tag, left, status)
        self.ready(1)

    # -- commands -------------------------------------------------------------------------------------------------

    def _refuse(self, sense: tuple[int, int]) -> bytes | None:
        self.sense = sense
        return None

    def _nothing(self, command: bytes) -> bytes | None:
        return b""

    def _request_sense(self, command: bytes) -> bytes | None:
        (key, code), self.sense = self.sense, _NO_SENSE
        return struct.pack("<BBBIB4xB5x", 0x70, 0, key, 0, 10, code)

    def _inquiry(self, command: bytes) -> bytes | None:
        if command[1] & 1:
            return self._refuse((5, 0x24))
        return struct.pack("<BBBBBxxx8s16s4s", 0, 0x80, 6, 2, 31, b"kobox".ljust(8), b"USB stick".ljust(16), b"1.0 ")

    def _mode_sense(self, command: bytes) -> bytes | None:
        """All pages there are: that of the cache, so that the host has it written out (``_flush``)."""
        page = _CACHE_PAGE if command[2] & 0x3F in (8, 0x3F) else b""
        return bytes([3 + len(page), 0, 0x80 if self.read_only else 0, 0]) + page

    def _capacity(self, command: bytes) -> bytes | None:
        return struct.pack(">II", min(self.backing.size // SECTOR - 1, 0xFFFF_FFFF), SECTOR)

    def _capacity_long(self, command: bytes) -> bytes | None:
        if command[1] & 31 != 0x10:
            return self._refuse((5, 0x24))
        return struct.pack(">QI20x", self.backing.size // SECTOR - 1, SECTOR)

    def _read(self, command: bytes) -> bytes | None:
        offset, size = _range(command)
        if offset + size > self.backing.size // SECTOR * SECTOR:
            return self._refuse(_OUT_OF_RANGE)
        data = bytearray(size)
        self.backing.read_into(offset, [memoryview(data)])
        return bytes(data)

    def _write(self, command: bytes) -> bytes | None:
        offset, size = _range(command)
        if self.read_only:
            return self._refuse(_PROTECTED)
        if offset + size > self.backing.size // SECTOR * SECTOR or size > _MOST_WRITTEN:
            return self._refuse(_OUT_OF_RANGE)
        self.target, self.expected = offset, size
        return b""

    def _flush(self, command: bytes) -> bytes | None:
        self.backing.flush()
        return b""

    # -- resets of the kernel -------------------------------------------------------------------------------------

    def capture(self) -> Any:
        """The contents belong to the state."""
        return super().capture(), self.backing.mark()

    def restore(self, state: Any) -> None:
        """As at ``capture``."""
        own, kept = state
        super().restore(own)
        self.backing.back_to(kept)


def _range(command: bytes) -> tuple[int, int]:
    """Of a READ or WRITE with 10 or 16 bytes: where, and how much."""
    sector, count = struct.unpack_from(">IxH" if command[0] < 0x80 else ">QI", command, 2)
    return sector * SECTOR, count * SECTOR


_HANDLERS: dict[int, Callable[[UsbStorage, bytes], bytes | None]] = {
    0x00: UsbStorage._nothing, 0x03: UsbStorage._request_sense, 0x12: UsbStorage._inquiry,
    0x1A: UsbStorage._mode_sense, 0x1B: UsbStorage._nothing, 0x1E: UsbStorage._nothing,
    0x25: UsbStorage._capacity, 0x28: UsbStorage._read, 0x2A: UsbStorage._write, 0x2F: UsbStorage._nothing,
    0x35: UsbStorage._flush, 0x88: UsbStorage._read, 0x8A: UsbStorage._write, 0x9E: UsbStorage._capacity_long,
}  # fmt: skip
