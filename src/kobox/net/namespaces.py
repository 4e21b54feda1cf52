"""Network namespaces of a guest, kept as ``ip netns`` keeps them: each is mounted at ``/run/netns/NAME``.

All of it is the guest's: a reset takes it back, a saved session has it. A call is made in a namespace by one task that
enters it, makes the call and goes home again; what the call opened stays in the namespace.
"""

from __future__ import annotations

from collections.abc import Generator
from errno import EEXIST, ENOENT
from typing import NamedTuple

from kobox.errors import Errno, UsageError
from kobox.kernel.files import Files
from kobox.kernel.guest import errno_of
from kobox.kernel.syscalls import AT_FDCWD, O_CREAT, O_RDONLY, Syscalls

FOLDER = "/run/netns"
_OWN = "/proc/self/ns/net"
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
_MASK = (1 << 64) - 1

_Calls = Generator[tuple[str, *tuple[int, ...]], int, int]


class Namespace(NamedTuple):
    """One namespace by name."""

    syscalls: Syscalls
    name: str

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.name}"

    @property
    def exists(self) -> bool:
        return self.name in names(Files(self.syscalls))

    def open(self) -> int:
        """A descriptor of the namespace itself, to be closed by the caller; ``Errno(ENOENT)``."""
        return Files(self.syscalls).open(self.path)

    def make(self) -> None:
        """``ip netns add``: a new one, mounted under its name."""
        files = Files(self.syscalls)
        for folder in ("/run", FOLDER):
            try:
                files.mkdir(folder)
            except Errno as error:
                if error.number != EEXIST:
                    raise
        files.close(files.open(self.path, O_RDONLY | O_CREAT, 0))
        window = self.syscalls.window
        window.clear()
        own, path, nothing = window.text(_OWN), window.text(self.path), window.text("")
        number = self._run(own, [("unshare", _CLONE_NEWNET), ("mount", own, path, nothing, _MS_BIND, 0)])
        if number < 0:
            files.unlink(self.path)
            raise Errno(-number, f"make the network namespace {self.name}")

    def remove(self) -> None:
        """``ip netns delete``; the kernel keeps it as long as somebody uses it."""
        files = Files(self.syscalls)
        files.umount(self.path, _MNT_DETACH)
        files.unlink(self.path)

    def checked(self, what: str, name: str, *arguments: int) -> int:
        """One system call in the namespace. Buffers that it reads must lie in the window already."""
        own = self.syscalls.window.text(_OWN)
        there = self.open_at(self.syscalls.window.text(self.path))
        result = self._run(own, [("setns", there, _CLONE_NEWNET), (name, *arguments)])
        self.syscalls.checked("close", "close", there)
        if errno_of(result & _MASK):
            raise Errno(-result, f"{what} in the network namespace {self.name}")
        return result

    def open_at(self, path: int) -> int:
        return self.syscalls.checked(f"the network namespace {self.name}", "openat", AT_FDCWD, path, O_RDONLY, 0)

    def _run(self, own: int, calls: list[tuple[str, *tuple[int, ...]]]) -> int:
        """Calls of one task until one fails, then back to the namespace where it was; the last one's result."""

        def steps() -> _Calls:
            home = yield ("openat", AT_FDCWD, own, O_RDONLY, 0)
            result = home
            if home >= 0:
                for call in calls:
                    result = yield call
                    if errno_of(result & _MASK):
                        break
                yield ("setns", home, _CLONE_NEWNET)
                yield ("close", home)
            return result

        return self.syscalls.in_one_task(steps())


def names(files: Files) -> list[str]:
    """The names of all namespaces, sorted."""
    try:
        return sorted(entry.name for entry in files.list(FOLDER) if entry.name not in (".", ".."))
    except Errno as error:
        if error.number != ENOENT:
            raise
        return []


def check_name(name: str) -> None:
    """``UsageError`` for what cannot be a file's name."""
    if not name or "/" in name or name in (".", ".."):
        raise UsageError(f"{name!r} is no name of a network namespace")
