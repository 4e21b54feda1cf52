"""The distribution's NVMe driver on a controller in Python."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from errno import EIO, ENOENT, ENXIO
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.backing import FileBacking, MemoryBacking
from kobox.devices.faults import LostInterrupts, PulledOut, StuckBits
from kobox.devices.nvme import Nvme
from kobox.errors import Errno
from kobox.kernel.syscalls import O_CREAT, O_RDWR, O_WRONLY
from needs import need_program

pytestmark = pytest.mark.image

MEGABYTE = 1 << 20
DISK = "/dev/nvme0n1"
BLKDISCARD = 0x1277


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


def run(*words: str | Path, text: str | None = None) -> str:
    need_program(str(words[0]))
    done = subprocess.run([str(word) for word in words], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_driver_makes_a_disk_of_it(kernel: Kernel) -> None:
    plugged = kernel.plug(Nvme(MemoryBacking(bytes(3 * MEGABYTE)), serial="K-0001"))
    (hop,) = plugged.hops[:1]
    assert (hop.modules, hop.driver) == (("nvme",), "nvme")
    assert DISK in plugged.nodes
    assert kernel.read("/sys/block/nvme0n1/size") == b"%d\n" % (3 * MEGABYTE // 512)
    assert kernel.read("/sys/class/nvme/nvme0/serial").split() == [b"K-0001"]
    assert kernel.read("/sys/class/nvme/nvme0/state") == b"live\n"


def test_a_file_is_read_and_written_in_place(kernel: Kernel, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(os.urandom(8 * MEGABYTE))
    kernel.plug(Nvme(FileBacking(image)))
    assert hashlib.sha256(kernel.read(DISK)).digest() == hashlib.sha256(image.read_bytes()).digest()
    new = os.urandom(3 * MEGABYTE)
    descriptor = kernel.files.open(DISK, O_RDWR)
    kernel.files.seek(descriptor, MEGABYTE + 512)
    assert kernel.files.write_to(descriptor, new) == len(new)
    kernel.syscalls.checked("fsync", "fsync", descriptor)
    kernel.files.close(descriptor)
    assert image.read_bytes()[MEGABYTE + 512 : 4 * MEGABYTE + 512] == new


def test_a_file_system_on_a_partition(kernel: Kernel, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(32 * MEGABYTE))
    run("sfdisk", "-q", image, text="label: gpt\nsize=16MiB\n")
    run("mkfs.ext4", "-q", "-F", "-E", f"offset={MEGABYTE}", image, "16M")
    nodes = kernel.plug(Nvme(FileBacking(image))).nodes
    assert f"{DISK}p1" in nodes
    kernel.files.mount(f"{DISK}p1", "/root", "ext4")
    content = os.urandom(2 * MEGABYTE)
    kernel.files.write("/root/file", content, O_WRONLY | O_CREAT)
    kernel.files.umount("/root")
    part = tmp_path / "part"
    part.write_bytes(image.read_bytes()[MEGABYTE : 17 * MEGABYTE])
    run("e2fsck", "-f", "-n", part)
    run("debugfs", "-R", f"dump /file {tmp_path}/out", part)
    assert (tmp_path / "out").read_bytes() == content


def test_what_is_discarded_reads_as_zeros(kernel: Kernel) -> None:
    backing = MemoryBacking(b"\xaa" * MEGABYTE)
    kernel.plug(Nvme(backing))
    descriptor = kernel.files.open(DISK, O_RDWR)
    kernel.files.ioctl(descriptor, BLKDISCARD, struct.pack("<QQ", 65536, 8192))
    kernel.files.close(descriptor)
    assert backing.data.count(0) == 8192
    assert kernel.read(DISK)[65535:73729] == b"\xaa" + bytes(8192) + b"\xaa"


def test_a_disk_that_may_not_be_written_says_so(kernel: Kernel) -> None:
    kernel.plug(Nvme(MemoryBacking(bytes(MEGABYTE)), read_only=True))
    descriptor = kernel.files.open(DISK, O_RDWR)
    kernel.files.write_to(descriptor, b"x" * 4096)
    with pytest.raises(Errno) as refused:
        kernel.syscalls.checked("fsync", "fsync", descriptor)
    assert refused.value.number == EIO
    kernel.files.close(descriptor)


def test_it_is_pulled_out_during_a_transfer(kernel: Kernel) -> None:
    whole = os.urandom(16 * MEGABYTE)
    nvme = Nvme(MemoryBacking(whole))
    plugged = kernel.plug(nvme)
    descriptor, read = kernel.files.open(DISK), b""
    with nvme.tapped(PulledOut(nvme, after=30)):
        with suppress(Errno):  # the kernel makes the disk one of no size, or says EIO, whichever comes first
            while piece := kernel.files.read_from(descriptor, MEGABYTE):
                read += piece
        assert MEGABYTE <= len(read) < len(whole)
        assert whole.startswith(read)
        kernel.files.close(descriptor)
        kernel.unplug(plugged, surprise=True)
    with pytest.raises(Errno) as gone:
        kernel.files.open(DISK)
    assert gone.value.number in (ENOENT, ENXIO)
    assert not kernel.dead
    assert not [record.text for record in kernel.dmesg() if record.text.startswith(("BUG", "WARNING", "Oops"))]
    kernel.rmmod("nvme")


def test_a_lost_interrupt_is_found_by_the_drivers_timeout(kernel: Kernel) -> None:
    nvme = Nvme(MemoryBacking(os.urandom(4 * MEGABYTE)))
    kernel.plug(nvme)
    kernel.set_timeout(200)
    with nvme.tapped(LostInterrupts(1)) as lost:
        assert kernel.read(DISK) == bytes(nvme.backing.inner.read(0, 4 * MEGABYTE))
    kernel.set_timeout(60)
    assert lost.lost == 1
    assert any("completion polled" in record.text for record in kernel.dmesg())


def test_a_controller_that_is_never_ready_is_given_up(kernel: Kernel) -> None:
    nvme = Nvme(MemoryBacking(bytes(MEGABYTE)))
    with nvme.tapped(StuckBits(nvme, "status", 1, 0)):
        plugged = kernel.plug(nvme)
        kernel.sleep(10)
    assert DISK not in plugged.nodes
    assert any("Device not ready" in record.text for record in kernel.dmesg())


def test_contents_and_queues_belong_to_the_state(kernel: Kernel) -> None:
    backing = MemoryBacking(b"a" * MEGABYTE)
    kernel.plug(Nvme(backing))
    kernel.push()
    for _ in range(2):
        descriptor = kernel.files.open(DISK, O_RDWR)
        kernel.files.write_to(descriptor, b"b" * 65536)
        kernel.syscalls.checked("fsync", "fsync", descriptor)
        kernel.files.close(descriptor)
        assert backing.data.startswith(b"b" * 65536)
        kernel.reset()
        assert backing.data == b"a" * MEGABYTE
        assert kernel.read(DISK) == b"a" * MEGABYTE
    kernel.pop()


def test_interrupts_by_line_do_as_well(debian_root: Path) -> None:
    with kobox.boot(debian_root, append="pci=nomsi") as kernel:
        data = os.urandom(4 * MEGABYTE)
        kernel.plug(Nvme(MemoryBacking(data)))
        assert kernel.read(DISK) == data
        assert b"IO-APIC" in next(line for line in kernel.read("/proc/interrupts").splitlines() if b"nvme" in line)
