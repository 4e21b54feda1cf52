"""Records of the guest's files, apart from the code that asks the guest: a client in another process has them too."""

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
