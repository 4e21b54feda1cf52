"""Images that are mounted now, as the host's kernel lists them, and their end."""

from __future__ import annotations

import os
import re
import select
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kobox import fuse
from kobox.errors import KoboxError, UsageError
from kobox.mount.disk import lock_holder

_TYPE = "fuse.kobox"
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class ImageMount:
    """``pid``: the process that serves it; None where it has ended and left a dead folder behind."""

    image: str
    folder: str
    read_only: bool
    pid: int | None

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def image_mounts() -> list[ImageMount]:
    """All of them that this process can see."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split(" ")
        kind, source = words[words.index("-") + 1 : words.index("-") + 3]
        if kind == _TYPE and source != "kobox":
            image, folder = _plain(source), _plain(words[4])
            pid = None if fuse.is_dead(folder) else lock_holder(image)
            found.append(ImageMount(image, folder, "ro" in words[5].split(","), pid))
    return found


def unmount_image(folder: str, lazy: bool = False) -> ImageMount:
    """Unmount, and wait until everything is in the image and its process has ended; ``lazy``: neither waits for who
    uses it nor for the end."""
    parent, name = os.path.split(os.path.abspath(folder))
    real = os.path.join(os.path.realpath(parent), name)  # the folder itself may be dead
    there = [mount for mount in image_mounts() if mount.folder == real]
    if not there:
        raise UsageError(f"{folder}: no image is mounted there", hint="'kobox mount' lists what is")
    mount = there[-1]
    server = None if mount.pid is None else _watch(mount.pid)
    try:
        fuse.unmount(mount.folder, lazy or mount.pid is None)
        if server is not None and not lazy:
            select.select([server], [], [])
    finally:
        if server is not None:
            os.close(server)
    return mount


def check_folder(folder: str) -> None:
    """Refuse a folder on which nothing can be mounted, before anything is booted."""
    if fuse.is_dead(folder):
        raise KoboxError(f"{folder}: an image whose process was killed is still mounted", hint=f"kobox umount {folder}")
    if not os.path.isdir(folder):
        raise UsageError(f"{folder}: no directory to mount on")


def _watch(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where it has."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
