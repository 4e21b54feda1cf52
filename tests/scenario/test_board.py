"""The board as the kernel and drivers find it: interrupts of the ISA bus, serial ports, clock, addresses where nothing
is."""

from __future__ import annotations

import time
from calendar import timegm
from pathlib import Path

import pytest

from kobox.box import Kernel
from kobox.kernel.syscalls import O_RDWR
from kobox.ko import read_module
from kobox.runner import Finder
from kobox.sweep import SweepOptions, sweep

pytestmark = pytest.mark.image


def test_acpi_and_the_clock_have_their_interrupts(kernel: Kernel) -> None:
    lines = kernel.read("/proc/interrupts").decode().splitlines()
    assert any("9-fasteoi" in line and line.endswith("acpi") for line in lines)
    assert any("8-edge" in line and line.endswith("rtc0") for line in lines)
    said = [record.text for record in kernel.dmesg(boot=True)]
    assert "ACPI: Interpreter enabled" in said
    assert not [text for text in said if "ACPI Error" in text or "ACPI BIOS" in text]


def test_the_kernel_sets_its_clock_by_the_hosts(kernel: Kernel) -> None:
    said = [record.text for record in kernel.dmesg(boot=True) if "setting system clock to" in record.text]
    stamp = said[0].partition("clock to ")[2].partition(" UTC")[0]
    booted = timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))
    assert abs(booted - kernel.guest.pc.epoch) < 60


def test_the_clock_is_irregular_enough_for_the_kernel_to_draw_entropy_from(kernel: Kernel, debian_root: Path) -> None:
    for name in ("sha3_generic", "jitterentropy_rng"):
        kernel.insmod(next(debian_root.rglob(f"{name}.ko*")))
    assert b"driver       : jitterentropy_rng" in kernel.read("/proc/crypto")
    assert [record.text for record in kernel.dmesg() if "jitter" in record.text.lower()] == []


def test_a_serial_port_is_opened_written_and_drained(kernel: Kernel) -> None:
    descriptor = kernel.files.open("/dev/ttyS0", O_RDWR | 0o400)
    before = kernel.now
    text = b"hello\r\n" * 40
    assert kernel.files.write_to(descriptor, text) == len(text)
    kernel.files.close(descriptor)
    assert kernel.now - before < 5
    sent = [line for line in kernel.read("/proc/tty/driver/serial").decode().splitlines() if line.startswith("0:")]
    assert f"tx:{len(text) + text.count(10)}" in sent[0] or f"tx:{len(text)}" in sent[0]


def test_drivers_of_old_boards_answer_as_on_the_recorded_machine(kobox_image: str) -> None:
    names = ("floppy", "eurotechwdt", "snd_mtpav")
    report = sweep(SweepOptions(kobox_image, select=names, jobs=1))
    found = {result.name: result for result in report.modules}
    assert {name: found[name].load for name in names} == {"floppy": 19, "eurotechwdt": 0, "snd_mtpav": 0}
    assert found["floppy"].log == ((6, "floppy0: no floppy controllers found"),)
    assert found["eurotechwdt"].registered["ioports"] == ("03f0-03f1 : eurwdt",)


def test_where_no_device_is_reads_give_all_ones_and_writes_are_lost(kernel: Kernel) -> None:
    place = kernel.call("ioremap", 0xFFFE_F000, 0x1000)
    assert place
    assert kernel.call("ioread8", place + 8) & 0xFF == 0xFF
    assert kernel.call("ioread32", place + 8) & 0xFFFF_FFFF == 0xFFFF_FFFF
    kernel.call("iowrite8", 1, place + 8)
    assert kernel.call("ioread8", place + 8) & 0xFF == 0xFF
    kernel.call("iounmap", place)


def test_a_module_with_types_beyond_the_scratch_memory_is_loaded(kernel: Kernel, debian_root: Path) -> None:
    path = next(debian_root.rglob("amdgpu.ko*"))
    module = read_module(path)
    for needed in Finder(path.parent, [], kernel.modules_folder).in_order(module):
        kernel.insmod(needed)
    kernel.insmod(path)
    types = kernel.read("/sys/kernel/btf/amdgpu")
    assert types[:2] == b"\x9f\xeb"
    assert len(types) > 2_000_000, "smaller types fit the scratch memory, and this test shows nothing"
    kernel.rmmod("amdgpu")
