"""The loop's end of its worker process: start it, give it jobs, hear what it says, end it."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import Pipe
from typing import Any

from kobox.watch.records import Cancel, Job, Setup


class Worker:
    """A process with booted kernels. It ends with this object, and with this process however that ends: it notices that
    nobody holds the other end of its connection."""

    def __init__(self, setup: Setup) -> None:
        ours, theirs = Pipe()
        line = [sys.executable, "-m", "kobox.watch.worker", str(theirs.fileno())]
        self._process = subprocess.Popen(line, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._connection = ours
        self._connection.send(setup)

    def fileno(self) -> int:
        """Readable when there is something to receive, or when the process has ended."""
        return self._connection.fileno()

    def submit(self, job: Job) -> None:
        self._connection.send(job)

    def cancel(self) -> None:
        """Ask for the present job's end; ``Finished`` follows all the same."""
        self._connection.send(Cancel())

    def receive(self) -> Any:
        """The next record; EOFError when the process has ended."""
        return self._connection.recv()

    @property
    def has_more(self) -> bool:
        return self._connection.poll()

    def close(self) -> int:
        """End the process; its exit code."""
        self._connection.close()
        try:
            return self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
