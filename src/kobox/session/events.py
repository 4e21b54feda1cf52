"""What happens in a session, in one numbered order: kept for a while, and handed to followers in batches.

Every event is encoded once, when it happens, by the thread that runs the kernel. Followers share one ring of the last
``KEPT`` events; each has only a position in it. One that keeps up gets every event; one that falls behind the ring gets
a ``gap`` event with the numbers it missed, and goes on with the oldest that is kept. Nothing grows with their number.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Container
from typing import Any, NamedTuple

KEPT = 1 << 16
BATCH_SECONDS = 0.01
"""How long events are gathered before followers are woken."""
_MOST_AT_ONCE = 1 << 13
"""Events in one write to a follower, so that a slow one holds little memory."""

KINDS = ("log", "load", "step", "unload", "uevent", "taint", "dead", "save", "reboot", "gap", "hello")


class Event(NamedTuple):
    """``line`` is its JSON with a newline, the number in it included."""

    kind: str
    line: bytes


class EventLog:
    """The ring. ``add`` is for the kernel's thread, the rest for the thread of the event loop."""

    def __init__(self, kept: int = KEPT) -> None:
        self.stream = secrets.token_hex(8)
        """Changes with every server: numbers of one stream mean nothing in another."""
        self._kept = kept
        self._ring = [_NOTHING] * kept
        """The event with number n lies at n modulo its length."""
        self._next = 1
        self._lock = threading.Lock()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False
        self._joined: tuple[int, int, bytes] = (0, 0, b"")
        self._closed = False

    # -- the kernel's side --------------------------------------------------------------------------------------------

    def add(self, kind: str, **fields: Any) -> None:
        """Append one event."""
        with self._lock:
            text = json.dumps({"seq": self._next, "type": kind} | fields, separators=(",", ":"))
            self._ring[self._next % self._kept] = Event(kind, text.encode() + b"\n")
            self._next += 1
            tell, self._told = not self._told, True
        if tell and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_later)

    # -- the followers' side ------------------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on followers in this loop are woken."""
        with self._lock:
            self._loop, self._told = loop, False

    def close(self) -> None:
        """No more events come: followers end."""
        self._closed = True
        self._wake()

    @property
    def next(self) -> int:
        """The number that the next event will have."""
        return self._next

    def _wake_later(self) -> None:
        assert self._loop is not None
        self._loop.call_later(BATCH_SECONDS, self._wake)

    def _wake(self) -> None:
        self._told = False
        self._changed.set()
        self._changed = asyncio.Event()

    def hello(self, position: int) -> bytes:
        """The first line of every stream: which stream it is, and the number it goes on behind."""
        said = {"seq": position - 1, "type": "hello", "stream": self.stream}
        said |= {"next": self._next, "oldest": self._oldest()}
        return json.dumps(said, separators=(",", ":")).encode() + b"\n"

    def position(self, since: int | None) -> int:
        """Where a follower begins: behind ``since``, or at what comes next."""
        return self._next if since is None else max(since + 1, 1)

    def take(self, position: int, kinds: Container[str]) -> tuple[int, bytes]:
        """(new position, lines) of what a follower at ``position`` has not seen, at most so much at once.

        ``kinds``: only these; empty: all.
        """
        with self._lock:
            oldest, behind = self._oldest(), self._next
            gap = b""
            if position < oldest:
                gap, position = _gap(position, oldest - 1), oldest
            if position > behind:  # a number of another stream, or of the future
                gap, position = _gap(behind, position - 1), behind
            end = min(behind, position + _MOST_AT_ONCE)
            if not kinds and self._joined[:2] == (position, end):
                return end, gap + self._joined[2]
            events = [self._ring[number % self._kept] for number in range(position, end)]
        lines = b"".join(event.line for event in events if not kinds or event.kind in kinds)
        if not kinds:
            self._joined = (position, end, lines)
        return end, gap + lines

    async def more(self, position: int) -> bool:
        """Wait until there is something at ``position``; False when nothing will come any more."""
        while self._next <= position and not self._closed:
            await self._changed.wait()
        return self._next > position

    def _oldest(self) -> int:
        return max(1, self._next - self._kept)


def _gap(first: int, last: int) -> bytes:
    text = json.dumps({"seq": last, "type": "gap", "from": first, "to": last}, separators=(",", ":"))
    return text.encode() + b"\n"


_NOTHING = Event("", b"")
