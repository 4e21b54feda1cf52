"""The distribution's SMBus, hwmon and EEPROM drivers on chips in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.smbus import Chip, Lm75, SmbusHost
from kobox.errors import Errno

pytestmark = pytest.mark.image


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def booted(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    root: Path = request.getfixturevalue(request.param)
    with kobox.boot(root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    assert booted.rewind()
    return booted


def add_chip(kernel: Kernel, host: SmbusHost, module: str, name: str, address: int) -> str:
    """The folder of a chip that the kernel was told of, on the bus of that host."""
    plugged = kernel.plug(host)
    assert plugged.drivers[:1] == ("i801_smbus",)
    (bus,) = (entry.name for entry in kernel.ls(plugged.folder) if entry.name.startswith("i2c-"))
    kernel.modprobe(module)
    kernel.write(f"/sys/bus/i2c/devices/{bus}/new_device", f"{name} {address:#x}".encode())
    return f"/sys/bus/i2c/devices/{bus.removeprefix('i2c-')}-{address:04x}"


def hwmon(kernel: Kernel, folder: str) -> str:
    (entry,) = kernel.ls(f"{folder}/hwmon")
    return f"{folder}/hwmon/{entry.name}"


def test_hwmon_reads_a_thermometer(kernel: Kernel) -> None:
    thermometer = Lm75(celsius=21.5)
    sensor = hwmon(kernel, add_chip(kernel, SmbusHost({0x48: thermometer}), "lm75", "lm75", 0x48))
    assert kernel.read(f"{sensor}/name") == b"lm75\n"
    assert kernel.read(f"{sensor}/temp1_input") == b"21500\n"
    thermometer.celsius = -40
    kernel.sleep(2)
    assert kernel.read(f"{sensor}/temp1_input") == b"-40000\n"
    kernel.write(f"{sensor}/temp1_max", b"60000")
    assert thermometer.limit == 60


def test_a_chip_that_is_not_there_does_not_answer(kernel: Kernel) -> None:
    host = SmbusHost({0x48: Lm75()})
    folder = add_chip(kernel, host, "lm75", "lm75", 0x48)
    sensor = hwmon(kernel, folder)
    host.chips.clear()
    kernel.sleep(2)
    with pytest.raises(Errno, match="ENXIO"):
        kernel.read(f"{sensor}/temp1_input")


def test_an_eeprom_is_read_byte_by_byte(kernel: Kernel) -> None:
    content = bytes(range(100, 228)) * 2
    chip = Chip({at: bytes([value]) for at, value in enumerate(content)})
    folder = add_chip(kernel, SmbusHost({0x50: chip}), "at24", "24c02", 0x50)
    assert kernel.read(f"{folder}/eeprom") == content


def test_what_a_chip_holds_belongs_to_the_state(kernel: Kernel) -> None:
    thermometer = Lm75(celsius=20)
    sensor = hwmon(kernel, add_chip(kernel, SmbusHost({0x48: thermometer}), "lm75", "lm75", 0x48))
    kernel.push()
    for _ in range(2):
        thermometer.celsius = 99
        kernel.write(f"{sensor}/temp1_max", b"60000")
        kernel.reset()
        assert (thermometer.celsius, thermometer.limit) == (20, 80)
        assert kernel.read(f"{sensor}/temp1_max") == b"80000\n"
    kernel.pop()
