"""A keyboard, by the boot protocol of human interface devices. Device Class Definition for HID 1.11; HID Usage Tables
1.12, chapter 10.
"""

from __future__ import annotations

import struct

from kobox.devices.usb_device import IN, INTERRUPT, Endpoint, Interface, Setup, Speed, UsbDevice

_REPORT = bytes.fromhex(
    "05010906a101050719e029e71500250175019508810295017508810195057501050819012905910295017503910195067508150025650507"
    "190029658100c0"
)
"""Eight modifiers as bits, a byte that means nothing, six keys; five lights the other way."""
_HID = struct.pack("<BBHBBBH", 9, 0x21, 0x0111, 0, 1, 0x22, len(_REPORT))
_GET_REPORT, _SET_REPORT, _SET_IDLE, _SET_PROTOCOL = 1, 9, 10, 11
_GET_DESCRIPTOR, _REPORT_DESCRIPTOR = 6, 0x22
_NOTHING = bytes(8)
_KEYS = {chr(0x61 + at): 4 + at for at in range(26)} | {str(at): 29 + at for at in range(1, 10)}
_KEYS |= {"0": 39, "\n": 40, "\x1b": 41, "\b": 42, "\t": 43, " ": 44, "-": 45, "=": 46, ".": 55, ",": 54, "/": 56}
_SHIFT = 2


class UsbKeyboard(UsbDevice):
    """``/dev/input/event…``. ``lights``: what the host has switched on (bit 0 Num, 1 Caps, 2 Scroll)."""

    product, strings, speed = 0x0DD2, ("kobox", "USB keyboard", "1"), Speed.FULL
    interfaces = (Interface((3, 1, 1), (Endpoint(1 | IN, INTERRUPT, 8, 10),), _HID),)

    def __init__(self) -> None:
        super().__init__()
        self.lights = 0
        self.reports: list[bytes] = []

    def type(self, text: str) -> None:
        """Press and release a key for each letter, digit or blank; ``KeyError`` for what has no key here."""
        for letter in text:
            modifiers = _SHIFT if letter.isupper() else 0
            self.reports += [bytes([modifiers, 0, _KEYS[letter.lower()], 0, 0, 0, 0, 0]), _NOTHING]
        self.ready(1)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """See ``UsbDevice``."""
        if setup.request == _GET_DESCRIPTOR and setup.value >> 8 == _REPORT_DESCRIPTOR:
            return _REPORT
        if setup.request == _SET_REPORT and data:
            self.lights = data[0]
        return {_GET_REPORT: _NOTHING, _SET_REPORT: b"", _SET_IDLE: b"", _SET_PROTOCOL: b""}.get(setup.request)

    def read(self, endpoint: int, size: int) -> bytes | None:
        """See ``UsbDevice``."""
        return self.reports.pop(0)[:size] if self.reports else None
