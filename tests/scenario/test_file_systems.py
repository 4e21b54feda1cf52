"""File systems made by real tools, mounted by the distribution's modules, written, and found clean by real tools."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from errno import EROFS
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.errors import Errno
from kobox.kernel.syscalls import O_CREAT, O_WRONLY
from needs import need_program

pytestmark = pytest.mark.image

MEGABYTE = 1 << 20
CONTENT = b"".join(b"line %d of a file that needs several blocks\n" % number for number in range(3000))
MS_RDONLY = 1


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def booted(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    root: Path = request.getfixturevalue(request.param)
    with kobox.boot(root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.reset()
    return booted


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
}
"""Megabytes, what makes an image, and what finds it clean. (btrfs and xfs refuse small ones.)"""


@pytest.mark.parametrize("kind", WRITABLE)
def test_what_is_written_is_there_after_the_next_mount_and_the_image_is_clean(
    kernel: Kernel, kind: str, tmp_path: Path
) -> None:
    megabytes, make, check = WRITABLE[kind]
    image = blank(tmp_path / "image", megabytes)
    run(*make, image)
    with kernel.attach_disk(image) as disk:
        kernel.files.mount(disk.device, "/root", kind)
        kernel.files.mkdir("/root/below")
        kernel.files.write("/root/below/file", CONTENT, O_WRONLY | O_CREAT)
        kernel.files.umount("/root")
        kernel.files.mount(disk.device, "/root", kind, MS_RDONLY)
        assert kernel.read("/root/below/file") == CONTENT
        kernel.files.umount("/root")
        image.write_bytes(disk.data())
    (request,) = (request for request in kernel.autoloaded if request.name == f"fs-{kind}")
    assert request.modules[-1] == kind
    run(*check, image)


def test_ext4_is_read_as_its_tools_made_it(kernel: Kernel, tree: Path, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 16)
    run("mkfs.ext4", "-q", "-F", "-d", tree, image)
    with kernel.attach_disk(image, read_only=True) as disk:
        kernel.files.mount(disk.device, "/root", "ext4", MS_RDONLY)
        assert kernel.read("/root/link") == CONTENT
        assert {"below", "link", "lost+found"} == {entry.name for entry in kernel.ls("/root")}
        kernel.files.umount("/root")


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("squashfs", ("mksquashfs", "TREE", "IMAGE", "-quiet", "-no-progress")),
        ("erofs", ("mkfs.erofs", "IMAGE", "TREE")),
    ],
)
def test_images_that_are_only_read(kernel: Kernel, tree: Path, tmp_path: Path, kind: str, make: Sequence[str]) -> None:
    image = tmp_path / "image"
    run(*({"TREE": str(tree), "IMAGE": str(image)}.get(word, word) for word in make))
    with kernel.attach_disk(image) as disk:
        kernel.files.mount(disk.device, "/root", kind, MS_RDONLY)
        assert kernel.read("/root/link") == CONTENT
        with pytest.raises(Errno) as refused:
            kernel.files.mkdir("/root/new")
        assert refused.value.number == EROFS
        kernel.files.umount("/root")


def test_a_damaged_image_is_refused_by_the_kernel(kernel: Kernel, tmp_path: Path) -> None:
    with kernel.attach_disk(bytes(4 * MEGABYTE)) as disk, pytest.raises(Errno, match="EINVAL: mount /dev/loop"):
        kernel.files.mount(disk.device, "/root", "ext4")
    assert any("VFS: Can't find ext4 filesystem" in record.text for record in kernel.dmesg())


def test_disks_come_and_go(kernel: Kernel) -> None:
    with kernel.attach_disk(b"a" * MEGABYTE) as one, kernel.attach_disk(b"b" * MEGABYTE) as two:
        assert one.device != two.device
        assert kernel.read(two.device) == b"b" * MEGABYTE
        assert one.data() == b"a" * MEGABYTE
    with kernel.attach_disk(b"c" * MEGABYTE) as again:
        assert again.device == one.device
        assert kernel.read(again.device) == b"c" * MEGABYTE
