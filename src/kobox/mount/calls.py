"""System calls on files of the guest, by descriptor: what the tree that is shown to the host is made of.

Thinner than ``kernel.files``: names are bytes, nothing is said of an error but its number, and bulk data is neither
copied nor looked at on its way. Structures are the kernel's interface for programs (include/uapi/linux/stat.h,
asm/statfs.h, dirent.h).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kobox.errors import Errno
from kobox.kernel.guest import errno_of
from kobox.kernel.syscalls import AT_FDCWD, O_CREAT, O_DIRECTORY, O_RDONLY, Syscalls

O_EXCL, O_NOFOLLOW, O_CLOEXEC, O_PATH, O_TMPFILE = 0o200, 0o400000, 0o2000000, 0o10000000, 0o20200000
_AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_EMPTY_PATH = 0x100, 0x200, 0x1000
_BASIC_STATS = 0x7FF
_STATX = struct.Struct("<IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIII")
"""mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask; atime, btime, ctime, mtime;
rdev (major, minor), dev."""
_STATX_ROOM = 256
_STATFS = struct.Struct("<QQQQQQQ8xQQQ")
"""type, bsize, blocks, bfree, bavail, files, ffree, (fsid), namelen, frsize, flags."""
_STATFS_ROOM = 120
_DIRENT = struct.Struct("<QqHB")
_DIRENTS_ROOM = 32 << 10
_TIME = struct.Struct("<qq")
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_XATTR_ROOM = 64 << 10
_SECOND = 1_000_000_000
_EMFILE, _RLIMIT_NOFILE = 24, 7
_MOST_FILES = 1 << 20
"""fs.nr_open as kernels have it."""
_CLOCK_REALTIME = 0


class Stat(NamedTuple):
    """What the tree needs of a statx. Times in nanoseconds."""

    mode: int
    ino: int
    size: int
    nlink: int
    uid: int
    gid: int
    blocks: int
    blksize: int
    atime: int
    mtime: int
    ctime: int
    rdev: tuple[int, int]
    dev: tuple[int, int]


class Dirent(NamedTuple):
    """``next`` is the position behind it; ``kind`` a DT_ number."""

    name: bytes
    ino: int
    next: int
    kind: int


class GuestCalls:
    """Calls on one guest. Every one raises ``Errno`` of the guest's."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._sys = syscalls
        self._window = syscalls.window
        self._umask = -1

    def _call(self, name: str, *arguments: int) -> int:
        result = self._sys.call(name, *arguments)
        number = errno_of(result & (1 << 64) - 1)
        if number:
            if number == _EMFILE and self._allow_more_files():
                return self._call(name, *arguments)
            raise Errno(number, name)
        return result

    def _allow_more_files(self) -> bool:
        """Raise the limit of the task that serves; whether that was of use."""
        place = self._window.put(struct.pack("<QQ", _MOST_FILES, _MOST_FILES))
        old = self._window.reserve(16)
        if self._sys.call("prlimit64", 0, _RLIMIT_NOFILE, place, old):
            return False
        return bool(struct.unpack("<QQ", self._sys.guest.read(old, 16))[0] < _MOST_FILES)

    # -- names --------------------------------------------------------------------------------------------------

    def open_at(self, folder: int, name: bytes, flags: int, mode: int = 0) -> int:
        self._window.clear()
        return self._call("openat", folder, self._window.text(name), flags | O_CLOEXEC, mode)

    def open_path(self, path: bytes) -> int:
        """A descriptor that only names a folder."""
        return self.open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY)

    def name_at(self, folder: int, name: bytes) -> int:
        """A descriptor that only names a file, whatever kind it is of."""
        return self.open_at(folder, name, O_PATH | O_NOFOLLOW)

    def reopen(self, descriptor: int, flags: int) -> int:
        """Open what a descriptor names."""
        return self.open_at(AT_FDCWD, by_number(descriptor), flags)

    def close(self, descriptor: int) -> None:
        self._call("close", descriptor)

    def make_folder(self, folder: int, name: bytes, mode: int) -> None:
        self._window.clear()
        self._call("mkdirat", folder, self._window.text(name), mode)

    def make_node(self, folder: int, name: bytes, mode: int, rdev: int) -> None:
        self._window.clear()
        self._call("mknodat", folder, self._window.text(name), mode, rdev)

    def make_link(self, folder: int, name: bytes, target: bytes) -> None:
        """A symbolic one."""
        self._window.clear()
        self._call("symlinkat", self._window.text(target), folder, self._window.text(name))

    def link(self, descriptor: int, folder: int, name: bytes) -> None:
        window = self._window
        window.clear()
        self._call("linkat", descriptor, window.text(b""), folder, window.text(name), AT_EMPTY_PATH)

    def unlink(self, folder: int, name: bytes, flags: int = 0) -> None:
        self._window.clear()
        self._call("unlinkat", folder, self._window.text(name), flags)

    def rename(self, folder: int, name: bytes, new_folder: int, new_name: bytes, flags: int) -> None:
        window = self._window
        window.clear()
        self._call("renameat2", folder, window.text(name), new_folder, window.text(new_name), flags)

    def read_link(self, descriptor: int) -> bytes:
        self._window.clear()
        name, room = self._window.text(b""), self._window.reserve(4096)
        return self._sys.guest.read(room, self._call("readlinkat", descriptor, name, room, 4096))

    def set_umask(self, umask: int) -> None:
        """Of the tasks that serve; they share one."""
        if umask != self._umask:
            self._call("umask", umask)
            self._umask = umask

    # -- attributes ---------------------------------------------------------------------------------------------

    def stat(self, folder: int, name: bytes = b"") -> Stat:
        """Of a name, or of a descriptor itself."""
        self._window.clear()
        path, room = self._window.text(name), self._window.reserve(_STATX_ROOM)
        flags = _AT_SYMLINK_NOFOLLOW | (0 if name else AT_EMPTY_PATH)
        self._call("statx", folder, path, flags, _BASIC_STATS, room)
        (
            _, blksize, _, nlink, uid, gid, mode, ino, size, blocks, _, atime, atime_ns, _, _, ctime, ctime_ns,
            mtime, mtime_ns, major, minor, dev_major, dev_minor,
        ) = _STATX.unpack_from(self._window.view(room, _STATX_ROOM))  # fmt: skip
        return Stat(
            mode, ino, size, nlink, uid, gid, blocks, blksize,
            atime * _SECOND + atime_ns, mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns,
            (major, minor), (dev_major, dev_minor),
        )  # fmt: skip

    def change_mode(self, descriptor: int, mode: int) -> None:
        self._window.clear()
        self._call("fchmodat", AT_FDCWD, self._window.text(by_number(descriptor)), mode)

    def change_owner(self, descriptor: int, uid: int, gid: int) -> None:
        """-1: stays."""
        self._window.clear()
        self._call("fchownat", descriptor, self._window.text(b""), uid, gid, AT_EMPTY_PATH)

    def change_times(self, descriptor: int, atime: int | None, mtime: int | None, now: int) -> None:
        """In nanoseconds; None: stays; ``now`` is the number that means the present."""
        window = self._window
        window.clear()
        times = window.put(b"".join(_time(value, now) for value in (atime, mtime)))
        self._call("utimensat", descriptor, window.text(b""), times, AT_EMPTY_PATH)

    def truncate(self, descriptor: int, size: int) -> None:
        """What a descriptor names."""
        self._window.clear()
        self._call("truncate", self._window.text(by_number(descriptor)), size)

    def truncate_open(self, descriptor: int, size: int) -> None:
        """An open file."""
        self._call("ftruncate", descriptor, size)

    def statfs(self, descriptor: int) -> tuple[int, ...]:
        """bsize, blocks, bfree, bavail, files, ffree, namelen, frsize, flags."""
        self._window.clear()
        room = self._window.reserve(_STATFS_ROOM)
        self._call("fstatfs", descriptor, room)
        _, *rest = _STATFS.unpack_from(self._window.view(room, _STATFS_ROOM))
        return tuple(rest)

    def get_xattr(self, descriptor: int, name: bytes) -> bytes:
        window = self._window
        window.clear()
        path, key, room = window.text(by_number(descriptor)), window.text(name), window.reserve(_XATTR_ROOM)
        return self._sys.guest.read(room, self._call("getxattr", path, key, room, _XATTR_ROOM))

    def list_xattrs(self, descriptor: int) -> bytes:
        window = self._window
        window.clear()
        path, room = window.text(by_number(descriptor)), window.reserve(_XATTR_ROOM)
        return self._sys.guest.read(room, self._call("listxattr", path, room, _XATTR_ROOM))

    def set_xattr(self, descriptor: int, name: bytes, value: bytes, flags: int) -> None:
        window = self._window
        window.clear()
        path, key, content = window.text(by_number(descriptor)), window.text(name), window.put(value)
        self._call("setxattr", path, key, content, len(value), flags)

    def remove_xattr(self, descriptor: int, name: bytes) -> None:
        self._window.clear()
        self._call("removexattr", self._window.text(by_number(descriptor)), self._window.text(name))

    # -- content ------------------------------------------------------------------------------------------------

    def read(self, descriptor: int, offset: int, size: int) -> memoryview:
        """A view of the guest's own memory, good until the next call."""
        self._window.clear()
        room = self._window.reserve(size)
        return self._window.view(room, self._call("pread64", descriptor, room, size, offset))

    def write(self, descriptor: int, offset: int, data: memoryview) -> int:
        self._window.clear()
        room = self._window.reserve(len(data))
        self._window.view(room, len(data))[:] = data
        return self._call("pwrite64", descriptor, room, len(data), offset)

    def sync(self, descriptor: int, data_only: bool) -> None:
        self._call("fdatasync" if data_only else "fsync", descriptor)

    def sync_all(self, descriptor: int) -> None:
        """The whole file system that it belongs to."""
        self._call("syncfs", descriptor)

    def allocate(self, descriptor: int, mode: int, offset: int, length: int) -> None:
        self._call("fallocate", descriptor, mode, offset, length)

    def seek(self, descriptor: int, offset: int, whence: int) -> int:
        return self._call("lseek", descriptor, offset, whence)

    def copy_range(self, source: int, offset: int, target: int, target_offset: int, length: int, flags: int) -> int:
        window = self._window
        window.clear()
        here, there = window.put(struct.pack("<q", offset)), window.put(struct.pack("<q", target_offset))
        return self._call("copy_file_range", source, here, target, there, length, flags)

    def ioctl(self, descriptor: int, command: int, data: bytes, room: int, argument: int) -> tuple[int, bytes]:
        """``data`` and ``room`` as the command's number tells; without either the argument is a number."""
        window = self._window
        window.clear()
        if not data and not room:
            return self._call("ioctl", descriptor, command, argument), b""
        place = window.put(data.ljust(max(len(data), room), b"\0"))
        result = self._call("ioctl", descriptor, command, place)
        return result, self._sys.guest.read(place, room)

    def entries(self, descriptor: int) -> list[Dirent]:
        """The next entries of an open folder; none at its end."""
        self._window.clear()
        room = self._window.reserve(_DIRENTS_ROOM)
        count = self._call("getdents64", descriptor, room, _DIRENTS_ROOM)
        data = self._sys.guest.read(room, count)
        found, at = [], 0
        while at < count:
            ino, behind, length, kind = _DIRENT.unpack_from(data, at)
            start = at + _DIRENT.size
            found.append(Dirent(data[start : data.index(0, start)], ino, behind, kind))
            at += length
        return found

    # -- the guest itself ---------------------------------------------------------------------------------------

    def set_clock(self, nanoseconds: int) -> None:
        """The time that files get."""
        self._window.clear()
        self._call("clock_settime", _CLOCK_REALTIME, self._window.put(_TIME.pack(*divmod(nanoseconds, _SECOND))))


def by_number(descriptor: int) -> bytes:
    """A path to what a descriptor names."""
    return b"/proc/self/fd/%d" % descriptor


def _time(value: int | None, now: int) -> bytes:
    if value is None:
        return _TIME.pack(0, _UTIME_OMIT)
    if value == now:
        return _TIME.pack(0, _UTIME_NOW)
    return _TIME.pack(*divmod(value, _SECOND))


__all__ = ["O_CREAT", "O_DIRECTORY", "O_RDONLY", "Dirent", "GuestCalls", "Stat"]
