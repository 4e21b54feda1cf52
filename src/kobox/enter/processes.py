"""Another process, seen from outside: its memory, its descriptors, its name. All of it may vanish at any moment.

Numbers are those of threads; /proc takes them as it takes those of processes.
"""

from __future__ import annotations

import ctypes
import os
from errno import EFAULT, ESRCH

_libc = ctypes.CDLL(None, use_errno=True)
_PAGE = 4096
_PATH_BYTES = 4096
CAP_SYS_MODULE, CAP_SYSLOG, CAP_SYS_ADMIN = 16, 34, 21


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc.process_vm_readv.restype = _libc.process_vm_writev.restype = ctypes.c_ssize_t
_room = ctypes.create_string_buffer(_PATH_BYTES)
_here = _Part(ctypes.addressof(_room), 0)
_there = _Part(0, 0)
_here_at, _there_at = ctypes.byref(_here), ctypes.byref(_there)


def read_memory(pid: int, address: int, size: int) -> bytes:
    """As much as can be read, up to ``size`` bytes."""
    if size <= 0 or address == 0:
        return b""
    if size <= _PATH_BYTES:
        buffer, here, here_at = _room, _here, _here_at
        here.length = size
    else:
        buffer = ctypes.create_string_buffer(size)
        here = _Part(ctypes.addressof(buffer), size)
        here_at = ctypes.byref(here)
    _there.base, _there.length = address, size
    count = _libc.process_vm_readv(pid, here_at, 1, _there_at, 1, 0)
    return ctypes.string_at(buffer, count) if count > 0 else b""


def read_text(pid: int, address: int, limit: int = _PATH_BYTES) -> bytes | None:
    """A string up to its NUL or to ``limit`` bytes; None where it cannot be read."""
    found = b""
    while len(found) < limit:
        at = address + len(found)
        part = read_memory(pid, at, min(limit - len(found), _PAGE - at % _PAGE if found else 256))
        end = part.find(b"\0")
        if end >= 0:
            return found + part[:end]
        if not part:
            return None
        found += part
    return found


def write_memory(pid: int, address: int, data: bytes) -> bool:
    """Whether all of it could be written."""
    if not data:
        return True
    here = _Part(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
    there = _Part(address, len(data))
    return bool(_libc.process_vm_writev(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == len(data))


def name_of(pid: int) -> str:
    """What the kernel calls it; empty where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return ""


def may(pid: int, capability: int) -> bool:
    """Whether it has a capability (in its own namespace)."""
    found = _status(pid, b"CapEff:")
    return found is not None and bool(int(found, 16) >> capability & 1)


def is_signalled(pid: int) -> bool:
    """Whether a signal waits for it that it has a handler for."""
    rows = [_status(pid, key) for key in (b"SigPnd:", b"ShdPnd:", b"SigBlk:", b"SigCgt:")]
    if None in rows:
        return False
    own, shared, blocked, caught = (int(row or b"0", 16) for row in rows)
    return bool((own | shared) & ~blocked & caught)


def _status(pid: int, key: bytes) -> bytes | None:
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            text = file.read(8192)
    except OSError:
        return None
    at = text.find(b"\n" + key)
    return text[at + 1 + len(key) : text.index(b"\n", at + 1)].strip() if at >= 0 else None


def folder_of(pid: int, descriptor: int) -> bytes | None:
    """The path behind a directory's descriptor, or (negative: AT_FDCWD) the working directory."""
    where = f"/proc/{pid}/cwd" if descriptor < 0 else f"/proc/{pid}/fd/{descriptor}"
    try:
        return os.readlink(os.fsencode(where))
    except OSError:
        return None


def open_flags(pid: int, descriptor: int) -> int | None:
    """With what flags a descriptor was opened; None where there is none."""
    try:
        with open(f"/proc/{pid}/fdinfo/{descriptor}", "rb", buffering=0) as file:
            text = file.read(512)
    except OSError:
        return None
    at = text.find(b"flags:")
    return int(text[at + 6 : text.index(b"\n", at)].strip(), 8)


def kill(pid: int, number: int) -> None:
    """Send a signal; a process that is gone needs none."""
    try:
        os.kill(pid, number)
    except OSError as error:
        if error.errno not in (ESRCH, EFAULT):
            raise
