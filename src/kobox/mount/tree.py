"""A mounted file system of the guest as a tree for the host: each method is one or two system calls of the guest.

A node is a descriptor of the guest that only names its file (O_PATH), so that renaming and removing change nothing for
who holds it. Everything is done as root of the image: who may enter the mounted folder may do everything in it.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from errno import ENOENT

from kobox.errors import Errno
from kobox.fuse import (
    Attributes,
    Changes,
    DirEntry,
    Entry,
    FileSystem,
    IoctlResult,
    Opened,
    Request,
    Session,
    Statistics,
    device_number,
)
from kobox.fuse.records import NOW
from kobox.mount.calls import AT_REMOVEDIR, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE, Dirent, GuestCalls, Stat
from kobox.mount.holding import Holding

_NOT_OURS = os.O_APPEND | os.O_DIRECT | O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Of open(2)'s flags, what the host deals with: it gives positions, and buffers of its own."""
_ST_RDONLY = 1
_CLOCK_STEP = 1_000_000
"""Nanoseconds by which the guest's clock may lag behind the host's."""


class GuestNode:
    """One file or folder. ``descriptor`` names it in the guest; ``opened``: how many open files there are of it."""

    __slots__ = ("descriptor", "key", "opened")

    def __init__(self, key: tuple[tuple[int, int], int], descriptor: int) -> None:
        self.key, self.descriptor, self.opened = key, descriptor, 0


@dataclass(slots=True)
class Handle:
    """An open file or folder. ``ahead`` are entries of a folder that were read and not yet told; ``at`` is the
    position of the first of them."""

    descriptor: int
    ahead: deque[Dirent] = field(default_factory=deque)
    at: int = 0


