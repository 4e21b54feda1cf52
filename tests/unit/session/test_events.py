"""Followers of events: every one gets every event, or is told which it missed."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from kobox.session.events import EventLog


def numbers(lines: bytes) -> list[int]:
    return [json.loads(line)["seq"] for line in lines.splitlines()]


def events(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


def filled(kept: int, count: int) -> EventLog:
    log = EventLog(kept)
    for index in range(count):
        log.add("log" if index % 2 else "step", index=index)
    return log


def test_events_are_numbered_from_one_in_their_order() -> None:
    position, lines = filled(10, 3).take(1, ())
    assert (position, numbers(lines)) == (4, [1, 2, 3])


def test_a_follower_goes_on_behind_a_number() -> None:
    log = filled(10, 5)
    position, lines = log.take(log.position(3), ())
    assert (position, numbers(lines)) == (6, [4, 5])


def test_without_a_number_it_begins_with_what_comes_next() -> None:
    log = filled(10, 5)
    assert log.take(log.position(None), ()) == (6, b"")


def test_one_that_fell_behind_is_told_what_it_missed_and_goes_on_with_the_oldest() -> None:
    log = filled(4, 10)
    _, lines = log.take(2, ())
    gap, *rest = events(lines)
    assert gap == {"seq": 6, "type": "gap", "from": 2, "to": 6}
    assert [event["seq"] for event in rest] == [7, 8, 9, 10]


def test_a_number_of_the_future_is_a_gap_too() -> None:
    """A follower that resumes with a number of a server that has been restarted since."""
    log = filled(4, 2)
    position, lines = log.take(log.position(100), ())
    assert position == 3
    assert events(lines) == [{"seq": 100, "type": "gap", "from": 3, "to": 100}]


def test_only_kinds_that_are_asked_for_come_and_gaps_always() -> None:
    log = filled(4, 10)
    _, lines = log.take(1, {"log"})
    assert [event["type"] for event in events(lines)] == ["gap", "log", "log"]


def test_one_write_is_bounded() -> None:
    log = filled(1 << 15, 20_000)
    position, lines = log.take(1, ())
    assert position == 8193
    assert len(lines.splitlines()) == 8192


def test_many_followers_hear_everything_that_another_thread_adds() -> None:
    count, followers = 20_000, 20

    async def follow(log: EventLog) -> list[int]:
        position, heard = 1, []
        while position <= count and await log.more(position):
            position, lines = log.take(position, ())
            heard += numbers(lines)
        return heard

    async def story() -> list[list[int]]:
        log = EventLog()
        log.attach(asyncio.get_running_loop())
        thread = threading.Thread(target=lambda: [log.add("log", text="x") for _ in range(count)])
        thread.start()
        heard = await asyncio.gather(*(follow(log) for _ in range(followers)))
        thread.join()
        return heard

    for heard in asyncio.run(story()):
        assert heard == list(range(1, count + 1))


def test_followers_end_with_the_log() -> None:
    async def story() -> bool:
        log = EventLog()
        log.attach(asyncio.get_running_loop())
        waiting = asyncio.create_task(log.more(1))
        await asyncio.sleep(0)
        log.close()
        return await waiting

    assert asyncio.run(story()) is False
