"""The module subsystem of a running kernel: drives loads and unloads, in the foreground or side by side.

A load is a generator of guest calls (``loader``); here each call becomes a job of a guest task. A load in the
background goes on whenever the machine runs, one step at a time.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from kobox.errors import Errno
from kobox.kernel.entry import Entry
from kobox.kernel.env import Interruptible, Result
from kobox.kernel.guest import Guest, signed64
from kobox.kernel.loader import Loader, Step
from kobox.kernel.tasks import Job, TaskDied
from kobox.kernel.unloader import Unloader


@dataclass(slots=True, eq=False)
class Operation:
    """A load or unload under way. ``result`` is the system call's once ``done``; ``died``: its task was killed."""

    steps: Result
    job: Job | None = None
    result: int = 0
    done: bool = False
    died: bool = False
    waits: bool = False
    """For another load: a signal would end it."""
    exit_code: int = 0
    """Of a task that died: the signal."""
    trace: list[Step] = field(default_factory=list)
    reason: str = ""
    """Why a load was refused, for people."""


class Subsystem:
    """``load`` and ``unload`` are the system calls; ``start`` and ``finish`` split them."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.loader = Loader(guest)
        self.unloader = Unloader(self.loader)
        self.entry = Entry(self.loader, self.unloader)

    def forget(self, said_once: frozenset[str]) -> None:
        """After a reset to a state in which the loader had said these lines."""
        self.loader.forget(said_once)

    def load(self, data: bytes, arguments: bytes = b"", flags: int = 0) -> Operation:
        """Load now; the operation is done or dead."""
        operation = self.start_load(data, arguments, flags)
        self.finish(operation)
        return operation

    def unload(self, name: str, flags: int = 0) -> Operation:
        operation = Operation(self.unloader.unload(name, flags))
        self.finish(operation)
        return operation

    def start_load(self, data: bytes, arguments: bytes = b"", flags: int = 0) -> Operation:
        trace: list[Step] = []
        operation = Operation(iter(()), trace=trace)  # type: ignore[arg-type]  # replaced at once

        def note(why: str) -> None:
            operation.reason = why

        operation.steps = self.loader.load(data, arguments, flags, trace, note)
        return operation

    def start_finit(self, descriptor: int, arguments: bytes | None, flags: int) -> Operation:
        """``finit_module`` as a process calls it: an open descriptor, any flags."""
        trace: list[Step] = []
        return Operation(self.entry.finit_module(descriptor, arguments, flags, trace), trace=trace)

    def start_file(self, data: bytes | int, arguments: bytes | None, flags: int) -> Operation:
        """``finit_module`` of a process outside: the file's bytes, or the errno for which it cannot be read."""
        trace: list[Step] = []
        return Operation(self.entry.load_file(data, arguments, flags, trace), trace=trace)

    def start_init(self, data: bytes | None, length: int, arguments: bytes | None) -> Operation:
        """``init_module`` as a process calls it; ``None`` is a NULL pointer."""
        trace: list[Step] = []
        return Operation(self.entry.init_module(data, length, arguments, trace), trace=trace)

    def start_delete(self, name: bytes | None, flags: int) -> Operation:
        """``delete_module`` as a process calls it."""
        return Operation(self.entry.delete_module(name, flags))

    def interrupt(self, operation: Operation, number: int) -> None:
        """A signal for a load that ``waits`` for another one: it ends with this errno. Its present call must not run
        yet."""
        jobs = self.guest.tasks.jobs
        if operation.job is not None:
            jobs.remove(operation.job)
        try:
            operation.job = self.guest.tasks.start(*operation.steps.throw(Errno(number, "interrupted")))
        except StopIteration as ended:
            operation.result, operation.done = ended.value, True

    def finish(self, operation: Operation, virtual_ns: int | None = None) -> None:
        """Go on until it is done or its task is dead; ``JobTimeout`` as ``Tasks.finish``."""
        tasks = self.guest.tasks
        while not operation.done and not operation.died:
            if tasks.interrupted and operation.waits and operation.job in tasks.jobs:
                self.interrupt(operation, errno.EINTR)
            else:
                self.step(operation, virtual_ns)

    def step(self, operation: Operation, virtual_ns: int | None = None) -> None:
        """Go on for one guest call."""
        if operation.job is None and not self._advance(operation, None):
            return
        assert operation.job is not None
        self.guest.tasks.finish(operation.job, virtual_ns)
        self._settle(operation)

    def run_until_blocked(self, operation: Operation, patience_ns: int = 0) -> None:
        """Go on until it waits for time or for others, or has ended. ``patience_ns``: see ``Tasks``."""
        tasks = self.guest.tasks
        while not operation.done and not operation.died:
            if operation.job is None and not self._advance(operation, None):
                return
            assert operation.job is not None
            tasks.run_until_blocked(operation.job, patience_ns)
            if not operation.job.done and not operation.job.died:
                return
            self._settle(operation)

    def _settle(self, operation: Operation) -> None:
        """The present call has ended: take its result to the next."""
        job = operation.job
        assert job is not None
        if job.died:
            operation.died = True
            operation.exit_code = self.guest.view("task_struct", job.task)["exit_code"]
            return
        operation.job = None
        self._advance(operation, job.result)

    def _advance(self, operation: Operation, result: int | None) -> bool:
        """Send the generator the last result and queue the next call; False when it has ended."""
        try:
            call = next(operation.steps) if result is None else operation.steps.send(result)
        except StopIteration as ended:
            operation.result, operation.done = ended.value, True
            return False
        operation.job = self.guest.tasks.start(*call)
        operation.waits = isinstance(call, Interruptible)
        return True


__all__ = ["Operation", "Subsystem", "TaskDied", "signed64"]
