"""Images mounted by ``kobox mount`` in tests: made by real tools, served by a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from needs import need_fuse, need_program

MEGABYTE = 1 << 20


def run(*words: str | Path) -> str:
    """A program that must succeed; what it printed."""
    need_program(str(words[0]))
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def blank(path: Path, megabytes: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(megabytes * MEGABYTE)
    return path


def kobox(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    line = [sys.executable, "-m", "kobox", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def mount(image: Path, folder: Path, root: Path, *words: str) -> dict[str, Any]:
    """``kobox mount``: what it says of itself."""
    need_fuse()
    done = kobox("mount", "--json", "--image", root, *words, image, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    about: dict[str, Any] = json.loads(done.stdout)
    return about


def umount(folder: Path) -> None:
    """``kobox umount``."""
    done = kobox("umount", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@contextlib.contextmanager
def mounted(image: Path, folder: Path, root: Path, *words: str) -> Iterator[dict[str, Any]]:
    """Mounted while the block runs; whatever it raises, nothing stays."""
    folder.mkdir(exist_ok=True)
    about = mount(image, folder, root, *words)
    try:
        yield about
    except BaseException:
        kill(about["pid"])
        kobox("umount", folder)
        raise
    umount(folder)


def kill(pid: int) -> None:
    """Without a warning, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        import select

        select.select([watched], [], [], 30)
        os.close(watched)


MAKERS: dict[str, tuple[int, Sequence[str], Sequence[str]]] = {
    "ext4": (64, ("mkfs.ext4", "-q", "-F"), ("e2fsck", "-f", "-n")),
    "vfat": (64, ("mkfs.vfat",), ("fsck.vfat", "-n")),
    "xfs": (320, ("mkfs.xfs", "-q", "-f"), ("xfs_repair", "-n", "-f")),
    "btrfs": (128, ("mkfs.btrfs", "-q"), ("btrfs", "check", "--readonly")),
    "f2fs": (128, ("mkfs.f2fs", "-q"), ("fsck.f2fs", "--dry-run")),
    "ntfs3": (64, ("mkfs.ntfs", "-q", "-F", "-f"), ("ntfsfix", "-n")),
}
"""Megabytes, what makes an image, and what finds it clean."""


def made(kind: str, path: Path) -> Path:
    """An empty file system of a kind."""
    megabytes, make, _ = MAKERS[kind]
    blank(path, megabytes)
    run(*make, path)
    return path


def check(kind: str, image: Path) -> None:
    """Have its own tool find it clean."""
    run(*MAKERS[kind][2], image)
