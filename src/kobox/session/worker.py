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


Deliver = Callable[[Any, BaseException | None], None]
"""Is given the result of a request or what it raised, in the kernel's thread."""


class Request:
    """One piece of work. ``interrupted`` is looked at by work of many steps, between two of them."""

    def __init__(self, work: Callable[[Request], Any], name: str, what: str, deliver: Deliver) -> None:
        self.work, self.name, self.what, self.deliver = work, name, what, deliver
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
        self.begun = 0
        """How many were begun: whatever is learned of the kernel holds until this changes."""
        self.on_begin: Callable[[int], None] = lambda number: None
        self.pause: Callable[[], float | None] = lambda: None
        """Seconds after which ``on_pause`` is due where no request comes; None: never. Asked in the thread."""
        self.on_pause: Callable[[Request], Any] = lambda request: None
        self._thread = threading.Thread(target=self._run, name="kobox-kernel", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Request], Any], name: str = "", what: str = "the call") -> Any:
        """The result of ``work(request)`` in the kernel's thread; a cancelled caller takes its request back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(self._finish, request, future, result, error)

        request = Request(work, name, what, deliver)
        self._waiting.add(request)
        self._queue.put(request)
        try:
            return await future
        except asyncio.CancelledError:
            self._end(request)
            raise

    def submit(self, work: Callable[[Request], Any], what: str, deliver: Deliver) -> Request:
        """As ``do`` for any thread; ``take_back`` ends it."""
        request = Request(work, "", what, deliver)
        self._queue.put(request)
        return request

    def take_back(self, request: Request) -> None:
        """End a submitted request, whether it waits or runs. Any thread; told again and again until it has ended."""
        request.interrupted = True
        if self.running is request:
            self._interrupt_kernel(True)

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
        while (request := self._take()) is not None:
            self.running = request
            self.begun += 1
            self.on_begin(self.begun)
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
            request.deliver(result, error)

    def _take(self) -> Request | None:
        """The next request; what is due in a pause is one, too."""
        try:
            return self._queue.get(timeout=self.pause())
        except queue.Empty:
            return Request(self.on_pause, "", "waiting calls", lambda result, error: None)

    def _finish(self, request: Request, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._waiting.discard(request)
        if future.done():
            return  # its caller has gone
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
