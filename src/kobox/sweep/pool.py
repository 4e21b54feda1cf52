"""Processes that sweep, each with a kernel of its own. One that dies takes only its present module with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from kobox.box import boot
from kobox.sweep.life import Bench, Shared
from kobox.sweep.records import Item, ModuleResult

PATIENCE = 600.0
"""Seconds of real time after which a module that is still not done is given up, with its process."""
_START_SECONDS = 120.0
"""How much longer it may take where a process must start and a kernel boot first."""


class Setup(NamedTuple):
    """What a process needs to know to begin: the kernel's name, the root that answers its requests for modules (None:
    its own modules do), the folder of modules, beginnings worth keeping."""

    image: str
    root: str | None
    append: str
    tree: str
    shared: Shared

    def bench(self) -> Bench:
        """A booted kernel, ready to sweep. The memory checker has no part in it: it would only cost time."""
        kernel = boot(self.image, root=self.root, append=self.append, check_memory=False)
        kernel.mark_pristine()
        return Bench(kernel, Path(self.tree), self.shared)


def sweep_here(setup: Setup, pieces: Sequence[Sequence[Item]]) -> Iterator[ModuleResult]:
    """The work in this process, one after another."""
    bench = setup.bench()
    try:
        for piece in pieces:
            yield from map(bench.sweep, piece)
    finally:
        bench.close()


def sweep_in_processes(setup: Setup, pieces: Sequence[Sequence[Item]], jobs: int) -> Iterator[ModuleResult]:
    """The work in ``jobs`` processes; results as they come."""
    waiting = deque(deque(piece) for piece in pieces)
    crew = [_Worker(setup) for _ in range(min(jobs, len(waiting)))]
    try:
        busy = [worker for worker in crew if worker.give(waiting)]
        while busy:
            ready = wait([worker.line for worker in busy], timeout=1.0)
            for worker in list(busy):
                if worker.line in ready:
                    yield from worker.receive(waiting)
                elif time.monotonic() - worker.since > PATIENCE:
                    yield from worker.give_up(waiting)
                if not worker.piece and not worker.give(waiting):
                    busy.remove(worker)
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """One process, and the piece of work that it has. ``since``: when it began with its present module."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.piece: deque[Item] = deque()
        self.since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, far = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(self._setup, far), daemon=True)
        self._process.start()
        far.close()

    def give(self, waiting: deque[deque[Item]]) -> bool:
        """Hand it the next piece; False where there is none."""
        if not waiting:
            return False
        self.piece = waiting.popleft()
        self.since = time.monotonic() + _START_SECONDS
        with contextlib.suppress(OSError):  # it is gone already: then ``receive`` finds its end of the line closed
            self.line.send(list(self.piece))
        return True

    def receive(self, waiting: deque[deque[Item]]) -> Iterator[ModuleResult]:
        """Its next result, or the word that it begins with a module; where the process has died, what is to be said of
        the module that it had."""
        try:
            result = self.line.recv()
        except (EOFError, OSError):
            self._process.join()
            yield from self._replace(waiting, f"the process that swept it ended: {_ending(self._process.exitcode)}")
            return
        self.since = time.monotonic()
        if result is not None:
            self.piece.popleft()
            yield result

    def give_up(self, waiting: deque[deque[Item]]) -> Iterator[ModuleResult]:
        """End a process that has had its module for too long."""
        self._process.kill()
        self._process.join()
        yield from self._replace(waiting, f"not done within {PATIENCE:.0f} s, given up")

    def _replace(self, waiting: deque[deque[Item]], why: str) -> Iterator[ModuleResult]:
        item = self.piece.popleft()
        if self.piece:
            waiting.appendleft(self.piece)
            self.piece = deque()
        self.line.close()
        self._start()
        yield ModuleResult(item.name, item.path, item.needs, error=why)

    def end(self) -> None:
        self.line.close()
        self._process.kill()
        self._process.join()


def _serve(setup: Setup, line: Connection) -> None:
    """What a process does until nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal reaches all: who asked for the sweep ends it
    bench: Bench | None = None
    while True:
        try:
            piece: list[Item] = line.recv()
        except EOFError:
            return
        for item in piece:
            bench = bench or setup.bench()
            try:
                line.send(None)
                result = bench.sweep(item)
                line.send(result)
            except OSError:
                return
            if result.error:
                bench.close()
                bench = None  # whatever went wrong, the next module gets a kernel that knows nothing of it


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"
