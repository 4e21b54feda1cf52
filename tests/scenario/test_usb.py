"""USB devices that are Python classes, on the distribution's host controller, storage, input and serial drivers."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.backing import FileBacking, MemoryBacking
from kobox.devices.usb_device import Setup, UsbDevice
from kobox.devices.usb_keyboard import UsbKeyboard
from kobox.devices.usb_serial import UsbSerial
from kobox.devices.usb_storage import UsbStorage
from kobox.devices.xhci import Xhci
from kobox.errors import Errno, UsageError
from kobox.kernel.syscalls import O_CREAT, O_NONBLOCK, O_RDWR, O_WRONLY
from needs import need_program

pytestmark = pytest.mark.image

MEGABYTE = 1 << 20
O_NOCTTY = 0o400
EVENT = struct.Struct("<qqHHi")
KEY, CODES = 1, {"h": 35, "i": 23, "shift": 42}


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def booted(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """With the host controller in its slot: each test plugs into that."""
    root: Path = request.getfixturevalue(request.param)
    with kobox.boot(root) as kernel:
        kernel.plug(Xhci())
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.rewind()
    return booted


class Recorder(MemoryBacking):
    """Counts what makes it last."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


def run(*words: str | Path) -> str:
    need_program(str(words[0]))
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def reports(kernel: Kernel) -> list[str]:
    return [r.text for r in kernel.dmesg() if r.text.startswith(("BUG", "WARNING", "Oops", "general protection"))]


def test_a_stick_becomes_a_disk_hop_by_hop(kernel: Kernel) -> None:
    data = os.urandom(4 * MEGABYTE)
    plugged = kernel.plug(UsbStorage(MemoryBacking(data)))
    stick, disk = plugged.hops
    assert stick.modalias.startswith("usb:v1234p0DD1d0100dc00dsc00dp00ic08isc06ip50")
    assert "usb_storage" in stick.modules
    assert (disk.modalias, disk.modules, disk.driver) == ("scsi:t-0x00", ("sd_mod",), "sd")
    assert plugged.drivers == ("usb-storage", "sd")
    assert kernel.read("/dev/sda") == data
    assert any("Direct-Access     kobox    USB stick" in record.text for record in kernel.dmesg())


def test_a_file_system_on_a_stick(kernel: Kernel, tmp_path: Path) -> None:
    image = tmp_path / "stick"
    image.write_bytes(bytes(16 * MEGABYTE))
    run("mkfs.ext4", "-q", "-F", image)
    plugged = kernel.plug(UsbStorage(FileBacking(image)))
    kernel.files.mount("/dev/sda", "/root", "ext4")
    content = os.urandom(2 * MEGABYTE)
    kernel.files.write("/root/file", content, O_WRONLY | O_CREAT)
    kernel.files.umount("/root")
    kernel.unplug(plugged)
    assert "sda" not in {entry.name for entry in kernel.ls("/dev")}
    run("e2fsck", "-f", "-n", image)
    run("debugfs", "-R", f"dump /file {tmp_path}/out", image)
    assert (tmp_path / "out").read_bytes() == content


def test_a_sync_reaches_the_backing(kernel: Kernel) -> None:
    backing = Recorder(bytes(MEGABYTE))
    kernel.plug(UsbStorage(backing))
    descriptor = kernel.files.open("/dev/sda", O_RDWR)
    kernel.files.write_to(descriptor, b"x" * 8192)
    kernel.syscalls.checked("fsync", "fsync", descriptor)
    assert (backing.data[:8192], backing.flushes) == (b"x" * 8192, 1)
    kernel.files.close(descriptor)


def test_an_error_of_the_backing_is_an_io_error(kernel: Kernel) -> None:
    class Scratched(MemoryBacking):
        def read_into(self, offset: int, parts: object) -> None:
            if offset >= MEGABYTE:
                raise OSError("a scratch")
            super().read_into(offset, parts)  # type: ignore[arg-type]

    kernel.plug(UsbStorage(Scratched(bytes(2 * MEGABYTE))))
    descriptor = kernel.files.open("/dev/sda")
    assert kernel.files.read_from(descriptor, 4096) == bytes(4096)
    kernel.files.seek(descriptor, MEGABYTE)
    with pytest.raises(Errno, match="EIO"):
        kernel.files.read_from(descriptor, 4096)
    kernel.files.seek(descriptor, 65536)
    assert kernel.files.read_from(descriptor, 4096) == bytes(4096), "the transport goes on"
    kernel.files.close(descriptor)
    assert any("Unrecovered read error" in record.text for record in kernel.dmesg())