class GuestTree(FileSystem[GuestNode, Handle]):
    """What is mounted at ``folder`` of the guest. ``touched`` is set at every change; ``on_trouble`` is told of errors
    that are no answer of the kernel's, such as the death of a task. ``by_caller``: what is made belongs to whoever
    makes it, not to root."""

    def __init__(self, calls: GuestCalls, folder: bytes, *, by_caller: bool = False) -> None:
        self._calls, self._by_caller = calls, by_caller
        descriptor = calls.open_path(folder)
        found = calls.stat(descriptor)
        root = GuestNode((found.dev, found.ino), descriptor)
        super().__init__(root)
        self._nodes = {root.key: root}
        self._holding: Holding[GuestNode] = Holding(lambda node: node.opened > 0)
        self._whole = calls.open_at(descriptor, b".", O_DIRECTORY)
        """What ``sync`` is asked of: a descriptor that only names a folder will not do."""
        self.touched = threading.Event()
        self.on_trouble: Callable[[BaseException], None] = lambda error: None
        self._clock = 0
        calls.set_umask(0)

    @property
    def read_only(self) -> bool:
        """Whether the guest has mounted it so."""
        *_, flags = self._calls.statfs(self.root.descriptor)
        return bool(flags & _ST_RDONLY)

    def start(self, session: Session[GuestNode, Handle]) -> None:
        self._holding.ask = session.forget_name

    def end(self) -> None:
        self._holding.ask = None

    def close(self) -> None:
        """Let go of the file system, so that it can be unmounted."""
        self._calls.close(self._whole)
        for node in list(self._nodes.values()):
            self.forget(node)

    def sync(self) -> None:
        """Have everything on the disk."""
        self._calls.sync_all(self._whole)

    def failed(self, request: Request, error: BaseException) -> None:
        self.on_trouble(error)

    def _changes(self) -> None:
        """Something is about to change: what it is stamped with is the host's time."""
        if not self.touched.is_set():
            self.touched.set()
        now = time.time_ns()
        if not 0 <= now - self._clock < _CLOCK_STEP:
            self._calls.set_clock(now)
            self._clock = now

    # -- names --------------------------------------------------------------------------------------------------

    def lookup(self, request: Request, parent: GuestNode, name: bytes) -> Entry[GuestNode] | None:
        try:
            return self._entry(parent, name)
        except Errno as error:
            if error.number != ENOENT:
                raise
            return None

    def _entry(self, parent: GuestNode, name: bytes) -> Entry[GuestNode]:
        found = self._calls.stat(parent.descriptor, name)
        key = found.dev, found.ino
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = GuestNode(key, self._calls.name_at(parent.descriptor, name))
        if not stat.S_ISDIR(found.mode):
            self._holding.note(node, parent, name)
        return Entry(node, _attributes(found))

    def _made(self, request: Request, parent: GuestNode, name: bytes) -> Entry[GuestNode]:
        """A name that has just come, and whose it shall be."""
        entry = self._entry(parent, name)
        if self._by_caller and (request.uid or request.gid):
            inherits = self._calls.stat(parent.descriptor).mode & stat.S_ISGID
            self._calls.change_owner(entry.node.descriptor, request.uid, -1 if inherits else request.gid)
            return self._entry(parent, name)
        return entry

    def forget(self, node: GuestNode) -> None:
        self._holding.forget(node)
        if self._nodes.pop(node.key, None) is not None:
            self._calls.close(node.descriptor)

    def mknod(self, request: Request, parent: GuestNode, name: bytes, mode: int, rdev: int) -> Entry[GuestNode]:
        self._changes()
        self._calls.set_umask(request.umask)
        self._calls.make_node(parent.descriptor, name, mode, rdev)
        return self._made(request, parent, name)

    def mkdir(self, request: Request, parent: GuestNode, name: bytes, mode: int) -> Entry[GuestNode]:
        self._changes()
        self._calls.set_umask(request.umask)
        self._calls.make_folder(parent.descriptor, name, mode)
        return self._made(request, parent, name)

    def symlink(self, request: Request, parent: GuestNode, name: bytes, target: bytes) -> Entry[GuestNode]:
        self._changes()
        self._calls.make_link(parent.descriptor, name, target)
        return self._made(request, parent, name)

    def link(self, request: Request, node: GuestNode, parent: GuestNode, name: bytes) -> Entry[GuestNode]:
        self._changes()
        self._calls.link(node.descriptor, parent.descriptor, name)
        return self._entry(parent, name)

    def unlink(self, request: Request, parent: GuestNode, name: bytes) -> None:
        self._changes()
        self._calls.unlink(parent.descriptor, name)

    def rmdir(self, request: Request, parent: GuestNode, name: bytes) -> None:
        self._changes()
        self._calls.unlink(parent.descriptor, name, AT_REMOVEDIR)

    def rename(
        self, request: Request, parent: GuestNode, name: bytes, new_parent: GuestNode, new_name: bytes, flags: int
    ) -> None:
        self._changes()
        self._calls.rename(parent.descriptor, name, new_parent.descriptor, new_name, flags)

    # -- attributes ---------------------------------------------------------------------------------------------

    def getattr(self, request: Request, node: GuestNode, handle: Handle | None) -> Attributes:
        return _attributes(self._calls.stat(node.descriptor))

    def setattr(self, request: Request, node: GuestNode, handle: Handle | None, changes: Changes) -> Attributes:
        self._changes()
        at = node.descriptor
        if changes.uid is not None or changes.gid is not None:
            self._calls.change_owner(at, *(-1 if one is None else one for one in (changes.uid, changes.gid)))
        if changes.mode is not None:  # behind the owner, whose change takes the set-id bits away
            self._calls.change_mode(at, changes.mode)
        if changes.size is not None and handle is not None:
            self._calls.truncate_open(handle.descriptor, changes.size)
        elif changes.size is not None:
            self._calls.truncate(at, changes.size)
        if changes.atime is not None or changes.mtime is not None:
            self._calls.change_times(at, changes.atime, changes.mtime, NOW)
        return _attributes(self._calls.stat(at))

    def readlink(self, request: Request, node: GuestNode) -> bytes:
        return self._calls.read_link(node.descriptor)

    def statfs(self, request: Request, node: GuestNode) -> Statistics:
        bsize, blocks, bfree, bavail, files, ffree, namelen, frsize, _ = self._calls.statfs(node.descriptor)
        return Statistics(blocks, bfree, bavail, files, ffree, bsize, namelen, frsize)

    def getxattr(self, request: Request, node: GuestNode, name: bytes) -> bytes:
        return self._calls.get_xattr(node.descriptor, name)

    def listxattr(self, request: Request, node: GuestNode) -> bytes:
        return self._calls.list_xattrs(node.descriptor)

    def setxattr(self, request: Request, node: GuestNode, name: bytes, value: bytes, flags: int) -> None:
        self._changes()
        self._calls.set_xattr(node.descriptor, name, value, flags)

    def removexattr(self, request: Request, node: GuestNode, name: bytes) -> None:
        self._changes()
        self._calls.remove_xattr(node.descriptor, name)

    # -- files --------------------------------------------------------------------------------------------------

    def open(self, request: Request, node: GuestNode, flags: int) -> Opened:
        if flags & os.O_TRUNC:
            self._changes()
        handle = Handle(self._calls.reopen(node.descriptor, flags & ~_NOT_OURS))
        node.opened += 1
        return Opened(handle, keep_cache=True)

    def create(
        self, request: Request, parent: GuestNode, name: bytes, mode: int, flags: int
    ) -> tuple[Entry[GuestNode], Opened]:
        self._changes()
        self._calls.set_umask(request.umask)
        descriptor = self._calls.open_at(parent.descriptor, name, flags & ~_NOT_OURS | O_NOFOLLOW, mode)
        entry = self._made(request, parent, name)
        entry.node.opened += 1
        return entry, Opened(Handle(descriptor), keep_cache=True)

    def tmpfile(self, request: Request, parent: GuestNode, mode: int, flags: int) -> tuple[Entry[GuestNode], Opened]:
        self._changes()
        self._calls.set_umask(request.umask)
        descriptor = self._calls.open_at(parent.descriptor, b".", flags & ~_NOT_OURS | O_TMPFILE, mode)
        found = self._calls.stat(descriptor)
        key = found.dev, found.ino
        node = self._nodes[key] = GuestNode(key, self._calls.reopen(descriptor, O_PATH))
        node.opened += 1
        return Entry(node, _attributes(found)), Opened(Handle(descriptor), keep_cache=True)

    def read(self, request: Request, node: GuestNode, handle: Handle | None, offset: int, size: int) -> memoryview:
        assert handle is not None
        return self._calls.read(handle.descriptor, offset, size)

    def write(self, request: Request, node: GuestNode, handle: Handle | None, offset: int, data: memoryview) -> int:
        assert handle is not None
        self._changes()
        return self._calls.write(handle.descriptor, offset, data)

    def release(self, request: Request, node: GuestNode, handle: Handle | None) -> None:
        node.opened -= 1
        if handle is not None:
            self._calls.close(handle.descriptor)

    def abandoned(self, handle: Handle) -> None:
        self._calls.close(handle.descriptor)

    def fsync(self, request: Request, node: GuestNode, handle: Handle | None, data_only: bool) -> None:
        assert handle is not None
        self._calls.sync(handle.descriptor, data_only)

    def fallocate(
        self, request: Request, node: GuestNode, handle: Handle | None, mode: int, offset: int, length: int
    ) -> None:
        assert handle is not None
        self._changes()
        self._calls.allocate(handle.descriptor, mode, offset, length)

    def lseek(self, request: Request, node: GuestNode, handle: Handle | None, offset: int, whence: int) -> int:
        assert handle is not None
        return self._calls.seek(handle.descriptor, offset, whence)

    def copy_file_range(
        self, request: Request, node: GuestNode, handle: Handle | None, offset: int,
        to: GuestNode, to_handle: Handle | None, to_offset: int, length: int, flags: int,
    ) -> int:  # fmt: skip
        assert handle is not None
        assert to_handle is not None
        self._changes()
        return self._calls.copy_range(
            handle.descriptor, offset, to_handle.descriptor, to_offset, min(length, 1 << 30), flags
        )

    def ioctl(
        self, request: Request, node: GuestNode, handle: Handle | None, command: int, argument: int, data: bytes,
        room: int,
    ) -> IoctlResult:  # fmt: skip
        assert handle is not None
        self._changes()
        return IoctlResult(*self._calls.ioctl(handle.descriptor, command, data, room, argument))

    # -- directories --------------------------------------------------------------------------------------------

    def opendir(self, request: Request, node: GuestNode, flags: int) -> Opened:
        descriptor = self._calls.open_at(node.descriptor, b".", O_DIRECTORY)
        return Opened(Handle(descriptor), keep_cache=True, cache_dir=True)

    def readdir(self, request: Request, node: GuestNode, handle: Handle | None, offset: int) -> Iterator[DirEntry]:
        assert handle is not None
        if offset != handle.at:
            self._calls.seek(handle.descriptor, offset, os.SEEK_SET)
            handle.ahead.clear()
            handle.at = offset
        while True:
            if not handle.ahead:
                handle.ahead.extend(self._calls.entries(handle.descriptor))
            if not handle.ahead:
                return
            name, ino, behind, kind = handle.ahead[0]
            yield DirEntry(name, ino, kind << 12, behind)
            handle.ahead.popleft()  # only what had room is gone on from
            handle.at = behind

    def releasedir(self, request: Request, node: GuestNode, handle: Handle | None) -> None:
        assert handle is not None
        self._calls.close(handle.descriptor)

    def fsyncdir(self, request: Request, node: GuestNode, handle: Handle | None, data_only: bool) -> None:
        self.fsync(request, node, handle, data_only)


def _attributes(found: Stat) -> Attributes:
    return Attributes(
        found.ino, found.mode, found.size, found.nlink, found.uid, found.gid, device_number(*found.rdev),
        found.blocks, found.blksize, found.atime, found.mtime, found.ctime,
    )  # fmt: skip
