"""Rings of transfer requests in the guest's memory, as an xHCI host controller walks and fills them.

eXtensible Host Controller Interface 1.1, 4.9 and 6.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

TRB_SIZE = 16
NORMAL, SETUP, DATA, STATUS, LINK, EVENT_DATA, NO_OP = 1, 2, 3, 4, 6, 7, 8
CYCLE, TOGGLE, SHORT_TELLS, CHAIN, COMPLETION_TELLS, IMMEDIATE = 1, 2, 4, 16, 32, 64
_TRB = struct.Struct("<QII")
_MOST_IN_A_ROW = 512
"""Entries of one transfer: a driver's longest has a few hundred."""

Read = Callable[[int, int], bytes]


class Broken(Exception):
    """A ring that leads nowhere."""


class Trb(NamedTuple):
    """One entry: where it lies, and its fields."""

    address: int
    parameter: int
    status: int
    control: int

    @property
    def kind(self) -> int:
        """NORMAL, SETUP …"""
        return self.control >> 10 & 63

    @property
    def length(self) -> int:
        """Of its buffer."""
        return self.status & 0x1FFFF


@dataclass(slots=True)
class Ring:
    """Where the controller is in a ring that the driver fills."""

    dequeue: int
    cycle: int

    def peek(self, read: Read) -> list[Trb]:
        """The next whole transfer (entries that belong together), without going on; empty: the driver has put nothing
        there, or not all of it."""
        ahead = Ring(self.dequeue, self.cycle)
        found: list[Trb] = []
        for _ in range(_MOST_IN_A_ROW):
            trb = ahead._next(read)
            if trb is None:
                return []
            found.append(trb)
            if not trb.control & CHAIN and trb.kind not in (SETUP, DATA):
                return found
        raise Broken

    def skip(self, read: Read, count: int) -> None:
        """Go on behind so many entries."""
        for _ in range(count):
            self._next(read)

    def _next(self, read: Read) -> Trb | None:
        for _ in range(_MOST_IN_A_ROW):
            trb = Trb(self.dequeue, *_TRB.unpack(read(self.dequeue, TRB_SIZE)))
            if trb.control & CYCLE != self.cycle:
                return None
            if trb.kind != LINK:
                self.dequeue += TRB_SIZE
                return trb
            self.dequeue = trb.parameter & ~15
            self.cycle ^= bool(trb.control & TOGGLE)
        raise Broken


@dataclass(slots=True)
class EventRing:
    """Where the controller is in the ring that the driver empties. ``table``: of its pieces; ``pieces``: how many."""

    table: int = 0
    pieces: int = 0
    taken: int = 0
    """How far the driver has come."""
    next: int = 0
    """Where the next event will lie; 0: there was none yet."""
    _piece: int = 0
    _index: int = 0
    _cycle: int = 1

    def place(self, read: Read) -> tuple[int, int] | None:
        """(address, cycle bit) for the next event; None while the ring is full, or there is none."""
        if not self.pieces:
            return None
        base, size, _ = _TRB.unpack(read(self.table + self._piece * TRB_SIZE, TRB_SIZE))
        address = (base & ~63) + self._index * TRB_SIZE
        piece, index, cycle = self._piece, self._index + 1, self._cycle
        if index >= (size & 0xFFFF):
            piece, index = piece + 1, 0
            if piece >= self.pieces:
                piece, cycle = 0, cycle ^ 1
        following, _, _ = _TRB.unpack(read(self.table + piece * TRB_SIZE, TRB_SIZE))
        if (following & ~63) + index * TRB_SIZE == self.taken & ~15:
            return None
        at = address, self._cycle
        self._piece, self._index, self._cycle = piece, index, cycle
        self.next = (following & ~63) + index * TRB_SIZE
        return at

    @property
    def unseen(self) -> bool:
        """Whether the driver has not taken every event yet."""
        return bool(self.next) and self.taken & ~15 != self.next
