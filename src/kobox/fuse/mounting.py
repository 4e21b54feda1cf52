"""Mounting and unmounting on the host: mount(2) where that is allowed, otherwise the setuid helper fusermount3.

Follows Documentation/filesystems/fuse.rst and libfuse's convention for its helper: the descriptor of ``/dev/fuse``
comes back over the socket that ``_FUSE_COMMFD`` names.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from errno import EACCES, EBUSY, ECONNABORTED, EINVAL, ENODEV, ENOENT, ENOTCONN, ENXIO, EPERM
from types import TracebackType
from typing import Self

from kobox.errors import KoboxError, UsageError

DEVICE = "/dev/fuse"
HELPER = "fusermount3"
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 1, 2, 4, 8, 1024
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_ROOT_MODE = 0o40000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """``source`` is what mount(8) shows as the device. ``permissions``: the host checks modes and owners itself.
    ``others``: users beside the one who mounts may enter."""

    source: str = "kobox"
    read_only: bool = False
    permissions: bool = True
    others: bool = False
    set_ids: bool = False
    devices: bool = False
    executes: bool = True
    access_times: bool = True


@dataclass(slots=True)
class Mounted:
    """A mounted folder. ``descriptor`` is the connection: while it is open, the tree is served; once closed, the host
    answers ENOTCONN until the folder is unmounted. A context manager: unmounted at the end, forcibly if need be."""

    descriptor: int
    folder: str
    by_helper: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(KoboxError):  # somebody else has unmounted it
            self.unmount(lazy=True)
        self.close()

    def unmount(self, lazy: bool = False) -> None:
        """See ``unmount``."""
        unmount(self.folder, lazy)

    def close(self) -> None:
        """Cut the connection: requests in flight fail."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def mount(folder: str, options: MountOptions | None = None) -> Mounted:
    """Mount a tree that nobody serves yet on ``folder``; programs that enter it wait for the session's first answer."""
    options = options or MountOptions()
    folder = os.path.realpath(folder)
    if not os.path.isdir(folder):
        raise UsageError(f"{folder}: no directory to mount on")
    if os.geteuid() == 0:
        refused = _mount_directly(folder, options)
        if isinstance(refused, Mounted):
            return refused
        if refused not in (EPERM, EACCES):
            raise _cannot(folder, os.strerror(refused), None)
    return _mount_by_helper(folder, options)


def unmount(folder: str, lazy: bool = False) -> None:
    """Unmount; ``lazy``: at once, although it is in use. ``KoboxError`` says why not."""
    folder = os.path.abspath(folder)
    number = 0
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(folder), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)) == 0:
            return
        number = ctypes.get_errno()
    if number in (0, EPERM):
        helper = _helper(f"{folder}: cannot be unmounted")
        words = [helper, "-u", *(["-z"] if lazy else []), "--", folder]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        number = EBUSY if "busy" in done.stderr.lower() else number
        if not number:
            raise KoboxError(_words_of(done.stderr) or f"{folder}: {HELPER} did not unmount it")
    if number == EBUSY:
        raise KoboxError(f"{folder} is in use", hint="leave it, or unmount lazily")
    if number in (EINVAL, ENOENT):
        raise KoboxError(f"{folder}: not mounted")
    raise KoboxError(f"{folder}: {os.strerror(number)}")


def is_dead(folder: str) -> bool:
    """Whether a tree is mounted there whose process has ended."""
    try:
        os.statvfs(folder)  # the host keeps no answer to this one
    except OSError as error:
        return error.errno in (ENOTCONN, ECONNABORTED)
    return False


def _mount_directly(folder: str, options: MountOptions) -> Mounted | int:
    """By mount(2); the errno where it is refused."""
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, ENXIO):
            raise _no_device(folder) from error
        return error.errno or EACCES
    flags = 0
    for on, flag in (
        (options.read_only, _MS_RDONLY), (not options.set_ids, _MS_NOSUID), (not options.devices, _MS_NODEV),
        (not options.executes, _MS_NOEXEC), (not options.access_times, _MS_NOATIME),
    ):  # fmt: skip
        flags |= flag if on else 0
    words = [f"fd={descriptor}", f"rootmode={_ROOT_MODE:o}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    words += _shared_words(options)
    source, data = os.fsencode(options.source), ",".join(words).encode()
    if _libc.mount(source, os.fsencode(folder), b"fuse.kobox", flags, data):
        number = ctypes.get_errno()
        os.close(descriptor)
        if number == ENODEV:
            raise _no_device(folder)
        return number
    return Mounted(descriptor, folder, by_helper=False)


def _mount_by_helper(folder: str, options: MountOptions) -> Mounted:
    helper = _helper(f"{folder}: cannot be mounted")
    if not os.path.exists(DEVICE):
        raise _no_device(folder)
    words = ["nosuid" if not options.set_ids else "suid", "nodev" if not options.devices else "dev", "subtype=kobox"]
    words += ["ro"] * options.read_only + ["noexec"] * (not options.executes) + ["noatime"] * (not options.access_times)
    words += [f"fsname={_escaped(options.source)}", *_shared_words(options)]
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, its:
        environment = os.environ | {"_FUSE_COMMFD": str(its.fileno())}
        process = subprocess.Popen(
            [helper, "-o", ",".join(words), "--", folder],
            env=environment, pass_fds=(its.fileno(),), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        its.close()  # so that a helper which dies is an end of file
        descriptor = _receive(ours)
        _, said = process.communicate()
    if descriptor is None or process.returncode:
        if descriptor is not None:
            os.close(descriptor)
        raise _cannot(folder, _words_of(said) or f"{HELPER} ended with status {process.returncode}", None)
    return Mounted(descriptor, folder, by_helper=True)


def _receive(connection: socket.socket) -> int | None:
    """The descriptor that comes with one byte; None at the end of file."""
    descriptors = array.array("i")
    data, control, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize))
    for level, kind, payload in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: descriptors.itemsize])
    if not data or not descriptors:
        return None
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def _shared_words(options: MountOptions) -> list[str]:
    return ["default_permissions"] * options.permissions + ["allow_other"] * options.others


def _escaped(source: str) -> str:
    return source.replace("\\", "\\\\").replace(",", "\\,")


def _helper(what: str) -> str:
    found = shutil.which(HELPER)
    if found is None:
        raise KoboxError(f"{what}: {HELPER} is missing, and only root mounts without it", hint="apt install fuse3")
    return found


def _no_device(folder: str) -> KoboxError:
    text = f"{folder}: cannot be mounted: this system has no usable {DEVICE}"
    return KoboxError(text, hint="'modprobe fuse' as root; in a container, give it the device (--device /dev/fuse)")


def _cannot(folder: str, why: str, hint: str | None) -> KoboxError:
    return KoboxError(f"{folder}: cannot be mounted: {why}", hint)


def _words_of(said: str) -> str:
    """What the helper said, on one line."""
    return "; ".join(line.removeprefix(f"{HELPER}: ") for line in said.splitlines() if line)
