"""Work split over processes by ``fork``: no pool, no pickling of code, results as ``marshal`` bytes.

For work that is short (tenths of a second) and on data that is in memory already, where a pool's start would cost
more than it gains. Chunks are taken from a common pipe, so that a process that gets the large files does not become
the last.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kobox.errors import KoboxError

T = TypeVar("T")
R = TypeVar("R")

_MOST_CHUNKS = 250


def processors() -> int:
    """How many processes are worth starting: the CPUs of this process; 1 where forking would be unsafe."""
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        return 1
    return len(os.sched_getaffinity(0))


def parallel_map(work: Callable[[T], R], items: Sequence[T], processes: int) -> list[R]:
    """``[work(item) for item in items]``; results must be what ``marshal`` can write, exactly (no subclasses).

    An exception in a child ends it and is raised here as ``KoboxError`` with its text.
    """
    processes = min(processes, len(items))
    if processes <= 1:
        return [work(item) for item in items]
    size = max(1, -(-len(items) // _MOST_CHUNKS))
    starts = range(0, len(items), size)
    tickets, give = os.pipe()
    os.write(give, bytes(range(len(starts))))
    os.close(give)

    def take() -> dict[int, list[R]]:
        done: dict[int, list[R]] = {}
        while ticket := os.read(tickets, 1):
            start = starts[ticket[0]]
            done[start] = [work(item) for item in items[start : start + size]]
        return done

    children = [Child(take) for _ in range(processes - 1)]
    try:
        done = take()
        for child in children:
            done.update(child.result())
    finally:
        os.close(tickets)
        for child in children:
            child.end()
    return [result for start in starts for result in done[start]]


class Child:
    """A forked process that computes one result. ``result`` waits for it; ``end`` is safe at any time."""

    __slots__ = ("_fd", "_pid")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._fd = os.memfd_create("kobox")
        self._pid = os.fork()
        if self._pid == 0:
            _run(work, self._fd)

    def result(self) -> Any:
        """What the child's work returned."""
        pid, self._pid = self._pid, 0
        _, status = os.waitpid(pid, 0)
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read()
        if status == 0:
            return marshal.loads(data)
        raise KoboxError(data.decode("utf-8", "replace") or f"a worker process ended with status {status:#x}")

    def end(self) -> None:
        """Wait for the process if nobody did, and give its file back."""
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _run(work: Callable[[], Any], fd: int) -> None:
    """The child's life: nothing of the parent's (buffers, exit handlers, handlers further up) may run in it."""
    status = 1
    try:
        try:
            data = marshal.dumps(work())
            status = 0
        except BaseException as error:  # noqa: BLE001  # a process border: told to the parent, which raises it
            data = f"{type(error).__name__}: {error}".encode()
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
    finally:
        os._exit(status)
