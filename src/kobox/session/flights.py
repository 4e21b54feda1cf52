"""Requests of ``calls`` on their way through the kernel: each goes on until it sleeps, and ends later or now.

All of it runs in the kernel's thread but ``make``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINTR, ENOSYS
from typing import TYPE_CHECKING, Any

from kobox.errors import Errno, KoboxError, NotModelled, UsageError
from kobox.kernel.guest import signed64
from kobox.ko import parse_module
from kobox.session.faults import as_data

if TYPE_CHECKING:
    from kobox.kernel.subsystem import Operation
    from kobox.kernel.tasks import Job
    from kobox.session.calls import Channel

PATIENCE_NS = 100_000_000
"""Virtual time that a call may take before it counts as one that waits."""
_OPENS = frozenset({"openat", "socket", "accept4", "dup", "epoll_create1", "eventfd2", "timerfd_create"})
"""System calls whose result is a descriptor."""


class Flight(ABC):
    """One request. ``ready``: it could go on."""

    def __init__(self, channel: Channel, head: dict[str, Any], blob: bytes) -> None:
        self.channel, self.head, self.blob = channel, head, blob
        self.ended = self.delivered = False
        self.answer: dict[str, Any] = {}
        self.returned = b""
        self.kernel = channel.session.image_kernel("system calls")

    @property
    @abstractmethod
    def ready(self) -> bool: ...

    @abstractmethod
    def go_on(self, patience_ns: int) -> None:
        """Until it ends or waits."""

    @abstractmethod
    def interrupt(self) -> None:
        """Make it end, as a signal would."""

    def deliver(self) -> None:
        """Tell its client."""
        if not self.delivered:
            self.delivered = True
            self.channel.send(int(self.head["id"]), self.answer, self.returned)

    def fail(self, error: BaseException) -> None:
        """It ended by an error of kobox's own, or of a kernel that is dead."""
        known = error if isinstance(error, KoboxError) else KoboxError(f"{type(error).__name__}: {error}")
        self.answer = {"error": as_data(known)}
        self.ended = True
        self.deliver()


class SystemCalls(Flight):
    """``calls``, one after the other."""

    def __init__(self, channel: Channel, head: dict[str, Any], blob: bytes) -> None:
        super().__init__(channel, head, blob)
        self._results: list[int] = []
        self._buffers: list[tuple[int, int, bool, int]] = []
        """(address, size, cut to the result, index of the call)."""
        self._job: Job | None = None
        self._failed = False
        self._used = 0

    @property
    def ready(self) -> bool:
        return self._job is None or self._job.done or self.kernel.guest.tasks.is_dead(self._job.task)

    def go_on(self, patience_ns: int) -> None:
        tasks = self.kernel.guest.tasks
        while self._job is not None or self._next():
            assert self._job is not None
            tasks.run_until_blocked(self._job, patience_ns)
            if not self._settle():
                return
        self._finish()

    def interrupt(self) -> None:
        tasks = self.kernel.guest.tasks
        if self._job is not None:
            tasks.interrupt()
            try:
                tasks.finish(self._job)
            except Errno:  # left behind, and with it its buffers
                self._results.append(-EINTR)
                self._buffers.clear()
            else:
                self._settle()
        self._failed = True
        self.go_on(PATIENCE_NS)

    def _settle(self) -> bool:
        """The present call's result, if it has one."""
        job = self._job
        assert job is not None
        if job.died:
            self.answer["died"] = self.kernel.guest.view("task_struct", job.task)["exit_code"] & 0x7F
            self._results.append(-EINTR)
            self._failed = True
        elif job.done:
            self._take(signed64(job.result))
        else:
            return False
        self._job = None
        return True

    def _take(self, result: int) -> None:
        name, *arguments = self.head["calls"][len(self._results)]
        self._results.append(result)
        self._failed = self._failed or -4096 < result < 0
        if result >= 0 and name in _OPENS:
            self.channel.descriptors.add(result)
        elif name == "close":
            self.channel.descriptors.discard(self._number(arguments[0]))

    def _number(self, argument: Any) -> int:
        return self._results[argument["of"]] if isinstance(argument, dict) else int(argument)

    def _next(self) -> bool:
        """Begin the next call; False when there is none."""
        calls = self.head["calls"]
        while len(self._results) < len(calls):
            name, *arguments = calls[len(self._results)]
            if self._failed and not (name == "close" and self._number(arguments[0]) >= 0):
                self._results.append(-EINTR)
                continue
            numbers = [self._argument(one) for one in arguments]
            syscalls, comm = self.kernel.syscalls, self.head.get("comm")
            try:
                self._job = syscalls.start(name, *numbers)
            except NotModelled:  # this kernel was built without it
                self._take(-ENOSYS)
                continue
            if comm:
                self._job.comm = comm
            return True
        return False

    def _argument(self, given: Any) -> int:
        if not isinstance(given, dict):
            return int(given)
        if "of" in given:
            return self._results[given["of"]]
        ((kind, size),) = given.items()
        if kind not in ("in", "out", "got", "both") or not isinstance(size, int) or size < 0:
            raise UsageError(f"no argument of a system call: {given!r}")
        address = self.kernel.syscalls.window.arena.take(size)
        self._buffers.append((address, size if kind != "in" else -1, kind == "got", len(self._results)))
        if kind in ("in", "both"):
            self.kernel.guest.write(address, self.blob[self._used : self._used + size])
            self._used += size
        elif kind == "out":
            self.kernel.guest.write(address, bytes(size))
        return address

    def _finish(self) -> None:
        parts = []
        arena = self.kernel.syscalls.window.arena
        for address, size, cut, index in self._buffers:
            if size >= 0:
                count = max(0, min(size, self._results[index])) if cut else size
                parts.append(self.kernel.guest.read(address, count) if count else b"")
            arena.give(address)
        self._buffers.clear()
        self.answer |= {"results": self._results, "sizes": [len(part) for part in parts]}
        self.returned = b"".join(parts)
        self.ended = True


