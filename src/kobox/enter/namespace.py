"""Namespaces and mounts of the program's side, made by the child before it becomes the program.

Follows user_namespaces(7) and mount(2). Everything here acts on the calling process.
"""

from __future__ import annotations

import ctypes
import os
import stat
from errno import EACCES, EINVAL, ENOSPC, EPERM

from kobox.errors import KoboxError

_NEWNS, _NEWUSER = 0x20000, 0x1000_0000
_BIND, _REC, _PRIVATE, _NOSUID, _NODEV = 4096, 16384, 1 << 18, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def separate() -> None:
    """Enter a user and mount namespace of our own; ``give_numbers`` then makes us its root. ``KoboxError`` where the
    host does not let us."""
    if _libc.unshare(_NEWUSER | _NEWNS):
        raise _refused(ctypes.get_errno())


def give_numbers(pid: int) -> bool:
    """From outside: who is who in the namespace of ``pid``. Root keeps all numbers (True), anybody else becomes root
    and is alone."""
    if os.geteuid() == 0 and _write_maps(pid, "0 0 4294967295", "0 0 4294967295"):
        return True
    _write(f"/proc/{pid}/setgroups", "deny")
    if not _write_maps(pid, f"0 {os.geteuid()} 1", f"0 {os.getegid()} 1"):
        raise _refused(EPERM)
    return False


def detach() -> None:
    """Nothing that is mounted from now on is seen outside, nor the other way round."""
    _mount("none", "/", None, _REC | _PRIVATE, None)


def _write_maps(pid: int, users: str, groups: str) -> bool:
    try:
        _write(f"/proc/{pid}/uid_map", users)
        _write(f"/proc/{pid}/gid_map", groups)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _refused(number: int) -> KoboxError:
    hints = {
        ENOSPC: "the limit of /proc/sys/user/max_user_namespaces is reached",
        EPERM: "allow it: 'sysctl kernel.unprivileged_userns_clone=1', on Ubuntu "
        "'sysctl kernel.apparmor_restrict_unprivileged_userns=0'; of a container, see docs/enter.md",
        EINVAL: "this kernel was built without user namespaces",
    }
    hints[EACCES] = hints[EPERM]
    return KoboxError(f"this system lets nobody make a user namespace here: {os.strerror(number)}", hints.get(number))


def bind(source: str, target: str) -> None:
    """Show ``source`` with all that is mounted below it at ``target`` too."""
    _mount(source, target, None, _BIND | _REC, None)


def mount_memory(target: str) -> None:
    """An empty file system in memory."""
    _mount("kobox", target, "tmpfs", _NOSUID | _NODEV, "mode=755")


def mount_fuse(target: str) -> int:
    """A tree that somebody else will serve: the descriptor of its connection. ``OSError`` where that is not to be had.

    The device must be opened in the namespace in which it is mounted, hence here.
    """
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        _mount("kobox", target, "fuse.kobox", _NOSUID | _NODEV, f"fd={descriptor},rootmode=40000,user_id=0,group_id=0")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    words = (os.fsencode(source), os.fsencode(target), kind.encode() if kind else None)
    if _libc.mount(*words, flags, data.encode() if data else None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def make_folder(path: str) -> None:
    """A directory at ``path``, whether or not its parents let anything be made in them.

    Where they do not, the nearest that exists is covered by a copy in memory that shows all of its entries.
    """
    missing, parent = [], path
    while not os.path.isdir(parent):
        missing.append(os.path.basename(parent))
        parent = os.path.dirname(parent)
    if not missing:
        return
    try:
        os.makedirs(path)
    except OSError:
        cover(parent)
        os.makedirs(path)


def cover(folder: str) -> None:
    """Put a copy in memory over a directory: the same entries, and room for others."""
    before = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    mount_memory(folder)
    try:
        inside = f"/proc/self/fd/{before}"
        for entry in os.scandir(inside):
            _mirror(f"{inside}/{entry.name}", f"{folder}/{entry.name}")
    finally:
        os.close(before)


def _mirror(source: str, target: str) -> None:
    """A link again, anything else bound."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(target)
    else:
        with open(target, "w"):
            pass
    bind(source, target)
