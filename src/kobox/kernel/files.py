"""Files of the guest's own tree, through its own VFS: /proc, /sys, /dev and whatever is mounted."""

from __future__ import annotations

import struct
from errno import EAGAIN, EINTR

from kobox.errors import Errno
from kobox.kernel.records import DirEntry, Status
from kobox.kernel.syscalls import AT_FDCWD, O_DIRECTORY, O_NONBLOCK, O_RDONLY, O_WRONLY, Syscalls

_CHUNK = 1 << 16
_LARGE = 1 << 20
"""For the rest of a file. Some of the kernel's make room for all that is asked for: not at first."""
_SEEK_DATA = 3
_DIRENT = struct.Struct("<QqHB")
_KINDS = {1: "fifo", 2: "char", 4: "dir", 6: "block", 8: "file", 10: "link", 12: "socket"}


class Files:
    """Whole-file operations and single calls on descriptors."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._sys = syscalls

    def open(self, path: str, flags: int = O_RDONLY, mode: int = 0o644) -> int:
        """A descriptor, shared by all of Python's tasks."""
        self._sys.window.clear()
        return self._sys.checked(f"open {path}", "openat", AT_FDCWD, self._sys.window.text(path), flags, mode)

    def close(self, descriptor: int) -> None:
        self._sys.checked("close", "close", descriptor)

    def read_from(self, descriptor: int, size: int) -> bytes:
        """One ``read`` call."""
        self._sys.window.clear()
        buffer = self._sys.window.reserve(size)
        count = self._sys.checked("read", "read", descriptor, buffer, size)
        return bytes(self._sys.window.view(buffer, count))

    def write_to(self, descriptor: int, data: bytes) -> int:
        """One ``write`` call; returns what was taken."""
        self._sys.window.clear()
        return self._sys.checked("write", "write", descriptor, self._sys.window.put(data), len(data))

    def seek(self, descriptor: int, offset: int, whence: int = 0) -> int:
        return self._sys.checked("lseek", "lseek", descriptor, offset, whence)

    def truncate(self, descriptor: int, size: int) -> None:
        self._sys.checked("ftruncate", "ftruncate", descriptor, size)

    def ioctl(self, descriptor: int, request: int, argument: int | bytes | bytearray = 0) -> tuple[int, bytes]:
        """(result, the argument's bytes afterwards); a number is passed as it is, bytes as a pointer to them."""
        self._sys.window.clear()
        if isinstance(argument, int):
            return self._sys.checked(f"ioctl {request:#x}", "ioctl", descriptor, request, argument), b""
        address = self._sys.window.put(argument)
        result = self._sys.checked(f"ioctl {request:#x}", "ioctl", descriptor, request, address)
        return result, self._sys.guest.read(address, len(argument))

    def read(self, path: str) -> bytes:
        """A whole file. One without an end is read until somebody interrupts."""
        descriptor = self.open(path)
        tasks = self._sys.guest.tasks
        try:
            parts: list[bytes] = []
            while chunk := self.read_from(descriptor, _LARGE if parts else _CHUNK):
                parts.append(chunk)
                if tasks.interrupted:
                    tasks.interrupt(False)
                    raise Errno(EINTR, f"read {path}")
            return b"".join(parts)
        finally:
            self.close(descriptor)

    def write(self, path: str, data: bytes, flags: int = O_WRONLY) -> int:
        """One ``write`` of ``data``, as a shell's redirection does it."""
        descriptor = self.open(path, flags)
        try:
            return self.write_to(descriptor, data)
        finally:
            self.close(descriptor)

    def list(self, path: str) -> list[DirEntry]:
        """Entries of a directory in its own order, without ``.`` and ``..``."""
        descriptor = self.open(path, O_RDONLY | O_DIRECTORY)
        entries: list[DirEntry] = []
        try:
            while True:
                self._sys.window.clear()
                buffer = self._sys.window.reserve(_CHUNK)
                count = self._sys.checked("getdents", "getdents64", descriptor, buffer, _CHUNK)
                if count == 0:
                    return entries
                data = self._sys.guest.read(buffer, count)
                offset = 0
                while offset < count:
                    _, _, length, kind = _DIRENT.unpack_from(data, offset)
                    raw = data[offset + _DIRENT.size : offset + length].split(b"\0")[0]
                    name = raw.decode("utf-8", "surrogateescape")
                    if name not in (".", ".."):
                        entries.append(DirEntry(name, _KINDS.get(kind, "unknown")))
                    offset += length
        finally:
            self.close(descriptor)

    def status(self, path: str) -> Status:
        """``lstat``."""
        self._sys.window.clear()
        name, buffer = self._sys.window.text(path), self._sys.window.reserve(256)
        self._sys.checked(f"stat {path}", "newlstat", name, buffer)
        mode, uid, gid = struct.unpack_from("<III", self._sys.guest.read(buffer + 24, 12))
        (size,) = struct.unpack("<q", self._sys.guest.read(buffer + 48, 8))
        return Status(mode, size, uid, gid)

    def unlink(self, path: str) -> None:
        self._sys.window.clear()
        self._sys.checked(f"unlink {path}", "unlinkat", AT_FDCWD, self._sys.window.text(path), 0)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self._sys.window.clear()
        self._sys.checked(f"mkdir {path}", "mkdirat", AT_FDCWD, self._sys.window.text(path), mode)

    def mknod(self, path: str, mode: int, major: int = 0, minor: int = 0) -> None:
        """``mode`` has the type bits of stat(2)."""
        device = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
        self._sys.window.clear()
        self._sys.checked(f"mknod {path}", "mknodat", AT_FDCWD, self._sys.window.text(path), mode, device)

    def mount(self, source: str, folder: str, kind: str, flags: int = 0, options: str = "") -> None:
        """``mount(2)``: the kernel asks for the module of a file system that it does not have."""
        window = self._sys.window
        window.clear()
        what = f"mount {source} on {folder} as {kind}"
        data = window.text(options) if options else 0
        self._sys.checked(what, "mount", window.text(source), window.text(folder), window.text(kind), flags, data)

    def umount(self, folder: str, flags: int = 0) -> None:
        self._sys.window.clear()
        self._sys.checked(f"umount {folder}", "umount", self._sys.window.text(folder), flags)

    def readlink(self, path: str) -> str:
        self._sys.window.clear()
        name, buffer = self._sys.window.text(path), self._sys.window.reserve(4096)
        count = self._sys.checked(f"readlink {path}", "readlinkat", AT_FDCWD, name, buffer, 4096)
        return self._sys.guest.read(buffer, count).decode("utf-8", "surrogateescape")

    def first_log_record(self) -> int | None:
        """Sequence number of the oldest log record since the log was cleared; None where there is none."""
        descriptor = self.open("/dev/kmsg", O_RDONLY | O_NONBLOCK)
        try:
            self.seek(descriptor, 0, _SEEK_DATA)
            return int(self.read_from(descriptor, _CHUNK).split(b",", 2)[1])
        except Errno as error:
            if error.number == EAGAIN:
                return None
            raise
        finally:
            self.close(descriptor)


__all__ = ["DirEntry", "Files", "Status"]
