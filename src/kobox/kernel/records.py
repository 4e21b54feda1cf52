"""Records of what the guest has and did, apart from the code that asks it: a client in another process has them too."""

from __future__ import annotations

from typing import NamedTuple


class DirEntry(NamedTuple):
    """One name in a directory; ``kind``: file, dir, link, char, block, fifo, socket or unknown."""

    name: str
    kind: str


class Status(NamedTuple):
    """``mode`` with the type bits, ``size`` in bytes."""

    mode: int
    size: int
    uid: int
    gid: int


class Asker(NamedTuple):
    """Who asked for a module: the task's name and number, and the kernel function (or ``[module]``) it did it in."""

    comm: str
    pid: int
    function: str


class Autoload(NamedTuple):
    """One request of the kernel for a module. ``modules`` are those that were inserted for it, in order.

    ``status`` is modprobe's exit status, None while it runs or when its task was killed; ``said`` what it would print,
    and why nothing was loaded.
    """

    name: str
    asked_by: str
    function: str
    modules: tuple[str, ...]
    status: int | None
    said: tuple[str, ...]

    def as_data(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "name": self.name, "asked_by": self.asked_by, "function": self.function, "modules": list(self.modules),
            "status": self.status, "said": list(self.said),
        }  # fmt: skip
