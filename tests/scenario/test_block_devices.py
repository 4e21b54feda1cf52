"""Block devices that live in memory or on others: zram, brd, loop, device-mapper. What lies on them is looked at from
Python."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from kobox.box import Kernel
from kobox.errors import Errno, UsageError
from kobox.kernel.device_mapper import SECTOR, Mapped, Target
from kobox.kernel.syscalls import O_CREAT, O_WRONLY
from needs import need_program

pytestmark = pytest.mark.image

MEGABYTE = 1 << 20
NOISE = random.Random(7).randbytes(MEGABYTE)
TEXT = b"".join(b"line %d, much like the one before\n" % number for number in range(30_000))


def ext4_image(folder: Path, megabytes: int = 8) -> bytes:
    """A file system with one file, made by the real tool."""
    need_program("mkfs.ext4")
    tree, image = folder / "tree", folder / "image"
    tree.mkdir()
    (tree / "file").write_bytes(TEXT)
    with open(image, "wb") as file:
        file.truncate(megabytes * MEGABYTE)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", "-d", tree, image], check=True, capture_output=True)
    return image.read_bytes()


def is_clean(image: bytes, folder: Path) -> bool:
    file = folder / "looked-at"
    file.write_bytes(image)
    return subprocess.run(["/sbin/e2fsck", "-f", "-n", file], check=False, capture_output=True).returncode == 0


def requested(kernel: Kernel, name: str) -> tuple[str, ...]:
    return next(request.modules for request in kernel.autoloaded if request.name == name)


# -- in memory ------------------------------------------------------------------------------------------------------


def test_zram_keeps_a_file_system_in_less_than_its_size(linux: Kernel, tmp_path: Path) -> None:
    image = ext4_image(tmp_path)
    linux.modprobe("zram")
    linux.write("/sys/block/zram0/disksize", f"{len(image)}")
    linux.files.write("/dev/zram0", image)
    linux.files.mount("/dev/zram0", "/root", "ext4")
    assert linux.read("/root/file") == TEXT
    linux.files.write("/root/second", NOISE, O_WRONLY | O_CREAT)
    linux.files.umount("/root")
    after = linux.read("/dev/zram0")
    original, compressed, used, *_ = (int(word) for word in linux.read("/sys/block/zram0/mm_stat").split())
    assert original > len(TEXT) + len(NOISE)
    assert len(NOISE) < compressed < original, "noise stays as long as it is, text does not"
    assert used >= compressed
    assert is_clean(after, tmp_path)
    assert NOISE[:4096] in after
    linux.write("/sys/block/zram0/reset", "1")
    assert linux.read("/sys/block/zram0/disksize") == b"0\n"


def test_zram_compresses_by_the_algorithm_that_was_chosen(linux: Kernel) -> None:
    linux.modprobe("zram")
    offered = linux.read("/sys/block/zram0/comp_algorithm").decode().replace("[", "").replace("]", "").split()
    assert len(offered) > 1
    sizes = {}
    for name in ("lz4", "zstd"):
        assert name in offered
        linux.write("/sys/block/zram0/comp_algorithm", name)
        linux.write("/sys/block/zram0/disksize", "4M")
        linux.files.write("/dev/zram0", TEXT)
        assert linux.read("/dev/zram0")[: len(TEXT)] == TEXT
        sizes[name] = int(linux.read("/sys/block/zram0/mm_stat").split()[1])
        linux.write("/sys/block/zram0/reset", "1")
    assert sizes["zstd"] < sizes["lz4"] < len(TEXT)


def test_brd_holds_what_is_written(linux: Kernel) -> None:
    linux.modprobe("brd", rd_nr=2, rd_size=1024)
    linux.files.write("/dev/ram0", NOISE)
    assert linux.read("/dev/ram0") == NOISE
    assert linux.read("/dev/ram1") == bytes(MEGABYTE)
    assert linux.files.write("/dev/ram1", NOISE + b"!") == MEGABYTE, "what fits is taken"


def test_a_loop_device_serves_an_image(linux: Kernel) -> None:
    with linux.attach_disk(NOISE) as disk:
        assert requested(linux, "char-major-10-237")[-1] == "loop"
        assert linux.read(disk.device) == NOISE
        linux.files.write(disk.device, b"changed")
        assert disk.data() == b"changed" + NOISE[7:]
    with linux.attach_disk(NOISE, read_only=True) as disk, pytest.raises(Errno):
        linux.files.write(disk.device, b"changed")


# -- device-mapper --------------------------------------------------------------------------------------------------


def test_linear_puts_pieces_of_disks_together(linux: Kernel) -> None:
    first, second = NOISE[: 64 * SECTOR], NOISE[64 * SECTOR : 128 * SECTOR]
    with linux.attach_disk(first) as one, linux.attach_disk(second) as other:
        made = linux.dm.create(
            "both",
            [Target(0, 32, "linear", f"{other.device} 16"), Target(32, 64, "linear", f"{one.device} 0")],
        )
        assert linux.read(made.path) == second[16 * SECTOR : 48 * SECTOR] + first
        linux.files.write(made.path, b"x" * SECTOR)
        assert linux.dm.devices() == ["both"]
        assert [target.kind for target in linux.dm.table("both")] == ["linear", "linear"]
        linux.dm.remove("both")
        assert linux.dm.devices() == []
        assert other.data()[16 * SECTOR : 17 * SECTOR] == b"x" * SECTOR
    assert requested(linux, "char-major-10-236")[-1] == "dm_mod"


def test_crypt_writes_what_cryptography_can_decrypt(linux: Kernel) -> None:
    """aes-xts-plain64: each sector by itself, its number the tweak."""
    key = NOISE[:64]
    with linux.attach_disk(bytes(len(TEXT) + -len(TEXT) % SECTOR + SECTOR)) as disk:
        sectors = len(disk.data()) // SECTOR
        table = [Target(0, sectors, "crypt", f"aes-xts-plain64 {key.hex()} 0 {disk.device} 0")]
        made = linux.dm.create("secret", table)
        linux.files.write(made.path, TEXT)
        assert linux.read(made.path)[: len(TEXT)] == TEXT
        assert linux.dm.table("secret")[0].parameters.split()[1] == key.hex()
        linux.dm.remove("secret")
        raw = disk.data()
    assert TEXT[:64] not in raw
    plain = b""
    for number in range(sectors):
        decryptor = Cipher(algorithms.AES(key), modes.XTS(number.to_bytes(16, "little"))).decryptor()
        plain += decryptor.update(raw[number * SECTOR : (number + 1) * SECTOR])
    assert plain[: len(TEXT)] == TEXT
    assert requested(linux, "dm-crypt")[-1] == "dm_crypt"


def test_a_file_system_lives_on_an_encrypted_disk(linux: Kernel, tmp_path: Path) -> None:
    image = ext4_image(tmp_path)
    key = NOISE[:64].hex()
    with linux.attach_disk(bytes(len(image))) as disk:
        made = linux.dm.create(
            "secret", [Target(0, len(image) // SECTOR, "crypt", f"aes-xts-plain64 {key} 0 {disk.device} 0")]
        )
        linux.files.write(made.path, image)
        linux.files.mount(made.path, "/root", "ext4")
        assert linux.read("/root/file") == TEXT
        with pytest.raises(Errno, match="EBUSY"):
            linux.dm.remove("secret")
        linux.files.umount("/root")
        after = linux.read(made.path)
        linux.dm.remove("secret")
    assert is_clean(after, tmp_path)


def test_zero_reads_as_zeros_and_error_does_not_read(linux: Kernel) -> None:
    made = linux.dm.create("half", [Target(0, 8, "zero"), Target(8, 8, "error")])
    assert requested(linux, "dm-zero")[-1] == "dm_zero"
    descriptor = linux.files.open(made.path)
    assert linux.files.read_from(descriptor, 8 * SECTOR) == bytes(8 * SECTOR)
    with pytest.raises(Errno, match="EIO"):
        linux.files.read_from(descriptor, SECTOR)
    linux.files.close(descriptor)


def test_another_table_comes_into_force_with_the_next_resume(linux: Kernel) -> None:
    with linux.attach_disk(NOISE[: 8 * SECTOR]) as disk:
        made = linux.dm.create("swapped", [Target(0, 8, "zero")])
        assert linux.read(made.path) == bytes(8 * SECTOR)
        linux.dm.load("swapped", [Target(0, 8, "linear", f"{disk.device} 0")])
        assert linux.dm.table("swapped")[0].kind == "zero"
        assert linux.dm.suspend("swapped") == Mapped("swapped", made.path, True)
        assert not linux.dm.resume("swapped").suspended
        assert linux.dm.table("swapped")[0].kind == "linear"
        assert linux.read(made.path) == NOISE[: 8 * SECTOR]
        linux.dm.remove("swapped")


def test_what_device_mapper_refuses_leaves_nothing(linux: Kernel) -> None:
    with pytest.raises(Errno, match="load the table of odd"):
        linux.dm.create("odd", [Target(0, 8, "nosuch")])
    with pytest.raises(Errno, match="load the table of odd"):
        linux.dm.create("odd", [Target(0, 8, "linear", "/dev/nosuch 0")])
    assert linux.dm.devices() == []
    with pytest.raises(Errno, match="ENXIO"):
        linux.dm.device("odd")
    with pytest.raises(UsageError, match="at most 127 bytes"):
        linux.dm.create("x" * 128, [])
    assert linux.dm.targets()["linear"] > (1, 0, 0)
