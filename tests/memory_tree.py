"""A tree in memory for tests of the FUSE room: folders, files, links; one file without a size, one that waits."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EINTR, ENOENT, ENOTEMPTY
from pathlib import Path

from kobox.errors import Errno
from kobox.fuse import (
    Attributes,
    Changes,
    DirEntry,
    Entry,
    FileSystem,
    IoctlResult,
    Mounted,
    MountOptions,
    Opened,
    Request,
    Session,
    SessionOptions,
    Statistics,
    mount,
)
from kobox.fuse.records import NOW


@dataclass(eq=False)
class Node:
    """A file, folder or link."""

    ino: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    names: dict[bytes, Node] = field(default_factory=dict)
    nlink: int = 1
    mtime: int = 0
    extended: dict[bytes, bytes] = field(default_factory=dict)


class MemoryTree(FileSystem[Node, bytearray]):
    """``said`` are names of requests as they came; ``answers`` what a file without a size gives at each open."""

    def __init__(self) -> None:
        super().__init__(Node(1, stat.S_IFDIR | 0o755))
        self.next = 2
        self.said: list[str] = []
        self.held: set[Node] = set()
        self.pieces: list[bytes] = []
        self.waiting: Request | None = None
        self.waits = threading.Event()
        self.waiter = 0
        self.ready = False
        self.opens = 0
        self.session: Session[Node, bytearray] | None = None
        self.ended = False
        self.left: list[bytearray] = []

    def add(self, parent: Node, name: bytes, mode: int, content: bytes = b"") -> Node:
        node = parent.names[name] = Node(self.next, mode, bytearray(content))
        self.next += 1
        return node

    def start(self, session: Session[Node, bytearray]) -> None:
        self.session = session

    def end(self) -> None:
        self.ended = True

    def abandoned(self, handle: bytearray) -> None:
        self.left.append(handle)

    def _entry(self, node: Node) -> Entry[Node]:
        self.held.add(node)
        return Entry(node, self._attributes(node))

    def _attributes(self, node: Node) -> Attributes:
        size = 0 if node.content == b"?" else len(node.content)
        return Attributes(node.ino, node.mode, size, node.nlink, os.getuid(), os.getgid(), mtime=node.mtime)

    def lookup(self, request: Request, parent: Node, name: bytes) -> Entry[Node] | None:
        self.said.append("lookup")
        node = parent.names.get(name)
        return None if node is None else self._entry(node)

    def forget(self, node: Node) -> None:
        self.held.discard(node)

    def mknod(self, request: Request, parent: Node, name: bytes, mode: int, rdev: int) -> Entry[Node]:
        return self._entry(self.add(parent, name, mode))

    def mkdir(self, request: Request, parent: Node, name: bytes, mode: int) -> Entry[Node]:
        return self._entry(self.add(parent, name, mode | stat.S_IFDIR))

    def symlink(self, request: Request, parent: Node, name: bytes, target: bytes) -> Entry[Node]:
        return self._entry(self.add(parent, name, stat.S_IFLNK | 0o777, target))

    def readlink(self, request: Request, node: Node) -> bytes:
        return bytes(node.content)

    def link(self, request: Request, node: Node, parent: Node, name: bytes) -> Entry[Node]:
        parent.names[name] = node
        node.nlink += 1
        return self._entry(node)

    def unlink(self, request: Request, parent: Node, name: bytes) -> None:
        parent.names.pop(name).nlink -= 1

    def rmdir(self, request: Request, parent: Node, name: bytes) -> None:
        if parent.names[name].names:
            raise Errno(ENOTEMPTY)
        del parent.names[name]

    def rename(
        self, request: Request, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        new_parent.names[new_name] = parent.names.pop(name)

    def getattr(self, request: Request, node: Node, handle: bytearray | None) -> Attributes:
        return self._attributes(node)

    def setattr(self, request: Request, node: Node, handle: bytearray | None, changes: Changes) -> Attributes:
        if changes.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | changes.mode
        if changes.size is not None:
            node.content[:] = node.content[: changes.size].ljust(changes.size, b"\0")
        if changes.mtime is not None and changes.mtime != NOW:
            node.mtime = changes.mtime
        return self._attributes(node)

    def statfs(self, request: Request, node: Node) -> Statistics:
        return Statistics(blocks=1000, bfree=400, bavail=300, files=20, ffree=10, namelen=77)

    def getxattr(self, request: Request, node: Node, name: bytes) -> bytes:
        if name not in node.extended:
            raise Errno(61)  # ENODATA
        return node.extended[name]

    def listxattr(self, request: Request, node: Node) -> bytes:
        return b"".join(name + b"\0" for name in node.extended)

    def setxattr(self, request: Request, node: Node, name: bytes, value: bytes, flags: int) -> None:
        node.extended[name] = value

    def removexattr(self, request: Request, node: Node, name: bytes) -> None:
        del node.extended[name]

    def create(self, request: Request, parent: Node, name: bytes, mode: int, flags: int) -> tuple[Entry[Node], Opened]:
        node = self.add(parent, name, mode)
        return self._entry(node), Opened(node.content)

    def open(self, request: Request, node: Node, flags: int) -> Opened:
        self.opens += 1
        if node.content == b"?":
            return Opened(bytearray(b"made at open %d\n" % self.opens), direct_io=True)
        return Opened(node.content)

    def read(self, request: Request, node: Node, handle: bytearray | None, offset: int, size: int) -> bytes:
        assert handle is not None
        if handle == b"wait":
            request.later()
            self.waiting = request
            self.waits.set()
            return b""
        return bytes(handle[offset : offset + size])

    def interrupted(self, request: Request) -> None:
        assert self.session is not None
        self.session.call_soon(lambda: request.fail(EINTR))

    def write(self, request: Request, node: Node, handle: bytearray | None, offset: int, data: memoryview) -> int:
        assert handle is not None
        if node.content == b"?":
            self.pieces.append(bytes(data))
        else:
            node.content[offset : offset + len(data)] = data
        return len(data)

    def flush(self, request: Request, node: Node, handle: bytearray | None) -> None:
        self.said.append("flush")

    def fsync(self, request: Request, node: Node, handle: bytearray | None, data_only: bool) -> None:
        self.said.append("fdatasync" if data_only else "fsync")

    def ioctl(
        self, request: Request, node: Node, handle: bytearray | None, command: int, argument: int, data: bytes,
        room: int,
    ) -> IoctlResult:  # fmt: skip
        return IoctlResult(7, data[::-1][:room])

    def poll(self, request: Request, node: Node, handle: bytearray | None, events: int, waiter: int) -> int:
        self.waiter = waiter or self.waiter
        self.waits.set()
        return events & 1 if self.ready else 0  # POLLIN

    def opendir(self, request: Request, node: Node, flags: int) -> Opened:
        raise Errno(38)  # ENOSYS: needs no open

    def readdir(self, request: Request, node: Node, handle: bytearray | None, offset: int) -> Iterator[DirEntry]:
        everything = [(b".", node), (b"..", node), *node.names.items()]
        for at, (name, there) in enumerate(everything[offset:], offset + 1):
            yield DirEntry(name, there.ino, there.mode, at)


def found(tree: MemoryTree, name: bytes) -> Node:
    """A node below the root; KeyError."""
    return tree.root.names[name]


@contextmanager
def served(
    folder: Path, tree: MemoryTree, options: MountOptions | None = None, session: SessionOptions | None = None
) -> Iterator[Mounted]:
    """A tree, mounted and served by a thread."""
    with mount(str(folder), options) as mounted:
        loop = Session(mounted.descriptor, tree, session)
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        yield mounted
        loop.stop()
        mounted.unmount(lazy=True)
        mounted.close()
        thread.join(10)
        assert not thread.is_alive()
        assert tree.ended


__all__ = ["ENOENT", "MemoryTree", "Node", "found", "served"]
