"""Devices by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.devices.bare import identity_of
from kobox.devices.catalogue import MODELS, model_of
from kobox.devices.usb_device import UsbDevice
from kobox.errors import UsageError
from kobox.machine.pci_function import Identity, PciFunction

OWN = """
from kobox.devices.device import PciDevice
from kobox.machine.pci_function import Bar

class Thermometer(PciDevice):
    vendor, device, class_code = 0x1234, 0x0042, 0x118000
    bars = {0: Bar(16)}

class Picky(Thermometer):
    def __init__(self, degrees):
        super().__init__()
"""


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("pci:8086:1533", Identity(0x8086, 0x1533, 0xFF0000, 0, 0)),
        ("pci:8086:1533:103C:0001", Identity(0x8086, 0x1533, 0xFF0000, 0x103C, 1)),
        ("pci:1b36:0010:010802", Identity(0x1B36, 0x10, 0x010802, 0, 0)),
        ("pci:1b36:0010:1af4:1100:010802", Identity(0x1B36, 0x10, 0x010802, 0x1AF4, 0x1100)),
        ("pci:v00008086d00001533sv*sd*bc02sc*i*", Identity(0x8086, 0x1533, 0x020000, 0x1234, 1)),
        ("pci:v*d*sv*sd*bc0Csc03i30*", Identity(0x1234, 1, 0x0C0330, 0x1234, 1)),
        ("pci:v*d*sv*sd*bc0Csc03i30", Identity(0x1234, 1, 0x0C0330, 0x1234, 1)),
    ],
)
def test_numbers_are_read_as_lspci_and_modalias_write_them(text: str, identity: Identity) -> None:
    assert identity_of(text) == identity


@pytest.mark.parametrize("text", ["pci:", "pci:8086", "pci:8086:15333", "pci:v000180860d", "pci:xxxx:1234"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no PCI device"):
        model_of(text)


def test_numbers_of_more_than_sixteen_bits_are_refused() -> None:
    with pytest.raises(UsageError, match="16 bits"):
        model_of("pci:v00018086d00001533sv*sd*bc02sc*i*")


@pytest.mark.parametrize(
    ("text", "numbers", "codes"),
    [("usb:046d:c52b", (0x046D, 0xC52B), (255, 0, 0)), ("usb:046D:C52B:030101", (0x046D, 0xC52B), (3, 1, 1))],
)
def test_numbers_of_usb(text: str, numbers: tuple[int, int], codes: tuple[int, int, int]) -> None:
    device = model_of(text)
    assert isinstance(device, UsbDevice)
    assert (device.vendor, device.product) == numbers
    assert device.interfaces[0].codes == codes
    with pytest.raises(UsageError, match="is no USB device"):
        model_of(text + "0")


def test_each_model_is_made_anew() -> None:
    for name in MODELS:
        assert model_of(name) is not model_of(name)


def test_a_class_in_a_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    thermometer = model_of(f"{file}:Thermometer")
    assert isinstance(thermometer, PciFunction)
    assert thermometer.shape.identity.device == 0x42
    for text, what in (
        (f"{file}:Barometer", r"no device class 'Barometer'; hint: it has: Thermometer, Picky"),
        (f"{file}:PciDevice", "missing 'device'|PciDevice"),
        (f"{file}:Picky", "Picky.*: TypeError: .*degrees"),
        (f"{tmp_path}/none.py:Thermometer", "no such file"),
        (f"disk:{tmp_path}/none", "none: No such file"),
        ("thermometer", "no device 'thermometer'; hint: e1000, edu"),
    ):
        with pytest.raises(UsageError, match=what):
            model_of(text)
    file.write_text("1/0")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        model_of(f"{file}:Thermometer")
