"""The thread that runs the kernel: one request after the other, each of which can be interrupted.

A request is a function of the kernel. Whoever waits for it may go away, or ask for an interruption: one that has not
begun is dropped, one that runs is told by ``Kernel.interrupt`` until it ends.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from errno import EINTR
from typing import Any

from kobox.errors import Errno

_REPEAT_SECONDS = 0.1
"""How often a kernel at work is told again: the call that was to end may have ended by itself just then."""


class Request:
    """One piece of work. ``interrupted`` is looked at by work of many steps, between two of them."""

    def __init__(self, work: Callable[[Request], Any], name: str, what: str, future: asyncio.Future[Any]) -> None:
        self.work, self.name, self.what, self.future = work, name, what, future
        self.interrupted = False

    def check(self) -> None:
        """Raise if somebody wants this request to end."""
        if self.interrupted:
            raise Errno(EINTR, f"{self.what} was interrupted")


class Worker:
    """Runs requests in the order in which they came. ``interrupt`` is the kernel's; ``after`` is called in the thread
    behind every request."""

    def __init__(self, interrupt: Callable[[bool], None], after: Callable[[], None]) -> None:
        self._interrupt_kernel, self._after = interrupt, after
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._waiting: set[Request] = set()
        self.running: Request | None = None
        self.done = 0
        """How many requests have been served."""
        self._thread = threading.Thread(target=self._run, name="kobox-kernel", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Request], Any], name: str = "", what: str = "the call") -> Any:
        """The result of ``work(request)`` in the kernel's thread; a cancelled caller takes its request back."""
        loop = asyncio.get_running_loop()
        request = Request(work, name, what, loop.create_future())
        self._waiting.add(request)
        self._queue.put(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._end(request)
            raise

    def interrupt(self, name: str = "") -> bool:
        """End the request that runs, or the one with this name whether it runs or waits; whether there was one."""
        found = [one for one in self._waiting if one.name == name] if name else [self.running]
        ended = [one for one in found if one is not None]
        for request in ended:
            self._end(request)
        return bool(ended)

    async def stop(self) -> None:
        """No request is begun any more; the one that runs is ended."""
        for request in list(self._waiting):
            self._end(request)
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def length(self) -> int:
        """How many requests wait or run."""
        return len(self._waiting)

    def _end(self, request: Request) -> None:
        request.interrupted = True
        if self.running is request:
            self._interrupt_kernel(True)
            asyncio.get_running_loop().call_later(_REPEAT_SECONDS, self._again, request)

    def _again(self, request: Request) -> None:
        if self.running is request:
            self._end(request)

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            self.running = request
            result, error = None, None
            try:
                self._interrupt_kernel(False)
                request.check()
                result = request.work(request)
            except BaseException as raised:  # noqa: BLE001  # the border between two threads: raised again in the other
                error = raised
            try:
                self._after()
            except BaseException as raised:  # noqa: BLE001  # as above; the thread must live on
                error = error or raised
            self.running = None
            self.done += 1
            request.future.get_loop().call_soon_threadsafe(self._finish, request, result, error)

    def _finish(self, request: Request, result: Any, error: BaseException | None) -> None:
        self._waiting.discard(request)
        if request.future.done():
            return  # its caller has gone
        if error is not None:
            request.future.set_exception(error)
        else:
            request.future.set_result(result)
