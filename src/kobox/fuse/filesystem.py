"""What a tree implements. Every method may raise ``Errno`` (or ``OSError``); one that is not there answers ENOSYS.

``N`` is whatever the tree takes for a file or directory: hashable; equal means the same inode. ``H`` is what it takes
for an open one. The host holds a node from the moment it is answered in an ``Entry`` until ``forget``. A handle is None
where the host opened nothing (``open`` answered ENOSYS) or asks by name.

A method that cannot answer yet calls ``request.later()`` and returns anything; ``request.answer`` follows, with what
the method would have returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import ENOSYS, EOPNOTSUPP
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from kobox.errors import Errno
from kobox.fuse.records import Attributes, Changes, DirEntry, Entry, IoctlResult, Lock, Opened, Statistics

if TYPE_CHECKING:
    from kobox.fuse.request import Request
    from kobox.fuse.session import Session

N = TypeVar("N")
H = TypeVar("H")

Data = bytes | bytearray | memoryview
"""Bytes of a reply. A view must stay as it is until the method's caller has written it, which it does at once."""


class FileSystem(Generic[N, H]):
    """Override what there is."""

    def __init__(self, root: N) -> None:
        self.root = root

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self, session: Session[N, H]) -> None:
        """The host has mounted it. ``session`` takes notices from now on."""

    def end(self) -> None:
        """Nobody will ask any more: it was unmounted, or the connection was cut."""

    def abandoned(self, handle: H) -> None:
        """Before the end: it was open when the connection was cut, and nobody will release it."""

    def interrupted(self, request: Request) -> None:
        """Somebody wants the request that is being served, or waits for its answer, to end soon (EINTR).

        Called in the thread that reads requests, while another serves: it may do little more than set a flag.
        """

    def failed(self, request: Request, error: BaseException) -> None:
        """A method has raised what is no errno; the host is told EIO."""

    # -- names --------------------------------------------------------------------------------------------------

    def lookup(self, request: Request, parent: N, name: bytes) -> Entry[N] | None:
        """None: there is no such name, and the host may remember that."""
        _lacking(request)

    def entry(self, request: Request, parent: N, found: DirEntry) -> Entry[N] | None:
        """What an entry that ``readdir`` just gave leads to."""
        return self.lookup(request, parent, found.name)

    def forget(self, node: N) -> None:
        """The host holds the node no longer."""

    def mknod(self, request: Request, parent: N, name: bytes, mode: int, rdev: int) -> Entry[N]:
        _lacking(request)

    def mkdir(self, request: Request, parent: N, name: bytes, mode: int) -> Entry[N]:
        _lacking(request)

    def symlink(self, request: Request, parent: N, name: bytes, target: bytes) -> Entry[N]:
        _lacking(request)

    def link(self, request: Request, node: N, parent: N, name: bytes) -> Entry[N]:
        _lacking(request)

    def unlink(self, request: Request, parent: N, name: bytes) -> None:
        _lacking(request)

    def rmdir(self, request: Request, parent: N, name: bytes) -> None:
        _lacking(request)

    def rename(self, request: Request, parent: N, name: bytes, new_parent: N, new_name: bytes, flags: int) -> None:
        """``flags`` as renameat2(2)."""
        _lacking(request)

    # -- attributes ---------------------------------------------------------------------------------------------

    def getattr(self, request: Request, node: N, handle: H | None) -> Attributes:
        _lacking(request)

    def setattr(self, request: Request, node: N, handle: H | None, changes: Changes) -> Attributes:
        _lacking(request)

    def access(self, request: Request, node: N, mask: int) -> None:
        """access(2); ENOSYS: whatever is asked is allowed."""
        _lacking(request)

    def readlink(self, request: Request, node: N) -> bytes:
        _lacking(request)

    def statfs(self, request: Request, node: N) -> Statistics:
        _lacking(request)

    def getxattr(self, request: Request, node: N, name: bytes) -> bytes:
        raise Errno(EOPNOTSUPP)

    def listxattr(self, request: Request, node: N) -> bytes:
        """Names, each with its NUL."""
        raise Errno(EOPNOTSUPP)

    def setxattr(self, request: Request, node: N, name: bytes, value: bytes, flags: int) -> None:
        raise Errno(EOPNOTSUPP)

    def removexattr(self, request: Request, node: N, name: bytes) -> None:
        raise Errno(EOPNOTSUPP)

    # -- files --------------------------------------------------------------------------------------------------

    def open(self, request: Request, node: N, flags: int) -> Opened:
        """``flags`` of open(2) without those for creation. ENOSYS: files need no open, ``handle`` will be None."""
        _lacking(request)

    def create(self, request: Request, parent: N, name: bytes, mode: int, flags: int) -> tuple[Entry[N], Opened]:
        """ENOSYS: the host makes the file by ``mknod`` and opens it then."""
        _lacking(request)

    def tmpfile(self, request: Request, parent: N, mode: int, flags: int) -> tuple[Entry[N], Opened]:
        raise Errno(EOPNOTSUPP)

    def read(self, request: Request, node: N, handle: H | None, offset: int, size: int) -> Data:
        """At most ``size`` bytes; less only at the end of the file, or by ``direct_io``."""
        _lacking(request)

    def write(self, request: Request, node: N, handle: H | None, offset: int, data: memoryview) -> int:
        """``data`` is good until this returns."""
        _lacking(request)

    def flush(self, request: Request, node: N, handle: H | None) -> None:
        """At each close(2) of a descriptor; what it raises, close returns."""
        _lacking(request)

    def release(self, request: Request, node: N, handle: H | None) -> None:
        """The last descriptor of ``handle`` is gone."""

    def fsync(self, request: Request, node: N, handle: H | None, data_only: bool) -> None:
        _lacking(request)

    def fallocate(self, request: Request, node: N, handle: H | None, mode: int, offset: int, length: int) -> None:
        raise Errno(EOPNOTSUPP)

    def lseek(self, request: Request, node: N, handle: H | None, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE only."""
        _lacking(request)

    def copy_file_range(
        self, request: Request, node: N, handle: H | None, offset: int,
        to: N, to_handle: H | None, to_offset: int, length: int, flags: int,
    ) -> int:  # fmt: skip
        raise Errno(EOPNOTSUPP)

    def ioctl(
        self, request: Request, node: N, handle: H | None, command: int, argument: int, data: bytes, room: int
    ) -> IoctlResult:
        """``data`` is what the command's number says that it reads, ``room`` how many bytes it may give back."""
        raise Errno(25)  # ENOTTY

    def poll(self, request: Request, node: N, handle: H | None, events: int, waiter: int) -> int:
        """Which events are there. ``waiter``: 0, or what ``Session.wake`` must be told once there are more."""
        _lacking(request)

    def getlk(self, request: Request, node: N, handle: H | None, owner: int, lock: Lock) -> Lock:
        _lacking(request)

    def setlk(
        self, request: Request, node: N, handle: H | None, owner: int, lock: Lock, waits: bool, whole: bool
    ) -> None:
        """``waits``: F_SETLKW; ``whole``: flock(2)."""
        _lacking(request)

    def bmap(self, request: Request, node: N, block: int, block_size: int) -> int:
        _lacking(request)

    # -- directories --------------------------------------------------------------------------------------------

    def opendir(self, request: Request, node: N, flags: int) -> Opened:
        """ENOSYS: directories need no open."""
        _lacking(request)

    def readdir(self, request: Request, node: N, handle: H | None, offset: int) -> Iterable[DirEntry]:
        """From the entry at ``offset`` on; read as far as there is room."""
        _lacking(request)

    def releasedir(self, request: Request, node: N, handle: H | None) -> None:
        """The last descriptor of ``handle`` is gone."""

    def fsyncdir(self, request: Request, node: N, handle: H | None, data_only: bool) -> None:
        _lacking(request)

    def syncfs(self, request: Request, node: N) -> None:
        _lacking(request)


def _lacking(request: Request) -> NoReturn:
    raise Errno(ENOSYS, request.name)
