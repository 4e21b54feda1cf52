"""Benches without a kernel, for tests of the processes around them. Here, so that a spawned process can import it."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

from kobox.sweep.records import Item, ModuleResult


class FakeSetup(NamedTuple):
    """Stands for ``pool.Setup``."""

    image: str = ""

    def bench(self) -> FakeBench:
        return FakeBench()


class FakeBench:
    """Names decide what happens: ``die`` ends the process, ``wrong`` is an error of kobox, ``sleep`` never ends."""

    def __init__(self) -> None:
        self.seen = 0

    def sweep(self, item: Item) -> ModuleResult:
        self.seen += 1
        if item.name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item.name == "sleep":
            time.sleep(3600)
        error = "wrong" if item.name == "wrong" else ""
        return ModuleResult(item.name, item.path, load=0, users=self.seen, error=error)

    def close(self) -> None:
        self.seen = -1000
