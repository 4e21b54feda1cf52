"""Misc devices of the bare kernel: which there are, and the calls that files on them make.

Each call is a generator of guest calls, as everything that runs module code from Python is.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kobox.bare.calls import Steps
from kobox.errors import Errno

if TYPE_CHECKING:
    from kobox.bare.guest import BareGuest

_MISC_MAJOR = 10
_DYNAMIC, _FIRST_DYNAMIC = 255, 127
_S_IFCHR = 0o020000
_FMODE_READ, _FMODE_WRITE, _FMODE_LSEEK = 1, 2, 4
_O_ACCMODE = 3


@dataclass(slots=True)
class OpenDevice:
    """An open file on a device: ``file`` and ``operations`` are guest addresses."""

    name: str
    file: int
    inode: int
    operations: int
    owner: int


class Devices:
    """``miscdevice`` structures by their name in /dev."""

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest
        self.registered: dict[str, int] = {}

    def register(self, device: int) -> None:
        guest = self._guest
        view = guest.view("miscdevice", device)
        name = guest.read_cstr(view["nodename"] or view["name"]).decode("latin-1")
        taken = {guest.view("miscdevice", other)["minor"] for other in self.registered.values()}
        if view["minor"] == _DYNAMIC:
            free = [minor for minor in range(_FIRST_DYNAMIC, -1, -1) if minor not in taken]
            if not free:
                raise Errno(errno.EBUSY, "no minor number is left")
            view["minor"] = free[0]
        elif view["minor"] in taken:
            raise Errno(errno.EBUSY, f"minor {view['minor']} is taken")
        self.registered[name] = device

    def unregister(self, device: int) -> None:
        self.registered = {name: other for name, other in self.registered.items() if other != device}

    def mode(self, name: str) -> int:
        return _S_IFCHR | (self._guest.view("miscdevice", self.registered[name])["mode"] & 0o777 or 0o600)

    def open(self, name: str, flags: int) -> Steps:
        """An ``OpenDevice``, or ``Errno``."""
        guest = self._guest
        device = self.registered.get(name)
        if device is None:
            raise Errno(errno.ENOENT, f"/dev/{name}")
        view = guest.view("miscdevice", device)
        operations = view["fops"]
        owner = guest.view("file_operations", operations)["owner"]
        if owner and not guest.modules.get(owner):
            raise Errno(errno.ENODEV, f"/dev/{name}: its module is going")
        file = guest.heap.allocate(guest.layouts.size("file"), internal=True)
        inode = guest.heap.allocate(guest.layouts.size("inode"), internal=True)
        opened = guest.view("file", file)
        access = flags & _O_ACCMODE
        mode = (_FMODE_READ if access != 1 else 0) | (_FMODE_WRITE if access else 0) | _FMODE_LSEEK
        opened["f_op"], opened["f_mode"], opened["f_flags"] = operations, mode, flags
        opened["private_data"] = device
        guest.view("inode", inode)["i_rdev"] = _MISC_MAJOR << 20 | view["minor"]
        result = OpenDevice(name, file, inode, operations, owner)
        try:
            yield from self._call(result, "open", inode, file)
        except Errno:
            self._drop(result)
            raise
        return result

    def close(self, opened: OpenDevice) -> Steps:
        try:
            yield from self._call(opened, "release", opened.inode, opened.file)
        finally:
            self._drop(opened)

    def _drop(self, opened: OpenDevice) -> None:
        self._guest.heap.release(opened.file)
        self._guest.heap.release(opened.inode)
        if opened.owner:
            self._guest.modules.put(opened.owner)

    def transfer(self, opened: OpenDevice, operation: str, buffer: int, size: int) -> Steps:
        """``read`` or ``write``: the number of bytes."""
        wanted = _FMODE_READ if operation == "read" else _FMODE_WRITE
        file = self._guest.view("file", opened.file)
        if not file["f_mode"] & wanted:
            raise Errno(errno.EBADF, operation)
        if not self._guest.view("file_operations", opened.operations)[operation]:
            raise Errno(errno.EINVAL, f"/dev/{opened.name} has no {operation}")
        return (yield from self._call(opened, operation, opened.file, buffer, size, file.at("f_pos")))

    def ioctl(self, opened: OpenDevice, request: int, argument: int) -> Steps:
        if not self._guest.view("file_operations", opened.operations)["unlocked_ioctl"]:
            raise Errno(errno.ENOTTY, f"/dev/{opened.name}")
        return (yield from self._call(opened, "unlocked_ioctl", opened.file, request, argument))

    def seek(self, opened: OpenDevice, offset: int, whence: int) -> Steps:
        if not self._guest.view("file_operations", opened.operations)["llseek"]:
            raise Errno(errno.ESPIPE, f"/dev/{opened.name}")
        return (yield from self._call(opened, "llseek", opened.file, offset, whence))

    def _call(self, opened: OpenDevice, operation: str, *arguments: int) -> Steps:
        function = self._guest.view("file_operations", opened.operations)[operation]
        if not function:
            return 0
        value = yield (function, *arguments)
        if operation in ("open", "release"):
            value &= 0xFFFF_FFFF
            value |= 0xFFFF_FFFF_0000_0000 if value >> 31 else 0
        number = (1 << 64) - value
        if number <= 4095:
            raise Errno(number, f"{operation} of /dev/{opened.name}")
        return value
