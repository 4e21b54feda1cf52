"""Seccomp's user notification: a filter that stops chosen system calls, and the descriptor where they are answered.

Follows seccomp_unotify(2), include/uapi/linux/seccomp.h and filter.h; x86-64 only, as kobox's kernels are. Calls by
the 32-bit entries pass through.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterable
from errno import EINVAL, ENOENT, ENOSYS
from typing import NamedTuple

_SECCOMP = 317
_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_ALLOW, _NOTIFY = 0x7FFF_0000, 0x7FC0_0000
_X86_64 = 0xC000_003E
"""AUDIT_ARCH_X86_64."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K."""
_NUMBER_AT, _ARCH_AT = 0, 4
_INSTRUCTION = struct.Struct("=HBBI")
_NOTIF = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")
_CONTINUE = 1
_ADDFD_SEND = 1 << 1
_O_CLOEXEC = 0o2000000
_RECEIVE, _SEND, _ID_VALID = 0xC050_2100, 0xC018_2101, 0x4008_2102
_ADD_DESCRIPTOR, _SET_FLAGS = 0x4018_2103, 0x4008_2104
_SYNC_WAKE_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Caught(NamedTuple):
    """A call that waits for its answer. ``pid`` is the thread's number, ``number`` the system call's."""

    id: int
    pid: int
    number: int
    arguments: tuple[int, ...]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(numbers: Iterable[int]) -> bytes:
    """The filter that stops these system calls and lets all others pass."""
    wanted = sorted(set(numbers))
    rows = [(_LOAD, 0, 0, _ARCH_AT), (_EQUAL, 0, len(wanted) + 1, _X86_64), (_LOAD, 0, 0, _NUMBER_AT)]
    rows += [(_EQUAL, len(wanted) - at, 0, number) for at, number in enumerate(wanted)]
    rows += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    return b"".join(_INSTRUCTION.pack(*row) for row in rows)


def install(numbers: Iterable[int]) -> int:
    """Stop these system calls of this thread and of all that it starts: the listening descriptor.

    The caller has CAP_SYS_ADMIN in its namespace or ``no_new_privs``. ``OSError`` where the host cannot do it. Once a
    call was received, only a deadly signal takes it back, so that none is made twice; older hosts lack that.
    """
    code = program(numbers)
    memory = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // _INSTRUCTION.size, ctypes.addressof(memory))
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
        found = _seccomp(_SET_MODE_FILTER, flags, ctypes.byref(filter_))
        if found >= 0:
            return found
        if ctypes.get_errno() != EINVAL:
            break
    raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def missing() -> str:
    """Why this host has no user notification; empty where it has."""
    sizes = ctypes.create_string_buffer(6)
    if _seccomp(_GET_NOTIF_SIZES, 0, sizes) < 0:
        return os.strerror(ctypes.get_errno() or ENOSYS)
    received, answer, _ = struct.unpack("=HHH", sizes.raw)
    if received < _NOTIF.size or answer < _ANSWER.size:
        return f"its notification has {received} bytes, expected {_NOTIF.size}"
    return ""


def _seccomp(operation: int, flags: int, argument: object) -> int:
    return int(_libc.syscall(ctypes.c_long(_SECCOMP), ctypes.c_uint(operation), ctypes.c_uint(flags), argument))


class Listener:
    """The descriptor's other end. It is readable when a call waits, and hung up once no program is left."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._received = bytearray(_NOTIF.size)
        self._nothing = bytes(_NOTIF.size)
        self._answer = bytearray(_ANSWER.size)
        try:
            fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError:
            self.quick = False  # before Linux 6.6: answers take a little longer
        else:
            self.quick = True

    def fileno(self) -> int:
        return self._descriptor

    def receive(self) -> Caught | None:
        """The next call; None when its caller died meanwhile."""
        self._received[:] = self._nothing  # the kernel insists
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, self._received)
        except OSError as error:
            if error.errno == ENOENT:
                return None
            raise
        number, pid, _, call, _, _, *arguments = _NOTIF.unpack(self._received)
        return Caught(number, pid, call, tuple(arguments))

    def answer(self, caught: Caught, result: int) -> None:
        """What the call returns: a negative errno is one."""
        value, error = (0, result) if -4096 < result < 0 else (result, 0)
        self._send(caught.id, value, error, 0)

    def go_on(self, caught: Caught) -> None:
        """Let the host's kernel carry it out."""
        self._send(caught.id, 0, 0, _CONTINUE)

    def give(self, caught: Caught, descriptor: int, close_on_exec: bool) -> None:
        """Answer with a descriptor: a copy of ours. Any thread."""
        flags = _O_CLOEXEC if close_on_exec else 0
        try:
            fcntl.ioctl(self._descriptor, _ADD_DESCRIPTOR, _ADDFD.pack(caught.id, _ADDFD_SEND, descriptor, 0, flags))
        except OSError as error:
            if error.errno == ENOENT:
                return  # its caller has died
            fcntl.ioctl(self._descriptor, _SEND, bytearray(_ANSWER.pack(caught.id, 0, -(error.errno or EINVAL), 0)))

    def waits(self, caught: Caught) -> bool:
        """Whether its caller still waits for an answer."""
        try:
            fcntl.ioctl(self._descriptor, _ID_VALID, struct.pack("=Q", caught.id))
        except OSError:
            return False
        return True

    def _send(self, number: int, value: int, error: int, flags: int) -> None:
        _ANSWER.pack_into(self._answer, 0, number, value, error, flags)
        try:
            fcntl.ioctl(self._descriptor, _SEND, self._answer)
        except OSError as failed:
            if failed.errno != ENOENT:  # its caller has died, or a signal took the call back
                raise