class ModuleCall(Flight):
    """``load``, ``init`` and ``delete``."""

    def __init__(self, channel: Channel, head: dict[str, Any], blob: bytes) -> None:
        super().__init__(channel, head, blob)
        self._operation: Operation | None = None

    @property
    def ready(self) -> bool:
        operation = self._operation
        job = operation.job if operation is not None else None
        return job is None or job.done or (bool(job.task) and self.kernel.guest.tasks.is_dead(job.task))

    def go_on(self, patience_ns: int) -> None:
        with self._named():
            if self._operation is None:
                self._operation = self._begin()
            self.kernel.modules_room.run_until_blocked(self._operation, patience_ns)
        if self._operation.done or self._operation.died:
            self._finish(self._operation)

    def interrupt(self) -> None:
        assert self._operation is not None
        self.kernel.guest.tasks.interrupt()
        try:
            self.kernel.modules_room.finish(self._operation)
        except Errno as left:  # what sleeps where nothing can wake it
            self.answer["result"] = -left.number
            self.ended = True
        else:
            self._finish(self._operation)

    def _begin(self) -> Operation:
        room, session, head = self.kernel.modules_room, self.channel.session, self.head
        do, text = head["do"], head.get("parameters")
        parameters = None if text is None else text.encode("utf-8", "surrogateescape")
        if do == "delete":
            name = head["name"]
            return room.start_delete(None if name is None else name.encode("utf-8", "surrogateescape"), head["flags"])
        if do == "init":
            operation = room.start_init(self.blob, head["length"], parameters)
        else:
            operation = room.start_file(head.get("unreadable") or self.blob, parameters, head["flags"])
        session.watcher.loading(operation, _name_in(self.blob))
        return operation

    def _finish(self, operation: Operation) -> None:
        session, do = self.channel.session, self.head["do"]
        result = operation.result if operation.done else -EINTR
        if operation.died:
            self.answer["died"] = operation.exit_code & 0x7F
        if do == "delete":
            session.watcher.unloaded(self.head["name"] or "", result)
        else:
            session.watcher.loaded(result, operation.reason)
            self.kernel.last_load = operation
        self.answer |= {"result": result, "reason": operation.reason}
        self.ended = True

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What the guest's tasks are called meanwhile."""
        tasks, loader, comm = self.kernel.guest.tasks, self.kernel.modules_room.loader, self.head.get("comm")
        before = tasks.comm, loader.comm
        if comm:
            tasks.comm = loader.comm = comm
        try:
            yield
        finally:
            tasks.comm, loader.comm = before


def make(do: str, channel: Channel, head: dict[str, Any], blob: bytes) -> Flight:
    """The flight of one request."""
    kind = _KINDS.get(do)
    if kind is None:
        raise UsageError(f"no request {do!r}", f"there are {', '.join(_KINDS)}")
    return kind(channel, head, blob)


_KINDS: dict[str, type[Flight]] = {
    "calls": SystemCalls, "load": ModuleCall, "init": ModuleCall, "delete": ModuleCall,
}  # fmt: skip


def _name_in(data: bytes) -> str:
    """What the file calls the module, for events; the kernel says what it thinks of a broken one."""
    try:
        return parse_module(data, "module").name
    except KoboxError:
        return ""
