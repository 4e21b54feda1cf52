"""The disk of an image: locked on the host for as long as it is mounted, whole or from some offset on."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kobox.devices.backing import FileBacking
from kobox.errors import KoboxError, UsageError
from kobox.mount.probe import Mark, probe

if TYPE_CHECKING:
    from kobox.box import Kernel
    from kobox.devices.disks import LiveDisk

_SECTOR = 512


class ImageLock:
    """Nobody else of kobox writes to the image meanwhile. Kept by the open file, so that it goes with the process."""

    def __init__(self, path: str, read_only: bool) -> None:
        try:
            mode = os.stat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise UsageError(f"{path}: neither a file nor a block device")
            exclusive = os.O_EXCL if stat.S_ISBLK(mode) and not read_only else 0  # refused while the host mounts it
            self._descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | exclusive)
        except OSError as error:
            hint = "-o ro" if not read_only and error.errno in (13, 30) else None
            raise UsageError(f"{path}: {error.strerror}", hint) from error
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            holder = lock_holder(path)
            who = f" by process {holder}" if holder else ""
            raise KoboxError(f"{path} is mounted already{who}", hint="'kobox mount' lists what is") from None

    def release(self) -> None:
        os.close(self._descriptor)


def lock_holder(path: str) -> int | None:
    """The process that holds an image's lock; None where nobody does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5] == device:
            return int(words[4])
    return None


class Rest:
    """A backing from ``offset`` bytes on."""

    def __init__(self, inner: FileBacking, offset: int) -> None:
        self._inner, self._offset = inner, offset
        self.size = inner.size - offset

    def read(self, offset: int, count: int) -> bytes:
        return self._inner.read(self._offset + offset, count)

    def write(self, offset: int, data: bytes) -> None:
        self._inner.write(self._offset + offset, data)

    def read_into(self, offset: int, parts: Sequence[memoryview]) -> None:
        self._inner.read_into(self._offset + offset, parts)

    def write_from(self, offset: int, parts: Sequence[memoryview]) -> None:
        self._inner.write_from(self._offset + offset, parts)

    def flush(self) -> None:
        self._inner.flush()


def attach(kernel: Kernel, path: str, read_only: bool, offset: int = 0) -> LiveDisk:
    """Make an image a disk of the kernel."""
    backing = FileBacking(path, read_only)
    if not 0 <= offset < backing.size:
        raise UsageError(f"{path}: no offset {offset} in {backing.size} bytes")
    return kernel.attach_disk(Rest(backing, offset) if offset else backing, read_only=read_only, live=True)


def choose(kernel: Kernel, disk: LiveDisk, path: str, offset: int, partition: int | None) -> tuple[str, int]:
    """The device to mount, and where it begins in the image. The kernel itself has read the table of partitions."""
    starts = {int(node.removeprefix(disk.device)): _start(kernel, node) for node in disk.partitions}
    if partition is not None:
        if partition not in starts:
            there = f"it has {', '.join(map(str, sorted(starts)))}" if starts else "it has no partitions"
            raise UsageError(f"{path}: no partition {partition}", hint=there)
        return f"{disk.device}{partition}", offset + starts[partition]
    if not starts or is_file_system(probe(path, offset)):
        return disk.device, offset
    found = {number: probe(path, offset + start) for number, start in sorted(starts.items())}
    usable = [number for number, mark in found.items() if is_file_system(mark)]
    if len(usable) != 1:
        rows = (f"{number} {mark.kind or mark.what if mark else 'not known'}" for number, mark in found.items())
        raise UsageError(f"{path}: a disk with partitions: {', '.join(rows)}", hint="--partition N")
    return f"{disk.device}{usable[0]}", offset + starts[usable[0]]


def is_file_system(mark: Mark | None) -> bool:
    return mark is not None and mark.kind != ""


def _start(kernel: Kernel, node: str) -> int:
    return int(kernel.read(f"/sys/class/block/{node.rsplit('/', 1)[1]}/start")) * _SECTOR
