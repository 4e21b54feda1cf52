"""Device-mapper devices of a guest by the ioctls of ``/dev/mapper/control``, as ``dmsetup`` makes them.

The kernel loads the module of a target (``dm-crypt`` …) and device-mapper itself when it is asked. Follows
include/uapi/linux/dm-ioctl.h; parameters of targets: Documentation/admin-guide/device-mapper/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from errno import ENOENT
from typing import NamedTuple

from kobox.errors import Errno, GuestError, UsageError
from kobox.kernel.files import Files
from kobox.kernel.syscalls import O_RDWR

CONTROL = "/dev/mapper/control"
SECTOR = 512
"""Bytes of a sector in every table, whatever the disks' own are."""
_CONTROL_NUMBER = 10, 236  # MISC_MAJOR, MAPPER_CTRL_MINOR of include/linux/miscdevice.h
_CHARACTER = 0o20600
_HEADER = struct.Struct("<3IIIIiIIIQ128s129s7x")
_TARGET = struct.Struct("<QQiI16s")
_NAME, _VERSION_ROW = struct.Struct("<QI"), struct.Struct("<I3I")
_REQUEST = 0xC138_FD00
"""``_IOWR(0xfd, command, struct dm_ioctl)``."""
_LIST, _CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TABLE, _VERSIONS = 2, 3, 4, 6, 7, 9, 12, 13
_READ_ONLY, _SUSPENDED, _WANT_TABLE, _FULL = 1, 1 << 1, 1 << 4, 1 << 8
_ROOM = 1 << 14
_LONGEST_NAME = 127


class Target(NamedTuple):
    """One line of a table: ``sectors`` sectors from ``start`` on are served by the target ``kind``."""

    start: int
    sectors: int
    kind: str
    parameters: str = ""


class Mapped(NamedTuple):
    """One device. ``path`` is its node, which reads and writes as any other's."""

    name: str
    path: str
    suspended: bool


class _Answer(NamedTuple):
    """What an ioctl gave back: its header's fields that matter, and the data behind."""

    targets: int
    flags: int
    device: int
    data: bytes


class DeviceMapper:
    """The device-mapper of one guest."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def create(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> Mapped:
        """``dmsetup create``: make a device, give it its table, let it work. ``Errno`` says what the kernel refused;
        then nothing is left of it."""
        self._ask(f"create {name}", _CREATE, name)
        try:
            self.load(name, table, read_only=read_only)
            return self.resume(name)
        except Errno:
            self.remove(name)
            raise

    def load(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> None:
        """``dmsetup load``: a table that comes into force with the next ``resume``."""
        data = b"".join(_packed(target) for target in table)
        flags = _READ_ONLY if read_only else 0
        self._ask(f"load the table of {name}", _LOAD, name, flags, len(table), data)

    def suspend(self, name: str) -> Mapped:
        """``dmsetup suspend``: what is written waits."""
        return _mapped(name, self._ask(f"suspend {name}", _SUSPEND, name, _SUSPENDED))

    def resume(self, name: str) -> Mapped:
        """``dmsetup resume``."""
        return _mapped(name, self._ask(f"resume {name}", _SUSPEND, name))

    def remove(self, name: str) -> None:
        """``dmsetup remove``; ``Errno(EBUSY)`` while somebody has it open."""
        self._ask(f"remove {name}", _REMOVE, name)

    def device(self, name: str) -> Mapped:
        """``dmsetup info``; ``Errno(ENXIO)``."""
        return _mapped(name, self._ask(f"look at {name}", _STATUS, name))

    def table(self, name: str) -> list[Target]:
        """``dmsetup table``: with the keys that it holds."""
        return list(_targets(self._ask(f"the table of {name}", _TABLE, name, _WANT_TABLE)))

    def status(self, name: str) -> list[Target]:
        """``dmsetup status``: what each target says of its work, in the place of its parameters."""
        return list(_targets(self._ask(f"the status of {name}", _TABLE, name)))

    def devices(self) -> list[str]:
        """``dmsetup ls``: the names."""
        data = self._ask("list devices", _LIST).data
        found: list[str] = []
        at = 0
        while True:
            device, following = _NAME.unpack_from(data, at)
            if not device:
                return found  # an empty list has one row of zeros
            found.append(_text(data, at + _NAME.size))
            if not following:
                return found
            at += following

    def targets(self) -> dict[str, tuple[int, int, int]]:
        """``dmsetup targets``: the version of each kind of target that is there now."""
        data = self._ask("list targets", _VERSIONS).data
        found: dict[str, tuple[int, int, int]] = {}
        at = 0
        while True:
            following, *version = _VERSION_ROW.unpack_from(data, at)
            found[_text(data, at + _VERSION_ROW.size)] = (version[0], version[1], version[2])
            if not following:
                return found
            at += following

    # -- asking -------------------------------------------------------------------------------------------------

    def _ask(
        self, what: str, command: int, name: str = "", flags: int = 0, count: int = 0, data: bytes = b""
    ) -> _Answer:
        raw = name.encode()
        if len(raw) > _LONGEST_NAME:
            raise UsageError(f"the name of a device has at most {_LONGEST_NAME} bytes, found {len(raw)}")
        size = _HEADER.size + max(_ROOM, len(data))
        header = _HEADER.pack(4, 0, 0, size, _HEADER.size, count, 0, flags, 0, 0, 0, raw, b"")
        descriptor = self._open()
        try:
            _, answer = self._files.ioctl(
                descriptor, _REQUEST | command, (header + data).ljust(size, b"\0")
            )  # fmt: skip
        except Errno as error:
            raise Errno(error.number, f"device-mapper: {what}") from error
        finally:
            self._files.close(descriptor)
        _, _, _, _, start, count, _, flags, _, _, device, _, _ = _HEADER.unpack_from(answer)
        if flags & _FULL:
            raise GuestError(f"device-mapper: {what}: the answer does not fit {_ROOM} bytes")
        return _Answer(count, flags, device, answer[start:])

    def _open(self) -> int:
        """The control node; where device-mapper is no part of the kernel, opening it brings the module."""
        try:
            return self._files.open(CONTROL, O_RDWR)
        except Errno as error:
            if error.number != ENOENT:
                raise
        if not any(entry.name == "mapper" for entry in self._files.list("/dev")):
            self._files.mkdir("/dev/mapper")
        self._files.mknod(CONTROL, _CHARACTER, *_CONTROL_NUMBER)
        return self._files.open(CONTROL, O_RDWR)


def _packed(target: Target) -> bytes:
    """``struct dm_target_spec`` and its parameters, padded to eight bytes."""
    text = target.parameters.encode() + b"\0"
    size = _TARGET.size + len(text) + 7 & ~7
    return (_TARGET.pack(target.start, target.sectors, 0, size, target.kind.encode()) + text).ljust(size, b"\0")


def _targets(answer: _Answer) -> Iterator[Target]:
    """The rows of a table; each says where the next begins, counted from the first."""
    at = 0
    for _ in range(answer.targets):
        start, sectors, _, following, kind = _TARGET.unpack_from(answer.data, at)
        yield Target(start, sectors, _text(kind, 0), _text(answer.data, at + _TARGET.size))
        at = following


def _mapped(name: str, answer: _Answer) -> Mapped:
    minor = answer.device & 0xFF | answer.device >> 12 & ~0xFF
    return Mapped(name, f"/dev/dm-{minor}", bool(answer.flags & _SUSPENDED))


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at)
    return data[at : end if end >= 0 else len(data)].decode("utf-8", "replace")
