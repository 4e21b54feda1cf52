"""What a program sees in place of its kernel's files: which names are the host's own, and which are made up.

The tree's root is the root directory of the kobox kernel. A program's processes are the host's, so ``/proc`` leads back
there for them; a terminal or ``/dev/null`` is the host's, too.
"""

from __future__ import annotations

from typing import NamedTuple

HOST_PROC = b".host"
"""Where in ``/proc`` the host's own is mounted."""

LINKS = {
    b"/proc/self": b".host/self",
    b"/proc/thread-self": b".host/thread-self",
    b"/proc/mounts": b"self/mounts",
    b"/dev/fd": b"/proc/self/fd",
    b"/dev/stdin": b"/proc/self/fd/0",
    b"/dev/stdout": b"/proc/self/fd/1",
    b"/dev/stderr": b"/proc/self/fd/2",
}
FOLDERS = frozenset({b"/proc/.host", b"/dev/pts", b"/dev/shm", b"/dev/mqueue"})
HOST_DEVICES = frozenset(
    {b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx", b"console", b"fuse", b"pts", b"shm", b"mqueue"}
)
"""Names in ``/dev`` that are bound from the host where it has them."""
FOLLOWED = frozenset({b"/proc/net"})
"""Links of the kernel's own that lead through its ``/proc/self``: shown as what they lead to."""

STAY = frozenset(
    {
        b"/", b"/proc", b"/proc/sys", b"/proc/sys/kernel", b"/proc/self", b"/proc/mounts", b"/proc/thread-self",
        b"/proc/.host", b"/sys", b"/sys/module", b"/sys/kernel", b"/sys/kernel/debug", b"/sys/kernel/tracing",
        b"/sys/bus", b"/sys/class", b"/sys/devices", b"/sys/fs", b"/sys/block", b"/sys/firmware", b"/dev",
        b"/dev/pts", b"/dev/shm", b"/dev/mqueue", b"/dev/fd", b"/dev/stdin", b"/dev/stdout", b"/dev/stderr",
    }
)  # fmt: skip
"""Names that never go away: the host need not ask for them again."""

DEVICES = b"/.devices"
"""A folder of the tree with a plain file for each device, by which it is opened: the host opens no device of ours."""


class Twin(NamedTuple):
    """The node of such a file. ``path``: the device's own."""

    path: bytes


def twin_name(path: bytes) -> bytes:
    return path.hex().encode()


def twin_of(name: bytes) -> Twin | None:
    try:
        return Twin(bytes.fromhex(name.decode("ascii")))
    except ValueError:
        return None


def join(folder: bytes, name: bytes) -> bytes:
    return folder + name if folder == b"/" else folder + b"/" + name


def is_host_device(path: bytes) -> bool:
    """Whether a path below ``/dev`` is the host's."""
    name = path[len(b"/dev/") :]
    return name.split(b"/", 1)[0] in HOST_DEVICES or path in LINKS or name.startswith(b"fd/")
