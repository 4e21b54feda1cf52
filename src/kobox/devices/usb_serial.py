"""A serial adapter by the communications class (CDC ACM). Universal Serial Bus Class Definitions for Communications
Devices 1.2, and its subclass for PSTN devices.
"""

from __future__ import annotations

import struct

from kobox.devices.usb_device import BULK, IN, INTERRUPT, Endpoint, Interface, Setup, UsbDevice

_HEADER, _CALLS = b"\x05\x24\x00\x10\x01", b"\x05\x24\x01\x00\x01"
_ABSTRACT, _UNION = b"\x04\x24\x02\x02", b"\x05\x24\x06\x00\x01"
_SET_LINE, _GET_LINE, _SET_CONTROL = 0x20, 0x21, 0x22


class UsbSerial(UsbDevice):
    """``/dev/ttyACM0``. ``received``: what the guest has sent; ``baud`` and ``lines`` (bit 0 DTR, 1 RTS) as it has set
    them."""

    product, strings, codes = 0x0DD3, ("kobox", "USB serial adapter", "1"), (2, 0, 0)
    interfaces = (
        Interface((2, 2, 1), (Endpoint(1 | IN, INTERRUPT, 16, 9),), _HEADER + _CALLS + _ABSTRACT + _UNION),
        Interface((10, 0, 0), (Endpoint(2 | IN, BULK, 512), Endpoint(3, BULK, 512))),
    )

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.line = struct.pack("<IBBB", 9600, 0, 0, 8)
        self.lines = 0
        self.waiting = b""

    @property
    def baud(self) -> int:
        """Bits a second."""
        return int.from_bytes(self.line[:4], "little")

    def send(self, data: bytes) -> None:
        """The other end of the line sends."""
        self.waiting += data
        self.ready(2)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """See ``UsbDevice``."""
        if setup.request == _SET_LINE and len(data) == len(self.line):
            self.line = data
        elif setup.request == _SET_CONTROL:
            self.lines = setup.value
        elif setup.request == _GET_LINE:
            return self.line
        else:
            return None
        return b""

    def read(self, endpoint: int, size: int) -> bytes | None:
        """See ``UsbDevice``."""
        if endpoint != 2 or not self.waiting:
            return None
        piece, self.waiting = self.waiting[:size], self.waiting[size:]
        return piece

    def write(self, endpoint: int, data: bytes) -> bool:
        """See ``UsbDevice``."""
        self.received += data
        return True
