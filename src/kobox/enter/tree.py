"""The kernel's files as a FUSE tree: each request is one round of system calls in the guest, answered when that is.

A node is a path of the guest. Open files are the guest's own, so what a driver's ``open`` and ``release`` do happens
when a program opens and closes. The position of a file is kept in the guest as well: it is moved only where the host's
differs.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from errno import EIO, ENOENT, ESPIPE
from typing import TYPE_CHECKING, TypeVar

from kobox.enter import paths, processes
from kobox.enter.paths import Twin
from kobox.errors import Errno
from kobox.fuse import Attributes, Changes, DirEntry, Entry, FileSystem, IoctlResult, Opened, Request, Statistics
from kobox.session.calling import Answer, Argument, Call, Caller

if TYPE_CHECKING:
    from kobox.enter.facts import Facts
    from kobox.fuse import Session

Node = bytes | Twin
T = TypeVar("T")
AT_FDCWD, AT_EMPTY_PATH, NOFOLLOW, REMOVEDIR = -100, 0x1000, 0x100, 0x200
_STATX_BASIC, _STATX_BYTES = 0x7FF, 256
_STATX = struct.Struct("=IIQIIIHHQQQQ" + "qIi" * 4 + "IIII")
_DIRENT = struct.Struct("<QqHB")
_LISTING = 1 << 18
_FOREVER, _BRIEFLY = 3600.0, 0.01
_POLL = struct.Struct("=ihh")
_ARGUMENT_BYTES = 4096
"""As much of what an ioctl's argument points to as the kernel is shown: its number does not always tell the truth."""
_LOG = b"/dev/kmsg"
_RECORDS_AHEAD = 64
_READABLE = 0x1 | 0x40
"""POLLIN and POLLRDNORM."""
_LEAST_POINTER = 1 << 16
_MODES = 0o7777


class Handle:
    """An open file of the guest. ``position``: where the guest's own stands. ``text``: it is served from here.
    ``ahead``: records that were read and not asked for yet."""

    __slots__ = ("ahead", "descriptor", "entries", "position", "records", "seeks", "text", "waiter")

    def __init__(self, descriptor: int = -1, seeks: bool = True) -> None:
        self.descriptor, self.seeks = descriptor, seeks
        self.position = 0
        self.text: bytes | None = None
        self.entries: list[DirEntry] = []
        self.waiter = 0
        self.records = False
        """Each read gives one record, and never waits: many can be read ahead."""
        self.ahead: deque[bytes] = deque()


