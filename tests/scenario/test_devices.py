"""Devices that are Python classes, driven by real drivers: the edu driver of the examples, and a small one of the
distribution."""

from __future__ import annotations

import random
from collections.abc import Iterator
from errno import EIO, ENODEV, ETIMEDOUT
from pathlib import Path

import pytest
from tools.plug_aliases import ERROR, aliases, by_kmod, plug

import kobox
from kobox.box import Kernel
from kobox.devices.device import PciDevice
from kobox.devices.edu import Edu
from kobox.devices.faults import LostInterrupts, LostWrites, PulledOut, StrayDma, StuckBits
from kobox.devices.recording import Event, Replay, recording
from kobox.devices.registers import Register
from kobox.errors import Errno, KoboxError, UsageError
from kobox.machine.pci_function import Bar
from needs import need_program
from paths import EXAMPLES

pytestmark = pytest.mark.image

DRIVER = EXAMPLES / "edu.ko"
NODE = "/dev/kobox_edu"


@pytest.fixture(scope="module")
def booted(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    assert booted.rewind()
    return booted


def texts(kernel: Kernel) -> list[str]:
    return [record.text for record in kernel.dmesg()]


def test_a_device_that_comes_finds_its_driver_waiting(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    plugged = kernel.plug(Edu())
    assert plugged.drivers == ("kobox_edu",)
    assert plugged.nodes == (NODE,)
    assert "kobox_edu 0000:00:01.0: edu 010000ed answers" in texts(kernel)
    assert "kobox_edu 0000:00:01.0: DMA: 0" in texts(kernel)


def test_a_driver_that_comes_finds_its_device_waiting(kernel: Kernel) -> None:
    plugged = kernel.plug(Edu())
    assert plugged.drivers == ()
    kernel.insmod(DRIVER)
    kernel.write(NODE, b"6")
    assert kernel.read(NODE) == b"720\n"
    assert b"kobox" not in kernel.read("/proc/iomem")
    kernel.rmmod("edu")
    assert NODE.removeprefix("/dev/") not in {entry.name for entry in kernel.ls("/dev")}
    assert plugged.model.board is not None, "the device is still there"


def test_every_access_interrupt_and_transfer_is_recorded(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    kernel.plug(edu)
    with recording(edu) as record:
        kernel.write(NODE, b"5")
        assert kernel.read(NODE) == b"120\n"
    assert record.lines() == [
        "write status 0x80",
        "write factorial 0x5",
        "interrupt 0",
        "read interrupt_status 0x1",
        "write interrupt_acknowledge 0x1",
        "lower",
        "read factorial 0x78",
        "read factorial 0x78",  # the second read of the file finds its end
    ]
    assert record.of("status") == [Event("write", 0, 0x20, 4, 0x80, name="status")]


def test_a_recording_is_played_without_the_model(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    kernel.push()  # the driver is to get the same memory for its DMA
    edu = Edu()
    with recording(edu) as record:
        kernel.plug(edu)
        kernel.write(NODE, b"5")
    kept = record.to_json()
    assert any(event.kind == "to RAM" and len(event.data) == 2048 for event in record.events)
    kernel.reset()
    replay = Replay.from_json(kept)
    kernel.plug(replay)
    kernel.write(NODE, b"5")
    replay.check()
    kernel.reset()
    other = Replay.from_json(kept)
    kernel.plug(other)
    with pytest.raises(Errno, match="ETIMEDOUT"):
        kernel.write(NODE, b"4")
    assert other.deviations[0].startswith("the driver does: write BAR 0 + 0x8 0x4; recorded was: write factorial 0x5")
    with pytest.raises(AssertionError, match="the driver does"):
        other.check()


def test_a_lost_interrupt_ends_in_the_drivers_timeout(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    kernel.plug(edu)
    with edu.tapped(LostInterrupts(1)) as lost:
        with pytest.raises(Errno) as refused:
            kernel.write(NODE, b"5")
        assert (refused.value.number, lost.lost) == (ETIMEDOUT, 1)
        kernel.write(NODE, b"4")
    assert kernel.read(NODE) == b"24\n"


def test_a_stuck_bit_is_noticed_by_the_drivers_probe(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    with edu.tapped(StuckBits(edu, "liveness", 1, 0)):
        plugged = kernel.plug(edu)
    assert plugged.drivers == ()
    assert not any("answers" in text for text in texts(kernel))
    assert ENODEV == 19  # what the probe answers is not logged: it says "not my device"


def test_a_dma_engine_that_never_ends_is_given_up(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    with edu.tapped(StuckBits(edu, "dma_command", 1, 1)):
        assert kernel.plug(edu).drivers == ()
    assert f"kobox_edu 0000:00:01.0: DMA: -{ETIMEDOUT}" in texts(kernel)


def test_dma_to_a_wrong_address_is_found_by_the_drivers_check(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    with edu.tapped(StrayDma(16)) as stray:
        assert kernel.plug(edu).drivers == ()
    assert f"kobox_edu 0000:00:01.0: DMA: -{EIO}" in texts(kernel)
    assert len(stray.strayed) == 1


def test_dma_to_where_no_memory_is_harms_nobody(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    with edu.tapped(StrayDma(1 << 40)):
        assert kernel.plug(edu).drivers == ()
    assert f"kobox_edu 0000:00:01.0: DMA: -{EIO}" in texts(kernel)
    assert kernel.plug(Edu()).drivers == ("kobox_edu",)


def test_a_device_that_is_pulled_out_during_work_leaves_the_driver_unharmed(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    plugged = kernel.plug(edu)
    with edu.tapped(PulledOut(edu, after=1)):
        with pytest.raises(Errno, match="ETIMEDOUT"):
            kernel.write(NODE, b"5")
        assert edu.board is None
        assert kernel.read(NODE) == b"4294967295\n", "all ones"
        kernel.unplug(plugged, surprise=True)
    assert texts(kernel)[-1] == "kobox_edu 0000:00:01.0: edu is gone"
    kernel.rmmod("edu")
    assert not kernel.dead


def test_writes_that_get_lost_end_in_a_timeout(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    kernel.plug(edu)
    with edu.tapped(LostWrites(1, after=1)), pytest.raises(Errno, match="ETIMEDOUT"):
        kernel.write(NODE, b"5")


def test_a_reset_puts_registers_and_delayed_work_back(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    kernel.plug(edu)
    kernel.write(NODE, b"5")
    kernel.push()
    edu.after(0.5, edu._computed, 7)
    kernel.push()
    for _ in range(2):
        kernel.write(NODE, b"3")
        assert kernel.read(NODE) == b"6\n"
        edu.buffer[:] = bytes(4096)
        kernel.reset()
        assert edu.factorial == 120
        assert edu.buffer[:3] == bytes([0, 7, 14])
        kernel.sleep(0.6)
        assert edu.factorial == 5040
    kernel.pop()
    kernel.sleep(0.6)
    assert edu.factorial == 120, "the delayed work belonged to the state above"


def test_the_kernel_resets_a_function(kernel: Kernel) -> None:
    kernel.insmod(DRIVER)
    edu = Edu()
    plugged = kernel.plug(edu)
    kernel.write(NODE, b"5")
    assert kernel.read(f"{plugged.folder}/reset_method") == b"af_flr pm\n"
    for method in ("af_flr", "pm"):
        edu.factorial = 1
        kernel.write(f"{plugged.folder}/reset_method", method.encode())
        kernel.write(f"{plugged.folder}/reset", b"1")
        assert edu.factorial == 0
        kernel.write(NODE, b"5")
        assert kernel.read(NODE) == b"120\n", "the kernel has put configuration space back"


class Panel(PciDevice):
    """The panic notifier of QEMU: one register. ``events`` are what the guest has told."""

    vendor, device, class_code = 0x1B36, 0x0011, 0x088000
    bars = {0: Bar(16)}  # noqa: RUF012
    events = Register(0, 1, reset=0b11)

    @events.on_write
    def note(self, value: int) -> None:
        self.told = value


@pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
def test_a_panic_is_told_to_a_device_of_ten_lines(root: str, request: pytest.FixtureRequest) -> None:
    with kobox.boot(request.getfixturevalue(root)) as kernel:
        panel = Panel()
        plugged = kernel.plug(panel)
        (hop,) = plugged.hops
        assert hop.modules == hop.loaded[-1:] == ("pvpanic_pci",)
        assert hop.driver == "pvpanic-pci"
        with pytest.raises(KoboxError):
            kernel.write("/proc/sysrq-trigger", b"c")
        assert panel.told == 1, "panicked"
        assert kernel.dead


def test_what_cannot_be_kept_with_the_state_is_named(kernel: Kernel) -> None:
    class Open(Panel):
        def __init__(self) -> None:
            super().__init__()
            self.file = open("/dev/null", "rb")  # noqa: SIM115

    device = Open()
    kernel.plug(device)
    with device.file, pytest.raises(UsageError, match=r"Open.file cannot be kept"):
        kernel.push()


@pytest.mark.full
def test_bare_devices_bring_the_modules_that_kmod_chooses(debian_root: Path) -> None:
    need_program("modprobe")
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        kernel.set_timeout(5)
        assert kernel.modules_folder is not None
        for pattern in random.Random(7).sample(aliases(kernel.modules_folder), 30):
            modalias, modules, ended, text = plug(kernel, pattern, 0)
            assert ended != ERROR, text
            assert not modalias or sorted(modules) == sorted(by_kmod(kernel.modules_folder, modalias))
