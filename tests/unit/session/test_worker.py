"""The kernel's thread: in order, one at a time, and nobody has to wait for a request that nobody wants any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kobox.errors import Errno
from kobox.session.worker import Request, Worker


class Busy:
    """A kernel whose one call lasts until it is interrupted."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()
        self.entered = threading.Event()

    def interrupt(self, wanted: bool) -> None:
        self.interrupted.set() if wanted else self.interrupted.clear()

    def call(self, request: Request) -> str:
        self.entered.set()
        assert self.interrupted.wait(10)
        raise Errno(4, "call")


def run(story: Callable[[Worker, Busy], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        kernel = Busy()
        worker = Worker(kernel.interrupt, lambda: None)
        try:
            await story(worker, kernel)
        finally:
            await worker.stop()

    asyncio.run(main())


def test_requests_are_served_in_the_order_in_which_they_came() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        served: list[int] = []
        await asyncio.gather(*(worker.do(lambda _, number=number: served.append(number)) for number in range(50)))
        assert served == list(range(50))
        assert worker.done == 50

    run(story)


def test_an_error_reaches_who_asked_and_nobody_else() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        failing, fine = worker.do(lambda _: 1 // 0), worker.do(lambda _: "fine")
        results = await asyncio.gather(failing, fine, return_exceptions=True)
        assert isinstance(results[0], ZeroDivisionError)
        assert results[1] == "fine"

    run(story)


def test_the_call_that_runs_can_be_interrupted() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        call = asyncio.create_task(worker.do(kernel.call))
        await asyncio.to_thread(kernel.entered.wait)
        assert worker.interrupt()
        with pytest.raises(Errno, match="EINTR"):
            await call
        assert not worker.interrupt()

    run(story)


def test_a_caller_that_goes_away_ends_its_call_and_the_next_one_runs() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        call = asyncio.create_task(worker.do(kernel.call))
        await asyncio.to_thread(kernel.entered.wait)
        call.cancel()
        assert await worker.do(lambda _: kernel.interrupted.is_set()) is False

    run(story)


def test_a_request_that_still_waits_is_dropped() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        first = asyncio.create_task(worker.do(kernel.call, "first"))
        await asyncio.to_thread(kernel.entered.wait)
        ran: list[int] = []
        second = asyncio.create_task(worker.do(lambda _: ran.append(1), "second"))
        await asyncio.sleep(0)
        assert worker.interrupt("second")
        assert worker.interrupt("first")
        for one in (first, second):
            with pytest.raises(Errno, match="EINTR"):
                await one
        assert ran == []

    run(story)


def test_a_worker_stops_in_the_middle_of_a_call() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        call = asyncio.create_task(worker.do(kernel.call))
        await asyncio.to_thread(kernel.entered.wait)
        await worker.stop()
        with pytest.raises(Errno, match="EINTR"):
            await call

    run(story)


def test_a_name_that_no_request_has_interrupts_nothing() -> None:
    async def story(worker: Worker, kernel: Busy) -> None:
        call = asyncio.create_task(worker.do(kernel.call, "mine"))
        await asyncio.to_thread(kernel.entered.wait)
        assert not worker.interrupt("other")
        assert not call.done()
        assert worker.interrupt("mine")
        with pytest.raises(Errno):
            await call

    run(story)
