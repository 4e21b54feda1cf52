"""Requests as calls: an opcode's body becomes the arguments of a method; the table names the answer's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kobox.fuse import replies, wire
from kobox.fuse.records import NOW, Changes, Lock
from kobox.fuse.wire import Opcode, Valid

if TYPE_CHECKING:
    from kobox.fuse.request import Request
    from kobox.fuse.session import Session

    AnySession = Session[Any, Any]

_SECOND = 1_000_000_000
_MODE_BITS = 0o7777
_OPEN_ONLY = ~(0o100 | 0o200 | 0o400)
"""What open(2) gets beside O_CREAT, O_EXCL and O_NOCTTY."""


class Operation(NamedTuple):
    """``serve`` calls the tree; ``reply`` makes bytes of what it returned."""

    serve: Callable[[AnySession, Request], Any]
    reply: Callable[[AnySession, Request, Any], replies.Reply]


def _lookup(s: AnySession, r: Request) -> Any:
    return s.file_system.lookup(r, s.nodes.node(r.nodeid), r.body[:-1])


def _getattr(s: AnySession, r: Request) -> Any:
    flags, _, handle = wire.GETATTR_IN.unpack_from(r.body)
    return s.file_system.getattr(r, s.nodes.node(r.nodeid), s.handles.get(handle) if flags & wire.GETATTR_FH else None)


def _setattr(s: AnySession, r: Request) -> Any:
    (
        valid, _, handle, size, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _,
    ) = wire.SETATTR_IN.unpack_from(r.body)  # fmt: skip

    def when(flag: int, now: int, seconds: int, nanoseconds: int) -> int | None:
        if valid & now:
            return NOW
        return (seconds - (seconds >> 63 << 64)) * _SECOND + nanoseconds if valid & flag else None

    changes = Changes(
        mode & _MODE_BITS if valid & Valid.MODE else None,
        uid if valid & Valid.UID else None,
        gid if valid & Valid.GID else None,
        size if valid & Valid.SIZE else None,
        when(Valid.ATIME, Valid.ATIME_NOW, atime, atime_ns),
        when(Valid.MTIME, Valid.MTIME_NOW, mtime, mtime_ns),
        when(Valid.CTIME, 0, ctime, ctime_ns),
        bool(valid & Valid.KILL_SUIDGID),
    )
    opened = s.handles.get(handle) if valid & Valid.FH else None
    return s.file_system.setattr(r, s.nodes.node(r.nodeid), opened, changes)


def _readlink(s: AnySession, r: Request) -> Any:
    return s.file_system.readlink(r, s.nodes.node(r.nodeid))


def _symlink(s: AnySession, r: Request) -> Any:
    name, target, _ = r.body.split(b"\0", 2)
    return s.file_system.symlink(r, s.nodes.node(r.nodeid), name, target)


def _mknod(s: AnySession, r: Request) -> Any:
    mode, rdev, umask, _ = wire.MKNOD_IN.unpack_from(r.body)
    name = r.body[wire.MKNOD_IN.size : -1]
    return s.file_system.mknod(r, s.nodes.node(r.nodeid), name, s.masked(r, mode, umask), rdev)


def _mkdir(s: AnySession, r: Request) -> Any:
    mode, umask = wire.MKDIR_IN.unpack_from(r.body)
    return s.file_system.mkdir(r, s.nodes.node(r.nodeid), r.body[wire.MKDIR_IN.size : -1], s.masked(r, mode, umask))


def _unlink(s: AnySession, r: Request) -> Any:
    return s.file_system.unlink(r, s.nodes.node(r.nodeid), r.body[:-1])


def _rmdir(s: AnySession, r: Request) -> Any:
    return s.file_system.rmdir(r, s.nodes.node(r.nodeid), r.body[:-1])


def _rename(s: AnySession, r: Request) -> Any:
    (folder,) = wire.RENAME_IN.unpack_from(r.body)
    return _renamed(s, r, folder, 0, wire.RENAME_IN.size)


def _rename2(s: AnySession, r: Request) -> Any:
    folder, flags, _ = wire.RENAME2_IN.unpack_from(r.body)
    return _renamed(s, r, folder, flags, wire.RENAME2_IN.size)


def _renamed(s: AnySession, r: Request, folder: int, flags: int, start: int) -> Any:
    name, new_name, _ = r.body[start:].split(b"\0", 2)
    return s.file_system.rename(r, s.nodes.node(r.nodeid), name, s.nodes.node(folder), new_name, flags)


def _link(s: AnySession, r: Request) -> Any:
    (node,) = wire.LINK_IN.unpack_from(r.body)
    return s.file_system.link(r, s.nodes.node(node), s.nodes.node(r.nodeid), r.body[wire.LINK_IN.size : -1])


def _open(s: AnySession, r: Request) -> Any:
    flags, _ = wire.OPEN_IN.unpack_from(r.body)
    return s.file_system.open(r, s.nodes.node(r.nodeid), flags & _OPEN_ONLY)


def _opendir(s: AnySession, r: Request) -> Any:
    flags, _ = wire.OPEN_IN.unpack_from(r.body)
    return s.file_system.opendir(r, s.nodes.node(r.nodeid), flags & _OPEN_ONLY)


def _create(s: AnySession, r: Request) -> Any:
    flags, mode, umask, _ = wire.CREATE_IN.unpack_from(r.body)
    name = r.body[wire.CREATE_IN.size :].split(b"\0", 1)[0]
    return s.file_system.create(r, s.nodes.node(r.nodeid), name, s.masked(r, mode, umask), flags)


def _tmpfile(s: AnySession, r: Request) -> Any:
    flags, mode, umask, _ = wire.CREATE_IN.unpack_from(r.body)
    return s.file_system.tmpfile(r, s.nodes.node(r.nodeid), s.masked(r, mode, umask), flags)


def _read(s: AnySession, r: Request) -> Any:
    handle, offset, size, *_ = wire.READ_IN.unpack_from(r.body)
    return s.file_system.read(r, s.nodes.node(r.nodeid), s.handles.get(handle), offset, size)


def _write(s: AnySession, r: Request) -> Any:
    handle, offset, size, *_ = wire.WRITE_IN.unpack_from(r.body)
    assert r.data is not None
    return s.file_system.write(r, s.nodes.node(r.nodeid), s.handles.get(handle), offset, r.data[:size])


def _statfs(s: AnySession, r: Request) -> Any:
    return s.file_system.statfs(r, s.nodes.node(r.nodeid))


def _flush(s: AnySession, r: Request) -> Any:
    handle, *_ = wire.FLUSH_IN.unpack_from(r.body)
    return s.file_system.flush(r, s.nodes.node(r.nodeid), s.handles.get(handle))


def _release(s: AnySession, r: Request) -> Any:
    handle, *_ = wire.RELEASE_IN.unpack_from(r.body)
    return s.file_system.release(r, s.nodes.node(r.nodeid), s.handles.remove(handle))


def _releasedir(s: AnySession, r: Request) -> Any:
    handle, *_ = wire.RELEASE_IN.unpack_from(r.body)
    return s.file_system.releasedir(r, s.nodes.node(r.nodeid), s.handles.remove(handle))


def _fsync(s: AnySession, r: Request) -> Any:
    handle, flags, _ = wire.FSYNC_IN.unpack_from(r.body)
    return s.file_system.fsync(r, s.nodes.node(r.nodeid), s.handles.get(handle), bool(flags & wire.FSYNC_DATA))


def _fsyncdir(s: AnySession, r: Request) -> Any:
    handle, flags, _ = wire.FSYNC_IN.unpack_from(r.body)
    return s.file_system.fsyncdir(r, s.nodes.node(r.nodeid), s.handles.get(handle), bool(flags & wire.FSYNC_DATA))


def _readdir(s: AnySession, r: Request) -> Any:
    handle, offset, *_ = wire.READ_IN.unpack_from(r.body)
    return s.file_system.readdir(r, s.nodes.node(r.nodeid), s.handles.get(handle), offset)


def _setxattr(s: AnySession, r: Request) -> Any:
    form = wire.SETXATTR_IN if s.shared & wire.Init.SETXATTR_EXT else wire.SETXATTR_IN_SHORT
    size, flags, *_ = form.unpack_from(r.body)
    name, value = r.body[form.size :].split(b"\0", 1)
    return s.file_system.setxattr(r, s.nodes.node(r.nodeid), name, value[:size], flags)


def _getxattr(s: AnySession, r: Request) -> Any:
    return s.file_system.getxattr(r, s.nodes.node(r.nodeid), r.body[wire.GETXATTR_IN.size : -1])


def _listxattr(s: AnySession, r: Request) -> Any:
    return s.file_system.listxattr(r, s.nodes.node(r.nodeid))


def _removexattr(s: AnySession, r: Request) -> Any:
    return s.file_system.removexattr(r, s.nodes.node(r.nodeid), r.body[:-1])


def _getlk(s: AnySession, r: Request) -> Any:
    handle, owner, start, end, kind, pid, _, _ = wire.LK_IN.unpack_from(r.body)
    lock = Lock(start, end, kind, pid)
    return s.file_system.getlk(r, s.nodes.node(r.nodeid), s.handles.get(handle), owner, lock)


def _setlk(s: AnySession, r: Request) -> Any:
    handle, owner, start, end, kind, pid, flags, _ = wire.LK_IN.unpack_from(r.body)
    lock, waits = Lock(start, end, kind, pid), r.opcode == Opcode.SETLKW
    whole = bool(flags & wire.LOCK_FLOCK)
    return s.file_system.setlk(r, s.nodes.node(r.nodeid), s.handles.get(handle), owner, lock, waits, whole)


def _access(s: AnySession, r: Request) -> Any:
    mask, _ = wire.ACCESS_IN.unpack_from(r.body)
    return s.file_system.access(r, s.nodes.node(r.nodeid), mask)


def _bmap(s: AnySession, r: Request) -> Any:
    block, size, _ = wire.BMAP_IN.unpack_from(r.body)
    return s.file_system.bmap(r, s.nodes.node(r.nodeid), block, size)


def _ioctl(s: AnySession, r: Request) -> Any:
    handle, _, command, argument, size, room = wire.IOCTL_IN.unpack_from(r.body)
    data = r.body[wire.IOCTL_IN.size : wire.IOCTL_IN.size + size]
    return s.file_system.ioctl(r, s.nodes.node(r.nodeid), s.handles.get(handle), command, argument, data, room)


def _poll(s: AnySession, r: Request) -> Any:
    handle, waiter, flags, events = wire.POLL_IN.unpack_from(r.body)
    wanted = waiter if flags & wire.POLL_SCHEDULE_NOTIFY else 0
    return s.file_system.poll(r, s.nodes.node(r.nodeid), s.handles.get(handle), events, wanted)


def _fallocate(s: AnySession, r: Request) -> Any:
    handle, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(r.body)
    return s.file_system.fallocate(r, s.nodes.node(r.nodeid), s.handles.get(handle), mode, offset, length)


def _lseek(s: AnySession, r: Request) -> Any:
    handle, offset, whence, _ = wire.LSEEK_IN.unpack_from(r.body)
    return s.file_system.lseek(r, s.nodes.node(r.nodeid), s.handles.get(handle), offset, whence)


def _copy_file_range(s: AnySession, r: Request) -> Any:
    handle, offset, to, to_handle, to_offset, length, flags = wire.COPY_FILE_RANGE_IN.unpack_from(r.body)
    return s.file_system.copy_file_range(
        r, s.nodes.node(r.nodeid), s.handles.get(handle), offset,
        s.nodes.node(to), s.handles.get(to_handle), to_offset, length, flags,
    )  # fmt: skip


def _syncfs(s: AnySession, r: Request) -> Any:
    return s.file_system.syncfs(r, s.nodes.node(r.nodeid))


OPERATIONS: dict[int, Operation] = {
    Opcode.LOOKUP: Operation(_lookup, replies.entry),
    Opcode.GETATTR: Operation(_getattr, replies.attributes),
    Opcode.SETATTR: Operation(_setattr, replies.attributes),
    Opcode.READLINK: Operation(_readlink, replies.data),
    Opcode.SYMLINK: Operation(_symlink, replies.entry),
    Opcode.MKNOD: Operation(_mknod, replies.entry),
    Opcode.MKDIR: Operation(_mkdir, replies.entry),
    Opcode.UNLINK: Operation(_unlink, replies.nothing),
    Opcode.RMDIR: Operation(_rmdir, replies.nothing),
    Opcode.RENAME: Operation(_rename, replies.nothing),
    Opcode.RENAME2: Operation(_rename2, replies.nothing),
    Opcode.LINK: Operation(_link, replies.entry),
    Opcode.OPEN: Operation(_open, replies.opened),
    Opcode.CREATE: Operation(_create, replies.created),
    Opcode.TMPFILE: Operation(_tmpfile, replies.created),
    Opcode.READ: Operation(_read, replies.data),
    Opcode.WRITE: Operation(_write, replies.count),
    Opcode.STATFS: Operation(_statfs, replies.statistics),
    Opcode.FLUSH: Operation(_flush, replies.nothing),
    Opcode.RELEASE: Operation(_release, replies.nothing),
    Opcode.FSYNC: Operation(_fsync, replies.nothing),
    Opcode.FALLOCATE: Operation(_fallocate, replies.nothing),
    Opcode.LSEEK: Operation(_lseek, replies.position),
    Opcode.COPY_FILE_RANGE: Operation(_copy_file_range, replies.count),
    Opcode.OPENDIR: Operation(_opendir, replies.opened),
    Opcode.READDIR: Operation(_readdir, replies.directory),
    Opcode.READDIRPLUS: Operation(_readdir, replies.directory),
    Opcode.RELEASEDIR: Operation(_releasedir, replies.nothing),
    Opcode.FSYNCDIR: Operation(_fsyncdir, replies.nothing),
    Opcode.SYNCFS: Operation(_syncfs, replies.nothing),
    Opcode.SETXATTR: Operation(_setxattr, replies.nothing),
    Opcode.GETXATTR: Operation(_getxattr, replies.attribute_value),
    Opcode.LISTXATTR: Operation(_listxattr, replies.attribute_value),
    Opcode.REMOVEXATTR: Operation(_removexattr, replies.nothing),
    Opcode.GETLK: Operation(_getlk, replies.lock),
    Opcode.SETLK: Operation(_setlk, replies.nothing),
    Opcode.SETLKW: Operation(_setlk, replies.nothing),
    Opcode.ACCESS: Operation(_access, replies.nothing),
    Opcode.BMAP: Operation(_bmap, replies.position),
    Opcode.IOCTL: Operation(_ioctl, replies.ioctl),
    Opcode.POLL: Operation(_poll, replies.events),
}
