"""Disks for a running guest: an image is copied into its memory and becomes a loop device, which its own driver serves.

The kernel asks for the driver when its control node is opened, and for a file system when the disk is mounted. Follows
include/uapi/linux/loop.h.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kobox.errors import Errno
from kobox.kernel.files import Files
from kobox.kernel.syscalls import O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY

_CONTROL, _CONTROL_MAJOR, _CONTROL_MINOR = "/dev/loop-control", 10, 237
_LOOP_MAJOR = 7
_GET_FREE, _SET_FD, _CLEAR_FD = 0x4C82, 0x4C00, 0x4C01
_FOLDER = "/run-kobox"
_EEXIST, _ENXIO = 17, 6
_SEEK_DATA = 3
_CHUNK, _GRAIN = 4 << 20, 256 << 10
_ZEROS = bytes(_GRAIN)


class Disk:
    """One attached image. ``device`` is its node; a context manager: it is detached at the end."""

    def __init__(self, files: Files, device: str, backing: str) -> None:
        self._files, self.device, self._backing = files, device, backing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def data(self) -> bytes:
        """The image as it is now: what has been written to the disk, without what only the guest's cache holds. After
        an unmount that is everything."""
        files = self._files
        image = bytearray(files.status(self._backing).size)
        descriptor, at = files.open(self._backing), 0
        try:
            while (at := _next_data(files, descriptor, at)) >= 0:
                chunk = files.read_from(descriptor, _CHUNK)
                image[at : at + len(chunk)] = chunk
                at += len(chunk)
        finally:
            files.close(descriptor)
        return bytes(image)

    def detach(self) -> None:
        """Take the device away; a mounted one goes when it is unmounted."""
        descriptor = self._files.open(self.device, O_RDONLY)
        try:
            self._files.ioctl(descriptor, _CLEAR_FD)
        finally:
            self._files.close(descriptor)
        self._files.unlink(self._backing)


def attach(files: Files, image: bytes, read_only: bool = False) -> Disk:
    """Make ``image`` a disk. It takes as much of the guest's memory as is in it, and nothing goes back by itself."""
    _quietly(_EEXIST, lambda: files.mknod(_CONTROL, stat.S_IFCHR | 0o600, _CONTROL_MAJOR, _CONTROL_MINOR))
    control = files.open(_CONTROL, O_RDWR)
    try:
        number, _ = files.ioctl(control, _GET_FREE)
    finally:
        files.close(control)
    device, backing = f"/dev/loop{number}", f"{_FOLDER}/disk{number}"
    _quietly(_EEXIST, lambda: files.mknod(device, stat.S_IFBLK | 0o600, _LOOP_MAJOR, number))
    _quietly(_EEXIST, lambda: files.mkdir(_FOLDER, 0o700))
    _store(files, backing, image)
    mode = O_RDONLY if read_only else O_RDWR
    file, loop = files.open(backing, mode), files.open(device, mode)
    try:
        files.ioctl(loop, _SET_FD, file)
    finally:
        files.close(loop)
        files.close(file)
    return Disk(files, device, backing)


def _store(files: Files, path: str, data: bytes) -> None:
    """A file that takes memory only for what is not zero: images are mostly empty."""
    descriptor = files.open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    try:
        files.truncate(descriptor, len(data))
        for at in range(0, len(data), _GRAIN):
            if (chunk := data[at : at + _GRAIN]) != _ZEROS[: len(chunk)]:
                files.seek(descriptor, at)
                while chunk:
                    chunk = chunk[files.write_to(descriptor, chunk) :]
    finally:
        files.close(descriptor)


def _next_data(files: Files, descriptor: int, at: int) -> int:
    """Where the next bytes lie that were ever written; -1 at the end."""
    try:
        return files.seek(descriptor, at, _SEEK_DATA)
    except Errno as error:
        if error.number != _ENXIO:
            raise
        return -1


def _quietly(number: int, call: Callable[[], None]) -> None:
    """Make a call for which one error is as good as success."""
    try:
        call()
    except Errno as error:
        if error.number != number:
            raise
