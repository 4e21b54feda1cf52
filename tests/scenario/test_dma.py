"""A device writes over code that the CPU has translated: it is the new code that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.device import PciDevice
from kobox.devices.registers import Register
from kobox.machine.pci_config import BAR_0, COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from kobox.machine.pci_function import Bar
from paths import EXAMPLES

pytestmark = pytest.mark.image

RETURN_42 = bytes.fromhex("b82a000000c3")  # mov eax, 42; ret


class Writer(PciDevice):
    """Writes six bytes to an address in memory when that is written to its register; notes when its time has come."""

    device = 0x0DDD
    bars = {0: Bar(4096)}  # noqa: RUF012
    target = Register(0, 8)

    def __init__(self) -> None:
        self.rang: list[int] = []
        super().__init__()

    @target.on_write
    def _go(self, address: int) -> None:
        self.dma_write(address, RETURN_42)

    def ring(self, number: int) -> None:
        self.rang.append(number)


@pytest.fixture(scope="module")
def booted(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    assert booted.rewind()
    return booted


def plugged(kernel: Kernel) -> Writer:
    writer = Writer()
    folder = kernel.plug(writer).folder
    kernel.write(f"{folder}/enable", b"1")
    writer.write_config(COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER)
    return writer


def physical(kernel: Kernel, function: int) -> int:
    found = kernel.guest.machine.pages.physical(function)
    assert found is not None
    return found


def address_of(kernel: Kernel, name: str) -> int:
    lines = kernel.read("/proc/kallsyms").decode().splitlines()
    return next(int(line.split()[0], 16) for line in lines if line.split()[2] == name)


@pytest.mark.parametrize("from_guest", [False, True])
def test_code_of_a_module(kernel: Kernel, from_guest: bool) -> None:
    writer = plugged(kernel)
    kernel.insmod(EXAMPLES / "exporter.ko")
    assert kernel.call("exporter_add", 3, 4) & 0xFFFF_FFFF == 7
    place = physical(kernel, address_of(kernel, "exporter_add"))
    if from_guest:
        registers = kernel.call("ioremap", writer.config.get(BAR_0, 4) & -16, 4096)
        kernel.call("iowrite32", place, registers)
    else:
        writer.dma_write(place, RETURN_42)
    assert kernel.call("exporter_add", 3, 4) == 42


def test_code_of_the_kernel_and_a_reset_puts_it_back(kernel: Kernel) -> None:
    writer = plugged(kernel)
    kernel.push()
    before = kernel.call("int_sqrt", 144)
    for _ in range(2):
        writer.dma_write(physical(kernel, kernel.guest.symbol("int_sqrt")), RETURN_42)
        assert kernel.call("int_sqrt", 144) == 42
        kernel.reset()
        assert kernel.call("int_sqrt", 144) == before == 12
    kernel.pop()


def test_what_a_device_does_later_happens_in_virtual_time(kernel: Kernel) -> None:
    writer = plugged(kernel)
    start = kernel.now
    for number, seconds in enumerate((0.3, 0.1, 0.2)):
        writer.after(seconds, writer.ring, number)
    kernel.sleep(0.15)
    assert writer.rang == [1]
    kernel.sleep(1)
    assert writer.rang == [1, 2, 0]
    assert kernel.now - start < 1.5


def test_memory_of_kobox_is_not_the_devices(kernel: Kernel) -> None:
    writer = plugged(kernel)
    machine = kernel.guest.machine
    before = machine.memory.read(machine.ram_size, 4096)
    for address in (machine.ram_size, machine.ram_size - 3, 1 << 40, (1 << 64) - 2):
        writer.dma_write(address, RETURN_42)
    assert machine.memory.read(machine.ram_size, 4096) == before
    assert writer.dma_read(machine.ram_size, 8) == b"\xff" * 8
