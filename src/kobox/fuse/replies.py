"""Answers as bytes: what a tree returned becomes the buffers of a reply. Nothing here calls a tree but ``directory``,
which asks it for what the entries lead to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from errno import ENOENT, ERANGE
from typing import TYPE_CHECKING, Any

from kobox.errors import Errno
from kobox.fuse import wire
from kobox.fuse.filesystem import Data
from kobox.fuse.records import Attributes, DirEntry, Entry, IoctlResult, Lock, Opened, Statistics

if TYPE_CHECKING:
    from kobox.fuse.request import Request
    from kobox.fuse.session import Session

Reply = Sequence[Data]
_SECOND = 1_000_000_000
_MASK = (1 << 64) - 1
_NO_ENTRY = bytes(wire.ENTRY_OUT.size)
_PADDING = [b"", *(bytes(count) for count in range(1, 8))]


def nothing(session: Session[Any, Any], request: Request, result: None) -> Reply:
    return ()


def data(session: Session[Any, Any], request: Request, result: Data) -> Reply:
    return (result,)


def attributes(session: Session[Any, Any], request: Request, result: Attributes) -> Reply:
    seconds, nanoseconds = _lasting(result.valid, session.options.attributes_valid)
    return (wire.ATTR_OUT.pack(seconds, nanoseconds, 0, *_members(result)),)


def entry(session: Session[Any, Any], request: Request, result: Entry[Any] | None) -> Reply:
    return (_entry(session, result),)


def opened(session: Session[Any, Any], request: Request, result: Opened) -> Reply:
    return (_opened(session, result),)


def created(session: Session[Any, Any], request: Request, result: tuple[Entry[Any], Opened]) -> Reply:
    return (_entry(session, result[0]), _opened(session, result[1]))


def count(session: Session[Any, Any], request: Request, result: int) -> Reply:
    return (wire.WRITE_OUT.pack(result, 0),)


def statistics(session: Session[Any, Any], request: Request, result: Statistics) -> Reply:
    return (wire.STATFS_OUT.pack(*result, 0),)


def attribute_value(session: Session[Any, Any], request: Request, result: bytes) -> Reply:
    """A value, or its size where the host asks for no more."""
    room, _ = wire.GETXATTR_IN.unpack_from(request.body)
    if room == 0:
        return (wire.XATTR_OUT.pack(len(result), 0),)
    if len(result) > room:
        raise Errno(ERANGE)
    return (result,)


def lock(session: Session[Any, Any], request: Request, result: Lock) -> Reply:
    return (wire.LOCK_OUT.pack(*result),)


def ioctl(session: Session[Any, Any], request: Request, result: IoctlResult) -> Reply:
    return (wire.IOCTL_OUT.pack(result.result, 0, 0, 0), result.data)


def events(session: Session[Any, Any], request: Request, result: int) -> Reply:
    return (wire.POLL_OUT.pack(result, 0),)


def position(session: Session[Any, Any], request: Request, result: int) -> Reply:
    return (wire.LSEEK_OUT.pack(result),)


def directory(session: Session[Any, Any], request: Request, result: Iterable[DirEntry]) -> Reply:
    """As many entries as there is room for. Of READDIRPLUS each with what it leads to, which the host then holds."""
    _, _, room, *_ = wire.READ_IN.unpack_from(request.body)
    plus = request.opcode == wire.Opcode.READDIRPLUS
    parts: list[bytes] = []
    for found in result:
        size = wire.DIRENT.size + len(found.name)
        padding = -size & 7
        room -= size + padding + (wire.ENTRY_OUT.size if plus else 0)
        if room < 0:
            break
        if plus:
            parts.append(_leads_to(session, request, found))
        parts += (wire.DIRENT.pack(found.ino, found.next, len(found.name), found.kind >> 12 & 15), found.name)
        if padding:
            parts.append(_PADDING[padding])
    return (b"".join(parts),)


def _leads_to(session: Session[Any, Any], request: Request, found: DirEntry) -> bytes:
    """Without an answer the host looks the name up when it needs it."""
    if found.name in (b".", b".."):
        return _NO_ENTRY
    try:
        there = session.file_system.entry(request, session.nodes.node(request.nodeid), found)
    except (Errno, OSError):
        return _NO_ENTRY
    return _NO_ENTRY if there is None else _entry(session, there)


def _entry(session: Session[Any, Any], result: Entry[Any] | None) -> bytes:
    if result is None:
        if not session.options.absence_valid:
            raise Errno(ENOENT)
        seconds, nanoseconds = _lasting(None, session.options.absence_valid)
        return wire.ENTRY_OUT.pack(0, 0, seconds, 0, nanoseconds, 0, *[0] * 16)
    seconds, nanoseconds = _lasting(result.valid, session.options.entry_valid)
    kept, kept_nanoseconds = _lasting(result.attributes.valid, session.options.attributes_valid)
    members = _members(result.attributes)
    number = session.nodes.tell(result.node)
    return wire.ENTRY_OUT.pack(number, 0, seconds, kept, nanoseconds, kept_nanoseconds, *members)


def _opened(session: Session[Any, Any], result: Opened) -> bytes:
    flags = 0
    for wanted, flag in zip(result[1:], _OPEN_FLAGS, strict=True):
        if wanted:
            flags |= flag
    return wire.OPEN_OUT.pack(session.handles.add(result.handle), flags, 0)


_OPEN_FLAGS = (
    wire.Open.DIRECT_IO.value, wire.Open.KEEP_CACHE.value, wire.Open.NONSEEKABLE.value, wire.Open.STREAM.value,
    wire.Open.CACHE_DIR.value, wire.Open.NOFLUSH.value, wire.Open.PARALLEL_DIRECT_WRITES.value,
)  # fmt: skip
"""In the order of ``Opened``'s members."""


def _members(value: Attributes) -> tuple[int, ...]:
    atime, atime_ns = divmod(value.atime, _SECOND)
    mtime, mtime_ns = divmod(value.mtime, _SECOND)
    ctime, ctime_ns = divmod(value.ctime, _SECOND)
    return (
        value.ino, value.size, value.blocks, atime & _MASK, mtime & _MASK, ctime & _MASK, atime_ns, mtime_ns, ctime_ns,
        value.mode, value.nlink, value.uid, value.gid, value.rdev, value.blksize, 0,
    )  # fmt: skip


def _lasting(own: float | None, default: float) -> tuple[int, int]:
    value = default if own is None else own
    seconds = int(value)
    return seconds, int((value - seconds) * _SECOND)
