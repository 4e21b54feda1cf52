"""Taking rights away from this very process before it runs the code of strangers: what emulation should keep in, the
host keeps in once more.

Each layer that the host has is used: no new privileges, no capabilities, a seccomp filter, landlock, limits. What it
lacks is told, not faked. There is no way back. Follows prctl(2), capset(2), seccomp(2), landlock(7).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Final, NamedTuple

_SET_NO_NEW_PRIVS, _CAPBSET_DROP = 38, 24
_CAPSET, _SECCOMP, _CREATE_RULESET, _RESTRICT_SELF = 126, 317, 444, 446
_FILTER, _ALL_THREADS = 1, 1
_CAPABILITY_VERSION_3, _LAST_CAPABILITY = 0x2008_0522, 63

_AUDIT_ARCH_X86_64: Final = 0xC000_003E
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO_EPERM, _KILL_PROCESS = 0x7FFF_0000, 0x0005_0001, 0x8000_0000
_X32: Final = 0x4000_0000

DENIED: Final = {
    "execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "pidfd_getfd": 438, "socket": 41, "socketpair": 53, "connect": 42, "bind": 49, "io_uring_setup": 425,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
    "open_by_handle_at": 304, "move_mount": 429, "fsopen": 430, "init_module": 175, "finit_module": 313,
    "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "bpf": 321, "perf_event_open": 298,
    "userfaultfd": 323, "iopl": 172, "ioperm": 173, "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163,
    "settimeofday": 164, "clock_settime": 227, "add_key": 248, "request_key": 249, "keyctl": 250,
}  # fmt: skip
"""System calls of x86-64 that emulating a kernel never needs; they answer EPERM."""

_LANDLOCK_WRITES: Final = 0x1FF3
"""Every access to files of landlock's first version but reading files and directories."""
_MOST_MEMORY: Final = 16 << 30


class Confined(NamedTuple):
    """Layers that hold now, and those that this host does not offer, each with the reason."""

    layers: tuple[str, ...]
    lacking: tuple[str, ...]


def confine() -> Confined:
    """Give up, for good: capabilities, programs, the network, writing to files that are not open yet, core dumps."""
    layers: list[str] = []
    lacking: list[str] = []
    for name, apply in (
        ("limits", _limit),
        ("no new privileges", _no_new_privileges),
        ("no capabilities", _no_capabilities),
        ("landlock: no writing, no programs", _landlock),
        ("seccomp", _seccomp),
    ):
        try:
            apply()
        except OSError as refused:
            lacking.append(f"{name} ({refused.strerror})")
        else:
            layers.append(name)
    return Confined(tuple(layers), tuple(lacking))


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _MOST_MEMORY if hard == resource.RLIM_INFINITY else min(hard, _MOST_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _no_new_privileges() -> None:
    _checked(_libc().prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _no_capabilities() -> None:
    """Of this thread. The bounding set goes first, while that is still allowed; who has none has nothing to drop."""
    libc = _libc()
    for number in range(_LAST_CAPABILITY + 1):
        libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("<II", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(bytes(24))
    _checked(libc.syscall(_CAPSET, header, data))


def _landlock() -> None:
    """Of this thread and those that it starts."""
    libc = _libc()
    attributes = ctypes.create_string_buffer(struct.pack("<Q", _LANDLOCK_WRITES))
    ruleset = _checked(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(8), 0))
    try:
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _seccomp() -> None:
    """Of all threads."""
    program = filter_program(tuple(DENIED.values()))
    code = ctypes.create_string_buffer(program)
    pointer = struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(code))
    _checked(_libc().syscall(_SECCOMP, _FILTER, _ALL_THREADS, ctypes.create_string_buffer(pointer)))


def filter_program(denied: tuple[int, ...]) -> bytes:
    """The filter as classic BPF: another architecture ends the process, x32 and ``denied`` answer EPERM."""

    def instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
        return struct.pack("<HBBI", code, if_true, if_false, value)

    body = [
        instruction(_LOAD, 0, 0, 4),
        instruction(_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        instruction(_RETURN, 0, 0, _KILL_PROCESS),
        instruction(_LOAD, 0, 0, 0),
        instruction(_AT_LEAST, len(denied) + 1, 0, _X32),
    ]
    body += [instruction(_EQUAL, len(denied) - at, 0, number) for at, number in enumerate(denied)]
    body += [instruction(_RETURN, 0, 0, _ALLOW), instruction(_RETURN, 0, 0, _ERRNO_EPERM)]
    return b"".join(body)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