def test_a_stick_is_pulled_out_while_it_is_read(kernel: Kernel) -> None:
    class Short(MemoryBacking):
        def read_into(self, offset: int, parts: object) -> None:
            super().read_into(offset, parts)  # type: ignore[arg-type]
            if offset >= 4 * MEGABYTE and stick.host is not None:
                kernel.guest.pc.pci.plugged()[0].detach(stick)  # type: ignore[attr-defined]

    stick = UsbStorage(Short(bytes(16 * MEGABYTE)))
    kernel.plug(stick)
    descriptor, read = kernel.files.open("/dev/sda"), 0
    with suppress(Errno):
        while piece := kernel.files.read_from(descriptor, MEGABYTE):
            read += len(piece)
    assert 3 * MEGABYTE <= read < 16 * MEGABYTE
    kernel.files.close(descriptor)
    kernel.sleep(2)
    assert "sda" not in {entry.name for entry in kernel.ls("/dev")}
    assert any("USB disconnect" in record.text for record in kernel.dmesg())
    assert not reports(kernel)
    assert not kernel.dead


def test_keys_become_input_events(kernel: Kernel) -> None:
    keyboard = UsbKeyboard()
    plugged = kernel.plug(keyboard)
    assert plugged.drivers[:1] == ("usbhid",)
    (node,) = (name for name in plugged.nodes if name.startswith("/dev/input/event"))
    descriptor = kernel.files.open(node, O_RDWR | O_NONBLOCK)
    keyboard.type("Hi")
    kernel.sleep(0.1)
    raw = kernel.files.read_from(descriptor, 4096)
    pressed = [(code, value) for _, _, kind, code, value in EVENT.iter_unpack(raw) if kind == KEY]
    assert pressed == [
        (CODES["shift"], 1), (CODES["h"], 1), (CODES["shift"], 0), (CODES["h"], 0), (CODES["i"], 1), (CODES["i"], 0),
    ]  # fmt: skip
    kernel.files.write_to(descriptor, EVENT.pack(0, 0, 0x11, 1, 1))
    kernel.sleep(0.1)
    assert keyboard.lights == 2, "Caps Lock"
    kernel.files.close(descriptor)
    with pytest.raises(KeyError):
        keyboard.type("ß")


def test_a_serial_line_carries_text_both_ways(kernel: Kernel) -> None:
    adapter = UsbSerial()
    plugged = kernel.plug(adapter)
    assert "/dev/ttyACM0" in plugged.nodes
    terminal = kernel.files.open("/dev/ttyACM0", O_RDWR | O_NOCTTY)
    assert adapter.lines == 3, "opening raises DTR and RTS"
    assert adapter.baud == 9600
    text = b"a line that takes more than one packet " * 100 + b"\n"
    kernel.files.write_to(terminal, text[:-1])
    kernel.sleep(0.2)
    assert adapter.received == text[:-1]
    adapter.send(b"an answer\n")
    kernel.sleep(0.1)
    assert kernel.files.read_from(terminal, 100) == b"an answer\n"
    kernel.files.close(terminal)
    kernel.unplug(plugged)
    assert "ttyACM0" not in {entry.name for entry in kernel.ls("/dev")}


def test_a_device_that_answers_nothing_but_who_it_is(kernel: Kernel) -> None:
    class Mute(UsbDevice):
        product = 0x0BAD
        asked = 0

        def control(self, setup: Setup, data: bytes) -> bytes | None:
            self.asked += 1
            return None

    mute = Mute()
    plugged = kernel.plug(mute)
    assert plugged.drivers == ()
    assert any("idVendor=1234, idProduct=0bad" in record.text for record in kernel.dmesg())
    assert not reports(kernel)


def test_devices_and_their_contents_belong_to_the_state(kernel: Kernel) -> None:
    backing = MemoryBacking(b"a" * MEGABYTE)
    stick = UsbStorage(backing)
    plugged = kernel.plug(stick)
    kernel.push()
    for _ in range(2):
        descriptor = kernel.files.open("/dev/sda", O_RDWR)
        kernel.files.write_to(descriptor, b"b" * 65536)
        kernel.syscalls.checked("fsync", "fsync", descriptor)
        kernel.files.close(descriptor)
        kernel.unplug(plugged)
        keyboard = UsbKeyboard()
        kernel.plug(keyboard)
        kernel.reset()
        assert keyboard.host is None
        assert backing.data == b"a" * MEGABYTE
        assert kernel.read("/dev/sda") == b"a" * MEGABYTE
    kernel.pop()
    assert stick.host is None
    assert "sda" not in {entry.name for entry in kernel.ls("/dev")}


def test_ports_are_four_and_a_device_has_one(kernel: Kernel) -> None:
    keyboards = [UsbKeyboard() for _ in range(5)]
    for keyboard in keyboards[:4]:
        kernel.plug(keyboard)
    with pytest.raises(UsageError, match="all ports"):
        kernel.plug(keyboards[4])
    with pytest.raises(UsageError, match="plugged in already"):
        kernel.plug(keyboards[0])


def test_a_host_controller_comes_with_the_first_device(debian_root: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        plugged = kernel.plug(UsbKeyboard())
        assert plugged.address == "usb port 1 of 0000:00:01.0"
        assert "usbhid" in plugged.drivers
