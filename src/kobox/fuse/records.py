"""What passes between a tree and the protocol: records of the tree's own terms, no numbers of the protocol.

Names and link targets are bytes. Times are nanoseconds since 1970. ``mode`` has the type bits of stat(2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

N = TypeVar("N")


class Attributes(NamedTuple):
    """As stat(2). ``rdev`` is ``device_number``; ``blocks`` are of 512 bytes; ``valid``: for how many seconds the host
    may keep this without asking again (None: as the session's options say)."""

    ino: int
    mode: int
    size: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    blocks: int = 0
    blksize: int = 4096
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    valid: float | None = None


class Entry(NamedTuple, Generic[N]):
    """What a name leads to. ``valid``: for how many seconds the host may keep the name."""

    node: N
    attributes: Attributes
    valid: float | None = None


class DirEntry(NamedTuple):
    """One entry of a directory. ``next`` is the offset of the entry behind it, not 0; ``kind`` are the type bits of the
    mode (0: not known)."""

    name: bytes
    ino: int
    kind: int
    next: int


class Opened(NamedTuple):
    """An open file or directory. ``handle`` is whatever the tree wants to be given at each use; never None.

    ``direct_io``: reads and writes come as the program makes them, past the host's page cache, so that a file whose
    size is not known ends where a read answers less. ``keep_cache``: what the host knows of the content stays good.
    ``stream``: no position at all. ``nonseekable``: no lseek. ``no_flush``: no call at close.
    """

    handle: Any
    direct_io: bool = False
    keep_cache: bool = False
    nonseekable: bool = False
    stream: bool = False
    cache_dir: bool = False
    no_flush: bool = False
    parallel_writes: bool = False


KEEP = None
"""A member of ``Changes`` that stays as it is."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a SETATTR asks for. A time of -1 is now; ``kill_suid``: a write or chown takes the set-id bits away."""

    mode: int | None = KEEP
    uid: int | None = KEEP
    gid: int | None = KEEP
    size: int | None = KEEP
    atime: int | None = KEEP
    mtime: int | None = KEEP
    ctime: int | None = KEEP
    kill_suid: bool = False


NOW = -1


class Statistics(NamedTuple):
    """As statvfs(3)."""

    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    bsize: int = 4096
    namelen: int = 255
    frsize: int = 4096


class Lock(NamedTuple):
    """A lock of fcntl(2) or flock(2): bytes ``start`` to ``end`` included; ``type`` is F_RDLCK, F_WRLCK, F_UNLCK."""

    start: int
    end: int
    type: int
    pid: int


class IoctlResult(NamedTuple):
    """What ioctl(2) answers, and the argument's bytes afterwards."""

    result: int = 0
    data: bytes = b""


def device_number(major: int, minor: int) -> int:
    """The kernel's 32-bit form (include/linux/kdev_t.h, ``new_encode_dev``)."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