class GuestTree(FileSystem[Node, Handle]):
    """``groups``: whether all numbers of groups exist in the programs' namespace; else everything is root's."""

    session: Session[Node, Handle]

    def __init__(self, caller: Caller, facts: Facts, every_id: bool) -> None:
        super().__init__(b"/")
        self._caller, self._facts, self._every_id = caller, facts, every_id

    def start(self, session: Session[Node, Handle]) -> None:
        self.session = session

    # -- rounds of calls ----------------------------------------------------------------------------------------

    def ask(
        self, request: Request, calls: Sequence[Call], data: bytes, then: Callable[[Answer], T], comm: str = ""
    ) -> T:
        """Answer the request with ``then(answer)``, once the guest has made the calls. What this returns is nothing,
        to be returned by the method that serves the request."""
        request.later()

        def done(answer: Answer) -> None:
            request.state = None
            if answer.died:
                processes.kill(request.pid, answer.died)
            if answer.error is not None:
                request.fail(answer.error.number if isinstance(answer.error, Errno) else EIO)
                return
            try:
                result = then(answer)
            except (Errno, OSError) as error:
                request.fail((error.number if isinstance(error, Errno) else error.errno) or EIO)
                return
            request.answer(result)

        request.state = self._caller.ask(calls, data, done, comm)
        return None  # type: ignore[return-value]  # nobody looks at it: the answer follows

    def interrupted(self, request: Request) -> None:
        if request.state is not None:
            self._caller.cancel(request.state)

    def _one(self, request: Request, call: Call, data: bytes = b"") -> None:
        """A call without a result that matters."""

        def done(answer: Answer) -> None:
            check(answer.results[0])

        self.ask(request, [call], data, done)

    # -- names --------------------------------------------------------------------------------------------------

    def lookup(self, request: Request, parent: Node, name: bytes) -> Entry[Node] | None:
        assert isinstance(parent, bytes)
        path = paths.join(parent, name)
        made = self._made_up(parent, name, path)
        if made is not None:
            return made
        return self.status(request, path, lambda found: self.entry_of(path, found))

    def _made_up(self, parent: bytes, name: bytes, path: bytes) -> Entry[Node] | None:
        """What the guest has not, or not so."""
        if path in paths.LINKS:
            return Entry(path, Attributes(_number(path), stat.S_IFLNK | 0o777, len(paths.LINKS[path])), _FOREVER)
        if path in paths.FOLDERS or path == paths.DEVICES:
            return Entry(path, Attributes(_number(path), stat.S_IFDIR | 0o755, nlink=2), _FOREVER)
        if parent == b"/proc" and name.isdigit():
            if not os.path.exists(b"/proc/" + name):
                raise Errno(ENOENT)
            return Entry(path, Attributes(_number(path), stat.S_IFLNK | 0o777, len(name) + 6), 0.0)
        if parent == paths.DEVICES:
            twin = paths.twin_of(name)
            if twin is None:
                raise Errno(ENOENT)
            return Entry(twin, Attributes(_number(name), stat.S_IFREG | 0o600), 0.0)
        if parent == b"/dev" and name in paths.HOST_DEVICES:
            return Entry(path, Attributes(_number(path), stat.S_IFREG | 0o600), _FOREVER)
        return None

    def status(self, request: Request, path: bytes, then: Callable[[Attributes], T]) -> T:
        """Ask for a path's attributes."""
        return self.ask(request, [statx(path)], path + b"\0", lambda answer: then(self.attributes(answer, 0, path)))

    def attributes(self, answer: Answer, number: int, path: bytes) -> Attributes:
        """Those in the last buffer of an answer, of call ``number``."""
        check(answer.results[number])
        (
            _, blksize, _, nlink, uid, gid, mode, _, ino, size, blocks, _, atime, atime_ns, _, _, _, _,
            ctime, ctime_ns, _, mtime, mtime_ns, _, major, minor, *_,
        ) = _STATX.unpack_from(answer.buffers[-1])  # fmt: skip
        if not self._every_id:
            uid = gid = 0
        return Attributes(
            ino or _number(path), mode, size, nlink, uid, gid, _device(major, minor), blocks, blksize or 4096,
            atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns, ctime * 10**9 + ctime_ns,
            _FOREVER if path in paths.STAY else _BRIEFLY,
        )  # fmt: skip

    def entry_of(self, path: bytes, found: Attributes) -> Entry[Node]:
        return Entry(path, found, _FOREVER if path in paths.STAY else 0.0)

    def entry(self, request: Request, parent: Node, found: DirEntry) -> Entry[Node] | None:
        return None  # one round for each name of a listing would be dear: the host asks for what it needs

    def readlink(self, request: Request, node: Node) -> bytes:
        assert isinstance(node, bytes)
        if node in paths.LINKS:
            return paths.LINKS[node]
        folder, _, name = node.rpartition(b"/")
        if folder == b"/proc" and name.isdigit():
            return paths.HOST_PROC + b"/" + name
        call: Call = ["readlinkat", AT_FDCWD, {"in": len(node) + 1}, {"got": 4096}, 4096]

        def found(answer: Answer) -> bytes:
            check(answer.results[0])
            return answer.buffers[0]

        return self.ask(request, [call], node + b"\0", found)

    def _make(self, request: Request, path: bytes, call: Call, data: bytes) -> Entry[Node]:
        """A call that makes a name, and what it leads to then."""

        def made(answer: Answer) -> Entry[Node]:
            check(answer.results[0])
            return self.entry_of(path, self.attributes(answer, 1, path))

        return self.ask(request, [call, statx(path)], data + path + b"\0", made)

    def mknod(self, request: Request, parent: Node, name: bytes, mode: int, rdev: int) -> Entry[Node]:
        path = _below(parent, name)
        call: Call = ["mknodat", AT_FDCWD, {"in": len(path) + 1}, mode, rdev]
        return self._make(request, path, call, path + b"\0")

    def mkdir(self, request: Request, parent: Node, name: bytes, mode: int) -> Entry[Node]:
        path = _below(parent, name)
        call: Call = ["mkdirat", AT_FDCWD, {"in": len(path) + 1}, mode & _MODES]
        return self._make(request, path, call, path + b"\0")

    def symlink(self, request: Request, parent: Node, name: bytes, target: bytes) -> Entry[Node]:
        path = _below(parent, name)
        call: Call = ["symlinkat", {"in": len(target) + 1}, AT_FDCWD, {"in": len(path) + 1}]
        return self._make(request, path, call, target + b"\0" + path + b"\0")

    def unlink(self, request: Request, parent: Node, name: bytes) -> None:
        path = _below(parent, name)
        self._one(request, ["unlinkat", AT_FDCWD, {"in": len(path) + 1}, 0], path + b"\0")

    def rmdir(self, request: Request, parent: Node, name: bytes) -> None:
        path = _below(parent, name)
        self._one(request, ["unlinkat", AT_FDCWD, {"in": len(path) + 1}, REMOVEDIR], path + b"\0")

    def rename(
        self, request: Request, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        old, new = _below(parent, name), _below(new_parent, new_name)
        call: Call = ["renameat2", AT_FDCWD, {"in": len(old) + 1}, AT_FDCWD, {"in": len(new) + 1}, flags]
        self._one(request, call, old + b"\0" + new + b"\0")

    # -- attributes ---------------------------------------------------------------------------------------------

    def getattr(self, request: Request, node: Node, handle: Handle | None) -> Attributes:
        if isinstance(node, Twin):
            return Attributes(_number(node.path), stat.S_IFREG | 0o600)
        folder, _, name = node.rpartition(b"/")
        made = self._made_up(folder or b"/", name, node)
        if made is not None:
            return made.attributes
        return self.status(request, node, lambda found: found)

    def setattr(self, request: Request, node: Node, handle: Handle | None, changes: Changes) -> Attributes:
        if isinstance(node, Twin):
            return Attributes(_number(node.path), stat.S_IFREG | 0o600)
        name = {"in": len(node) + 1}
        calls: list[Call] = []
        if changes.size is not None and handle is None:
            calls.append(["truncate", name, changes.size])
        if changes.mode is not None:
            calls.append(["fchmodat", AT_FDCWD, name, changes.mode])
        if changes.uid is not None or changes.gid is not None:
            uid, gid = (-1 if one is None else one for one in (changes.uid, changes.gid))
            calls.append(["fchownat", AT_FDCWD, name, uid, gid, NOFOLLOW])
        calls.append(statx(node))
        data = (node + b"\0") * len(calls)

        def changed(answer: Answer) -> Attributes:
            for result in answer.results[:-1]:
                check(result)
            return self.attributes(answer, len(calls) - 1, node)

        return self.ask(request, calls, data, changed)

    def statfs(self, request: Request, node: Node) -> Statistics:
        return Statistics()

    # -- files --------------------------------------------------------------------------------------------------

    def open(self, request: Request, node: Node, flags: int) -> Opened:
        path = node.path if isinstance(node, Twin) else node
        if path == b"/proc/modules" and flags & os.O_ACCMODE == os.O_RDONLY:
            return self._open_text(request)
        calls: list[Call] = [
            ["openat", AT_FDCWD, {"in": len(path) + 1}, flags & ~os.O_CLOEXEC, 0],
            ["lseek", {"of": 0}, 0, os.SEEK_CUR],
        ]

        def opened(answer: Answer) -> Opened:
            check(answer.results[0])
            seeks = answer.results[1] != -ESPIPE
            handle = Handle(answer.results[0], seeks)
            handle.records = path == _LOG and flags & (os.O_ACCMODE | os.O_NONBLOCK) == os.O_RDONLY | os.O_NONBLOCK
            return Opened(handle, direct_io=True, nonseekable=not seeks, no_flush=True)

        comm = processes.name_of(request.pid)
        return self.ask(request, calls, path + b"\0", opened, comm)

    def _open_text(self, request: Request) -> Opened:
        """The list of modules is known, or asked for once for all that can be told by it."""

        def told() -> Opened:
            handle = Handle()
            handle.text = self._facts.text
            return Opened(handle, direct_io=True, no_flush=True)

        if self._facts.fresh:
            return told()
        request.later()
        self._facts.refresh(request, lambda: request.answer(told()))
        return None  # type: ignore[return-value]  # answered later

    def read(self, request: Request, node: Node, handle: Handle | None, offset: int, size: int) -> bytes:
        assert handle is not None
        if handle.text is not None:
            return handle.text[offset : offset + size]
        if handle.records:
            return self._read_record(request, handle, offset, size)
        calls: list[Call] = [*_seek(handle, offset), ["read", handle.descriptor, {"got": size}, size]]

        def got(answer: Answer) -> bytes:
            if len(calls) > 1:
                check(answer.results[0])
            handle.position = offset + check(answer.results[-1])
            return answer.buffers[0]

        return self.ask(request, calls, b"", got)

    def _read_record(self, request: Request, handle: Handle, offset: int, size: int) -> bytes:
        """The next line of the log: dmesg asks for some hundred, one by one."""

        def taken() -> bytes:
            record = handle.ahead.popleft()
            handle.position = offset + len(record)
            return record

        if handle.ahead and len(handle.ahead[0]) <= size:
            return taken()
        calls: list[Call] = [["read", handle.descriptor, {"got": size}, size]] * _RECORDS_AHEAD

        def got(answer: Answer) -> bytes:
            count = next((at for at, result in enumerate(answer.results) if result < 0), len(answer.results))
            handle.ahead.extend(answer.buffers[:count])
            if not handle.ahead:
                check(answer.results[0])
            return taken()

        return self.ask(request, calls, b"", got)

    def lseek(self, request: Request, node: Node, handle: Handle | None, offset: int, whence: int) -> int:
        assert handle is not None

        def moved(answer: Answer) -> int:
            handle.position = check(answer.results[0])
            handle.ahead.clear()
            return handle.position

        return self.ask(request, [["lseek", handle.descriptor, offset, whence]], b"", moved)

    def write(self, request: Request, node: Node, handle: Handle | None, offset: int, data: memoryview) -> int:
        assert handle is not None
        calls: list[Call] = [*_seek(handle, offset), ["write", handle.descriptor, {"in": len(data)}, len(data)]]

        def written(answer: Answer) -> int:
            if len(calls) > 1:
                check(answer.results[0])
            count = check(answer.results[-1])
            handle.position = offset + count
            return count

        return self.ask(request, calls, bytes(data), written)

    def release(self, request: Request, node: Node, handle: Handle | None) -> None:
        if handle is not None and handle.descriptor >= 0:
            self.ask(request, [["close", handle.descriptor]], b"", lambda answer: None)

    def fsync(self, request: Request, node: Node, handle: Handle | None, data_only: bool) -> None:
        assert handle is not None
        self._one(request, ["fdatasync" if data_only else "fsync", handle.descriptor])

    def poll(self, request: Request, node: Node, handle: Handle | None, events: int, waiter: int) -> int:
        assert handle is not None
        if handle.text is not None or handle.ahead:
            return events & _READABLE

        def seen(answer: Answer) -> int:
            check(answer.results[0])
            found: int = _POLL.unpack(answer.buffers[0])[2]
            if not found and waiter and handle.waiter == 0:
                handle.waiter = waiter
                self._await(handle, events)
            return found

        return self.ask(request, [_poll(0)], _POLL.pack(handle.descriptor, _short(events), 0), seen)

    def _await(self, handle: Handle, events: int) -> None:
        """A call that sleeps in the guest until there is something; then whoever polls is woken."""

        def woken(answer: Answer) -> None:
            waiter, handle.waiter = handle.waiter, 0
            self.session.wake(waiter)

        self._caller.ask([_poll(-1)], _POLL.pack(handle.descriptor, _short(events), 0), woken)

    def ioctl(
        self, request: Request, node: Node, handle: Handle | None, command: int, argument: int, data: bytes, room: int
    ) -> IoctlResult:
        assert handle is not None
        shown = processes.read_memory(request.pid, argument, _ARGUMENT_BYTES) if argument >= _LEAST_POINTER else b""
        given: Argument = {"both": len(shown)} if shown else argument

        def done(answer: Answer) -> IoctlResult:
            result = check(answer.results[0])
            after = answer.buffers[0] if shown else b""
            if after[room:] != shown[room:]:
                _write_changes(request.pid, argument, shown, after, room)
            return IoctlResult(result, after[:room])

        calls: list[Call] = [["ioctl", handle.descriptor, command, given]]
        return self.ask(request, calls, shown, done)

    # -- directories --------------------------------------------------------------------------------------------

    def opendir(self, request: Request, node: Node, flags: int) -> Opened:
        return Opened(Handle())  # mostly for a path to begin at: nobody lists it

    def readdir(self, request: Request, node: Node, handle: Handle | None, offset: int) -> Iterable[DirEntry]:
        assert handle is not None
        assert isinstance(node, bytes)
        if offset:
            return handle.entries[offset:]
        if node == paths.DEVICES:
            return ()

        def listed(found: list[DirEntry]) -> Iterable[DirEntry]:
            handle.entries = found
            return found

        return self.entries_of(request, node, listed)

    def entries_of(self, request: Request, path: bytes, then: Callable[[list[DirEntry]], T]) -> T:
        """Ask for a directory's entries."""
        calls: list[Call] = [
            ["openat", AT_FDCWD, {"in": len(path) + 1}, os.O_RDONLY | os.O_DIRECTORY, 0],
            ["getdents64", {"of": 0}, {"got": _LISTING}, _LISTING],
            ["getdents64", {"of": 0}, {"got": _LISTING}, _LISTING],
            ["close", {"of": 0}],
        ]

        def listed(answer: Answer) -> T:
            for result in answer.results[:3]:
                check(result)
            return then(self._with_made_up(path, list(_entries(b"".join(answer.buffers)))))

        return self.ask(request, calls, path + b"\0", listed)

    def _with_made_up(self, folder: bytes, found: list[tuple[bytes, int]]) -> list[DirEntry]:
        rows = dict(found)
        if folder == b"/proc":
            rows = {name: kind for name, kind in found if not name.isdigit()}
            rows |= {name: stat.S_IFLNK for name in os.listdir(b"/proc") if name.isdigit()}
        for path in (*paths.LINKS, *paths.FOLDERS):
            parent, _, name = path.rpartition(b"/")
            if parent == folder and name != paths.HOST_PROC:
                rows[name] = stat.S_IFLNK if path in paths.LINKS else stat.S_IFDIR
        if folder in (b"/proc",):
            rows.pop(paths.HOST_PROC, None)
        return [DirEntry(name, _number(name), kind, at) for at, (name, kind) in enumerate(rows.items(), 1)]


def check(result: int) -> int:
    """The result of a call; a negative errno is raised."""
    if -4096 < result < 0:
        raise Errno(-result)
    return result


def statx(path: bytes) -> Call:
    flags = 0 if path in paths.FOLLOWED else NOFOLLOW
    return ["statx", AT_FDCWD, {"in": len(path) + 1}, flags, _STATX_BASIC, {"out": _STATX_BYTES}]


def _seek(handle: Handle, offset: int) -> list[Call]:
    """What brings the guest's position to the host's."""
    if not handle.seeks or handle.position == offset:
        return []
    return [["lseek", handle.descriptor, offset, os.SEEK_SET]]


def _poll(timeout: int) -> Call:
    return ["poll", {"both": _POLL.size}, 1, timeout]


def _short(events: int) -> int:
    return events & 0x7FFF


def _below(parent: Node, name: bytes) -> bytes:
    assert isinstance(parent, bytes)
    return paths.join(parent, name)


def _device(major: int, minor: int) -> int:
    """As ``new_encode_dev`` of include/linux/kdev_t.h."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _number(name: bytes) -> int:
    """An inode number for what has none."""
    return hash(name) & 0x7FFF_FFFF_FFFF_FFFF | 1


def _entries(data: bytes) -> Iterable[tuple[bytes, int]]:
    at = 0
    while at < len(data):
        _, _, length, kind = _DIRENT.unpack_from(data, at)
        yield data[at + _DIRENT.size : at + length].split(b"\0", 1)[0], kind << 12
        at += length


def _write_changes(pid: int, address: int, before: bytes, after: bytes, start: int) -> None:
    """Write back the bytes that the kernel changed, and no others: another thread may own them."""
    at = start
    while at < len(after):
        if before[at] == after[at]:
            at += 1
            continue
        end = at
        while end < len(after) and before[end] != after[end]:
            end += 1
        processes.write_memory(pid, address + at, after[at:end])
        at = end
