"""File systems made by real tools, mounted by the distribution's modules, written, and found clean by real tools."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from errno import EROFS
from pathlib import Path

import pytest

from kobox.box import Kernel
from kobox.errors import Errno
from kobox.kernel.syscalls import O_CREAT, O_WRONLY
from needs import need_program

pytestmark = pytest.mark.image

MEGABYTE = 1 << 20
CONTENT = b"".join(b"line %d of a file that needs several blocks\n" % number for number in range(3000))
MS_RDONLY = 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What goes into an image when it is made."""
    folder = tmp_path / "tree"
    (folder / "below").mkdir(parents=True)
    (folder / "below/file").write_bytes(CONTENT)
    (folder / "link").symlink_to("below/file")
    return folder


def run(*words: str | Path) -> str:
    need_program(str(words[0]))
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def blank(path: Path, megabytes: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(megabytes * MEGABYTE)
    return path


WRITABLE: dict[str, tuple[int, Sequence[str], Sequence[str]]] = {
    "ext4": (16, ("mkfs.ext4", "-q", "-F"), ("e2fsck", "-f", "-n")),
    "vfat": (16, ("mkfs.vfat",), ("fsck.vfat", "-n")),
    "xfs": (320, ("mkfs.xfs", "-q", "-f"), ("xfs_repair", "-n", "-f")),
    "btrfs": (128, ("mkfs.btrfs", "-q"), ("btrfs", "check", "--readonly")),
    "f2fs": (64, ("mkfs.f2fs", "-q", "-f"), ("fsck.f2fs", "--dry-run")),
}
"""Megabytes, what makes an image, and what finds it clean. (btrfs and xfs refuse small ones.)"""


@pytest.mark.parametrize("kind", WRITABLE)
def test_what_is_written_is_there_after_the_next_mount_and_the_image_is_clean(
    linux: Kernel, kind: str, tmp_path: Path
) -> None:
    megabytes, make, check = WRITABLE[kind]
    image = blank(tmp_path / "image", megabytes)
    run(*make, image)
    with linux.attach_disk(image) as disk:
        linux.files.mount(disk.device, "/root", kind)
        linux.files.mkdir("/root/below")
        linux.files.write("/root/below/file", CONTENT, O_WRONLY | O_CREAT)
        linux.files.umount("/root")
        linux.files.mount(disk.device, "/root", kind, MS_RDONLY)
        assert linux.read("/root/below/file") == CONTENT
        linux.files.umount("/root")
        image.write_bytes(disk.data())
    (request,) = (request for request in linux.autoloaded if request.name == f"fs-{kind}")
    assert request.modules[-1] == kind
    run(*check, image)


def test_ext4_is_read_as_its_tools_made_it(linux: Kernel, tree: Path, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 16)
    run("mkfs.ext4", "-q", "-F", "-d", tree, image)
    with linux.attach_disk(image, read_only=True) as disk:
        linux.files.mount(disk.device, "/root", "ext4", MS_RDONLY)
        assert linux.read("/root/link") == CONTENT
        assert {"below", "link", "lost+found"} == {entry.name for entry in linux.ls("/root")}
        linux.files.umount("/root")


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("squashfs", ("mksquashfs", "TREE", "IMAGE", "-quiet", "-no-progress")),
        ("erofs", ("mkfs.erofs", "IMAGE", "TREE")),
    ],
)
def test_images_that_are_only_read(linux: Kernel, tree: Path, tmp_path: Path, kind: str, make: Sequence[str]) -> None:
    image = tmp_path / "image"
    run(*({"TREE": str(tree), "IMAGE": str(image)}.get(word, word) for word in make))
    with linux.attach_disk(image) as disk:
        linux.files.mount(disk.device, "/root", kind, MS_RDONLY)
        assert linux.read("/root/link") == CONTENT
        with pytest.raises(Errno) as refused:
            linux.files.mkdir("/root/new")
        assert refused.value.number == EROFS
        linux.files.umount("/root")


def test_a_damaged_image_is_refused_by_the_kernel(linux: Kernel, tmp_path: Path) -> None:
    with linux.attach_disk(bytes(4 * MEGABYTE)) as disk, pytest.raises(Errno, match="EINVAL: mount /dev/loop"):
        linux.files.mount(disk.device, "/root", "ext4")
    assert any("VFS: Can't find ext4 filesystem" in record.text for record in linux.dmesg())


def test_disks_come_and_go(linux: Kernel) -> None:
    with linux.attach_disk(b"a" * MEGABYTE) as one, linux.attach_disk(b"b" * MEGABYTE) as two:
        assert one.device != two.device
        assert linux.read(two.device) == b"b" * MEGABYTE
        assert one.data() == b"a" * MEGABYTE
    with linux.attach_disk(b"c" * MEGABYTE) as again:
        assert again.device == one.device
        assert linux.read(again.device) == b"c" * MEGABYTE
