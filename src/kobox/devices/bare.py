"""A PCI or USB device of which only the numbers are real: enough for a kernel to choose its driver, and for the driver
to find that nothing works.
"""

from __future__ import annotations

import re

from kobox.devices.usb_device import Interface, UsbDevice
from kobox.errors import UsageError
from kobox.machine.pci_function import Bar, Identity, PciFunction

_SHORT = re.compile(
    r"pci:([0-9a-f]{4}):([0-9a-f]{4})(?::([0-9a-f]{4}):([0-9a-f]{4}))?(?::([0-9a-f]{6}))?", re.IGNORECASE
)
_USB = re.compile(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?::([0-9a-f]{6}))?", re.IGNORECASE)
_ALIAS = re.compile(
    r"pci:v([0-9A-F]{8}|\*)d([0-9A-F]{8}|\*)sv([0-9A-F]{8}|\*)sd([0-9A-F]{8}|\*)"
    r"bc([0-9A-F]{2}|\*)sc([0-9A-F]{2}|\*)i([0-9A-F]{2}|\*)\*?"
)
_ANY_VENDOR, _ANY_DEVICE, _ANY_CLASS = 0x1234, 0x0001, (0xFF, 0x00, 0x00)
_BARS = {0: Bar(8 << 20), 1: Bar(256, io=True), 2: Bar(8 << 20), 5: Bar(1 << 20)}
"""Large enough that no driver reads past the end of what it has mapped because there is too little."""


class Bare(PciFunction):
    """Answers 0 to every read of its registers (``answer`` says otherwise), forgets every write, and has every kind of
    interrupt that it never raises."""

    def __init__(self, identity: Identity, answer: int = 0) -> None:
        super().__init__(identity, _BARS, pin=1, msi=True, msix=8, msix_bar=4)
        self.answer = answer

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        """See ``PciFunction``."""
        return self.answer


def bare_usb(text: str) -> UsbDevice:
    """``usb:VVVV:PPPP``, with ``:CCSSPP`` for class, subclass and protocol of its one interface if need be (a vendor's
    own without). It refuses every request that is not everybody's."""
    found = _USB.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no USB device", hint="usb:046d:c52b, or with a class: usb:046d:c52b:030101")
    numbers, codes = (int(found[1], 16), int(found[2], 16)), int(found[3] or "ff0000", 16)

    class BareUsb(UsbDevice):
        vendor, product = numbers
        interfaces = (Interface((codes >> 16, codes >> 8 & 0xFF, codes & 0xFF), ()),)

    return BareUsb()


def identity_of(text: str) -> Identity:
    """``pci:VVVV:DDDD``, with ``:SSSS:SSSS`` (subsystem) and ``:CCCCCC`` (class) if need be, or a whole modalias; where
    that has a ``*``, a number of our own."""
    short = _SHORT.fullmatch(text)
    if short is not None:
        numbers = [int(group, 16) if group else 0 for group in short.groups()]
        if short[5] is None:
            numbers[4] = 0xFF0000
    else:
        alias = _ALIAS.fullmatch(text)
        if alias is None:
            raise UsageError(f"{text!r} is no PCI device", hint="pci:8086:1533, or a modalias: pci:v00008086d…")
        any_values = (_ANY_VENDOR, _ANY_DEVICE, _ANY_VENDOR, _ANY_DEVICE, *_ANY_CLASS)
        values = [
            own if group == "*" else int(group, 16) for group, own in zip(alias.groups(), any_values, strict=True)
        ]
        numbers = [*values[:4], values[4] << 16 | values[5] << 8 | values[6]]
    vendor, device, subsystem_vendor, subsystem, class_code = numbers
    if max(numbers[:4]) > 0xFFFF:
        raise UsageError(f"{text!r}: numbers of PCI have 16 bits")
    return Identity(vendor, device, class_code, subsystem_vendor, subsystem)
