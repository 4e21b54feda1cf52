"""Live disks: the distribution's virtio drivers in front of files and Python objects of the host."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from errno import EIO
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.backing import MemoryBacking
from kobox.errors import Errno, UsageError
from kobox.kernel.syscalls import O_CREAT, O_RDWR, O_WRONLY
from needs import need_program

pytestmark = pytest.mark.image

MEGABYTE = 1 << 20
MS_RDONLY = 1
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


def blank(path: Path, megabytes: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(megabytes * MEGABYTE)
    return path


def ext4(path: Path) -> Path:
    run("mkfs.ext4", "-q", "-F", blank(path, 16))
    return path


class Lettered:
    """A disk without a store: sector N is full of one letter. Notes what is asked of it."""

    size = 8 * MEGABYTE

    def __init__(self) -> None:
        self.written: dict[int, bytes] = {}
        self.story: list[str] = []

    def read(self, offset: int, count: int) -> bytes:
        self.story.append("read")
        sectors = range(offset // 512, (offset + count) // 512)
        return b"".join(self.written.get(sector, bytes([65 + sector % 26]) * 512) for sector in sectors)

    def write(self, offset: int, data: bytes) -> None:
        self.story.append("write")
        for at in range(0, len(data), 512):
            self.written[(offset + at) // 512] = data[at : at + 512]

    def flush(self) -> None:
        self.story.append("flush")


def test_each_hop_from_the_slot_to_the_disk_is_told(kernel: Kernel) -> None:
    disk = kernel.attach_disk(bytes(MEGABYTE), live=True)
    card, virtio = disk.plugged.hops
    assert card.device == "pci0000:00/0000:00:01.0"
    assert card.modalias == "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00"
    assert kernel.modules_folder is not None
    builtin = "virtio_pci.ko" in (kernel.modules_folder / "modules.builtin").read_text()
    assert card.driver == "virtio-pci"
    assert card.modules == (() if builtin else ("virtio_pci",))
    assert card.loaded[-1:] == card.modules
    assert virtio.modalias == "virtio:d00000002v00001AF4"
    assert (virtio.modules, virtio.loaded, virtio.driver) == (("virtio_blk",), ("virtio_blk",), "virtio_blk")
    assert disk.plugged.nodes == (disk.device,) == ("/dev/vda",)


def test_a_file_is_read_and_written_in_place(kernel: Kernel, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(os.urandom(8 * MEGABYTE))
    with kernel.attach_disk(image, live=True) as disk:
        assert hashlib.sha256(kernel.read(disk.device)).digest() == hashlib.sha256(image.read_bytes()).digest()
        new = os.urandom(3 * MEGABYTE)
        descriptor = kernel.files.open(disk.device, O_RDWR)
        kernel.files.seek(descriptor, MEGABYTE + 512)
        assert kernel.files.write_to(descriptor, new) == len(new)
        kernel.syscalls.checked("fsync", "fsync", descriptor)
        assert image.read_bytes()[MEGABYTE + 512 : 4 * MEGABYTE + 512] == new, "fsync has returned"
        kernel.files.close(descriptor)
    assert "vda" not in {entry.name for entry in kernel.ls("/dev")}
    assert b"virtio-pci" not in kernel.read("/proc/interrupts")


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_kernel_finds_partitions(kernel: Kernel, tmp_path: Path, label: str) -> None:
    image = blank(tmp_path / "disk", 32)
    run("sfdisk", "-q", image, text=f"label: {label}\nsize=16MiB\nsize=8MiB\n")
    start, size = 1 << 20, 16 << 20
    file_system = ext4(tmp_path / "part").read_bytes()
    with open(image, "r+b") as file:
        file.seek(start)
        file.write(file_system)
    with kernel.attach_disk(image, live=True) as disk:
        assert disk.partitions == (f"{disk.device}1", f"{disk.device}2")
        assert int(kernel.read("/sys/block/vda/vda1/size")) == size // 512
        kernel.files.mount(disk.partitions[0], "/root", "ext4")
        kernel.files.write("/root/file", b"content", O_WRONLY | O_CREAT)
        kernel.files.umount("/root")
    (tmp_path / "part").write_bytes(image.read_bytes()[start : start + size])
    run("e2fsck", "-f", "-n", tmp_path / "part")
    assert "content" in run("debugfs", "-R", "cat file", tmp_path / "part")


def test_an_object_with_four_methods_is_a_disk(kernel: Kernel) -> None:
    letters = Lettered()
    with kernel.attach_disk(letters, live=True) as disk:
        descriptor = kernel.files.open(disk.device, O_RDWR)
        kernel.files.seek(descriptor, 512 * 30)
        assert kernel.files.read_from(descriptor, 1024) == b"E" * 512 + b"F" * 512
        kernel.files.seek(descriptor, 4096)
        kernel.files.write_to(descriptor, b"x" * 4096)
        assert 8 not in letters.written, "it is in the kernel's cache only"
        letters.story.clear()
        kernel.syscalls.checked("fsync", "fsync", descriptor)
        assert letters.story == ["write", "flush"]
        assert letters.written == dict.fromkeys(range(8, 16), b"x" * 512)
        kernel.files.close(descriptor)


def test_an_error_of_the_backing_is_an_io_error_of_the_disk(kernel: Kernel) -> None:
    class Scratched(Lettered):
        def read(self, offset: int, count: int) -> bytes:
            if offset <= 4 * MEGABYTE < offset + count:
                raise OSError("a scratch")
            return super().read(offset, count)

    with kernel.attach_disk(Scratched(), live=True) as disk:
        descriptor = kernel.files.open(disk.device)
        assert kernel.files.read_from(descriptor, 512) == b"A" * 512
        kernel.files.seek(descriptor, 4 * MEGABYTE)
        with pytest.raises(Errno) as refused:
            kernel.files.read_from(descriptor, 512)
        assert refused.value.number == EIO
        kernel.files.close(descriptor)
    assert any("I/O error, dev vda, sector 8192" in record.text for record in kernel.dmesg())


def test_nothing_is_written_to_a_read_only_disk(kernel: Kernel, tmp_path: Path) -> None:
    image = ext4(tmp_path / "disk")
    image.chmod(0o400)
    before = image.read_bytes()
    with kernel.attach_disk(image, live=True, read_only=True) as disk:
        assert kernel.read("/sys/block/vda/ro") == b"1\n"
        kernel.files.mount(disk.device, "/root", "ext4", MS_RDONLY)
        assert "lost+found" in {entry.name for entry in kernel.ls("/root")}
        kernel.files.umount("/root")
        descriptor = kernel.files.open(disk.device, O_RDWR)
        with pytest.raises(Errno, match="EPERM"):
            kernel.files.write_to(descriptor, b"x" * 4096)
        kernel.files.close(descriptor)
    assert image.read_bytes() == before


def test_what_is_discarded_reads_as_zeros(kernel: Kernel) -> None:
    backing = MemoryBacking(b"\xaa" * MEGABYTE)
    with kernel.attach_disk(backing, live=True) as disk:
        descriptor = kernel.files.open(disk.device, O_RDWR)
        kernel.files.ioctl(descriptor, BLKDISCARD, struct.pack("<QQ", 65536, 8192))
        kernel.files.close(descriptor)
        assert kernel.read(disk.device)[65536 - 1 : 65536 + 8193] == b"\xaa" + bytes(8192) + b"\xaa"
    assert backing.data.count(0) == 8192


def test_a_reset_takes_away_what_was_plugged_in_since(kernel: Kernel) -> None:
    disk = kernel.attach_disk(bytes(MEGABYTE), live=True)
    kernel.reset()
    assert "vda" not in {entry.name for entry in kernel.ls("/dev")}
    disk.detach()
    with kernel.attach_disk(b"b" * MEGABYTE, live=True) as again:
        assert again.device == "/dev/vda"
        assert kernel.read(again.device) == b"b" * MEGABYTE


def test_a_reset_puts_a_disk_back_with_its_contents(kernel: Kernel, tmp_path: Path) -> None:
    image = ext4(tmp_path / "disk")
    disk = kernel.attach_disk(image, live=True)
    kernel.files.mount(disk.device, "/root", "ext4")
    kernel.files.write("/root/before", b"1", O_WRONLY | O_CREAT)
    kernel.push()
    for name in ("one", "two"):
        kernel.files.write(f"/root/{name}", os.urandom(100_000), O_WRONLY | O_CREAT)
        kernel.push()
        kernel.files.umount("/root")
        assert name in run("debugfs", "-R", "ls /", image)
        disk.detach()
        kernel.pop()
        kernel.reset()
    assert {entry.name for entry in kernel.ls("/root")} == {"lost+found", "before"}
    kernel.files.write("/root/after", b"2", O_WRONLY | O_CREAT)
    kernel.files.umount("/root")
    run("e2fsck", "-f", "-n", image)
    assert {"before", "after"} <= set(run("debugfs", "-R", "ls /", image).split())
    assert "one" not in run("debugfs", "-R", "ls /", image)
    kernel.pop()


def test_a_kernel_with_devices_is_not_saved(kernel: Kernel, tmp_path: Path) -> None:
    with kernel.attach_disk(bytes(MEGABYTE), live=True), pytest.raises(UsageError, match="devices are plugged in"):
        kernel.save(tmp_path)


def test_disks_that_are_none_are_refused(kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: No such file"):
        kernel.attach_disk(tmp_path / "nowhere", live=True)
    with pytest.raises(UsageError, match="at least 512"):
        kernel.attach_disk(b"short", live=True)
    with pytest.raises(UsageError, match="is no disk"):
        kernel.attach_disk(object(), live=True)  # type: ignore[call-overload]


def test_thirty_disks_fill_the_bus(kernel: Kernel) -> None:
    disks = [kernel.attach_disk(bytes([number]) * 4096, live=True) for number in range(30)]
    assert len({disk.device for disk in disks}) == 30
    assert kernel.read(disks[-1].device) == bytes([29]) * 4096
    with pytest.raises(UsageError, match="all 30 slots"):
        kernel.attach_disk(bytes(MEGABYTE), live=True)


def test_interrupts_by_line_do_as_well(debian_root: Path) -> None:
    with kobox.boot(debian_root, append="pci=nomsi") as kernel:
        first = kernel.attach_disk(b"1" * MEGABYTE, live=True)
        others = [kernel.attach_disk(bytes(4096), live=True) for _ in range(8)]
        shares = kernel.attach_disk(b"2" * MEGABYTE, live=True)
        assert kernel.read(first.device) == b"1" * MEGABYTE
        assert kernel.read(shares.device) == b"2" * MEGABYTE
        lines = [line for line in kernel.read("/proc/interrupts").decode().splitlines() if "virtio" in line]
        assert lines
        assert all("IO-APIC" in line and "fasteoi" in line for line in lines)
        assert any(line.count("virtio") == 2 for line in lines), f"{len(others)} disks lie between, none shares"


@pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
def test_what_was_synced_survives_the_death_of_this_process(
    root: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    image = ext4(tmp_path / "disk")
    script = f"""
        import os, signal, sys
        import kobox
        kernel = kobox.boot({str(request.getfixturevalue(root))!r})
        disk = kernel.attach_disk(sys.argv[1], live=True)
        kernel.files.mount(disk.device, "/root", "ext4")
        for number in range(20):
            descriptor = kernel.files.open(f"/root/file{{number}}", {O_WRONLY | O_CREAT})
            kernel.files.write_to(descriptor, bytes([number]) * 50_000)
            kernel.syscalls.checked("fsync", "fsync", descriptor)
        kernel.files.write("/root/unsynced", b"lost, or not", {O_WRONLY | O_CREAT})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), image], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "needs_recovery" in run("dumpe2fs", "-h", image)
    subprocess.run(["e2fsck", "-p", image], check=False, capture_output=True)  # exit 1: the journal was replayed
    run("e2fsck", "-f", "-n", image)
    for number in range(20):
        run("debugfs", "-R", f"dump /file{number} {tmp_path}/out", image)
        assert (tmp_path / "out").read_bytes() == bytes([number]) * 50_000


def test_udev_and_the_hand_that_plugs_do_not_get_in_each_others_way(kernel: Kernel) -> None:
    kernel.coldplug()
    with kernel.attach_disk(b"u" * MEGABYTE, live=True) as disk:
        assert disk.plugged.drivers == ("virtio-pci", "virtio_blk")
        assert kernel.read(disk.device) == b"u" * MEGABYTE
    kernel.udev.settle()
    assert not kernel.dead
