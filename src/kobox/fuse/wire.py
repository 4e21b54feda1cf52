"""Numbers and structures of the FUSE protocol as data; precompiled. Nothing here does anything.

Follows include/uapi/linux/fuse.h; native byte order, as the kernel speaks it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

MAJOR, MINOR = 7, 39
ROOT_ID = 1
PAGE = 4096
LEAST_BUFFER = 8192
"""The kernel refuses to fill a smaller one."""


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51


class Notice(IntEnum):
    """What the file system tells the kernel unasked."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    DELETE = 6


class Init(IntFlag):
    """Abilities that both sides must have. Bits from 32 on travel in ``flags2``."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    DIRECT_IO_ALLOW_MMAP = 1 << 36


class Open(IntFlag):
    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    STREAM = 1 << 4
    NOFLUSH = 1 << 5
    PARALLEL_DIRECT_WRITES = 1 << 6


class Valid(IntFlag):
    """Which members of a SETATTR count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


GETATTR_FH = 1 << 0
FSYNC_DATA = 1 << 0
POLL_SCHEDULE_NOTIFY = 1 << 0
IOCTL_DIR = 1 << 4
LOCK_FLOCK = 1 << 0
WRITE_KILL_SUIDGID = 1 << 2

IN_HEADER = Struct("=IIQQIIIHH")
"""Length, opcode, unique, node, uid, gid, pid, length of extensions in 8 bytes, padding."""
OUT_HEADER = Struct("=IiQ")
"""Length, negative errno (or a notice), unique."""

ATTRIBUTES = "QQQQQQIIIIIIIIII"
"""ino, size, blocks; atime, mtime, ctime; their nanoseconds; mode, nlink, uid, gid, rdev, blksize, flags."""
ENTRY_OUT = Struct("=QQQQII" + ATTRIBUTES)
ATTR_OUT = Struct("=QII" + ATTRIBUTES)
OPEN_OUT = Struct("=QII")
WRITE_OUT = Struct("=II")
STATFS_OUT = Struct("=QQQQQIIII24x")
XATTR_OUT = Struct("=II")
LOCK_OUT = Struct("=QQII")
BMAP_OUT = Struct("=Q")
IOCTL_OUT = Struct("=iIII")
POLL_OUT = Struct("=II")
LSEEK_OUT = Struct("=Q")
DIRENT = Struct("=QQII")

INIT_IN = Struct("=IIII")
INIT_IN_EXT = Struct("=I")
INIT_OUT = Struct("=IIIIHHIIHHI28x")
GETATTR_IN = Struct("=IIQ")
SETATTR_IN = Struct("=IIQQQQQQIIIIIIII")
MKNOD_IN = Struct("=IIII")
MKDIR_IN = Struct("=II")
RENAME_IN = Struct("=Q")
RENAME2_IN = Struct("=QII")
LINK_IN = Struct("=Q")
OPEN_IN = Struct("=II")
CREATE_IN = Struct("=IIII")
RELEASE_IN = Struct("=QIIQ")
FLUSH_IN = Struct("=QIIQ")
READ_IN = Struct("=QQIIQII")
WRITE_IN = Struct("=QQIIQII")
FSYNC_IN = Struct("=QII")
SETXATTR_IN = Struct("=IIII")
SETXATTR_IN_SHORT = Struct("=II")
GETXATTR_IN = Struct("=II")
LK_IN = Struct("=QQQQIIII")
ACCESS_IN = Struct("=II")
INTERRUPT_IN = Struct("=Q")
BMAP_IN = Struct("=QII")
IOCTL_IN = Struct("=QIIQII")
POLL_IN = Struct("=QQII")
FORGET_IN = Struct("=Q")
BATCH_FORGET_IN = Struct("=II")
FORGET_ONE = Struct("=QQ")
FALLOCATE_IN = Struct("=QQQII")
LSEEK_IN = Struct("=QQII")
COPY_FILE_RANGE_IN = Struct("=QQQQQQQ")

NOTICE_POLL = Struct("=Q")
NOTICE_INVAL_INODE = Struct("=Qqq")
NOTICE_INVAL_ENTRY = Struct("=QII")
NOTICE_DELETE = Struct("=QQII")
