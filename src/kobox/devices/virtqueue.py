"""Split virtqueues from the device's side: take chains of buffers that the driver offers, give them back as used.

All that is read here is the guest's: rings and chains are bounded by the queue's size. Virtual I/O Device (VIRTIO) 1.2,
2.7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from kobox.errors import KoboxError

_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_NO_INTERRUPT = 1
_DESCRIPTOR = struct.Struct("<QIHH")
_AVAIL_HEADER, _USED_HEADER, _USED_SIZE = 4, 4, 8
MAX_SIZE = 256

ViewOf = Callable[[int, int, bool], "memoryview | None"]
"""Memory by address and size; ``True``: to be written."""


class BrokenQueue(KoboxError):
    """The driver has put something into a queue that no device can serve."""


class Chain(NamedTuple):
    """Buffers that belong together: those that the device reads, then those that it writes."""

    head: int
    readable: tuple[memoryview, ...]
    writable: tuple[memoryview, ...]


@dataclass(slots=True)
class Queue:
    """One queue, as the driver has set it up. Addresses are the guest's, physical."""

    size: int = MAX_SIZE
    vector: int = 0xFFFF
    enabled: bool = False
    descriptors: int = 0
    driver: int = 0
    device: int = 0
    next_available: int = 0
    next_used: int = 0
    taken: list[int] = field(default_factory=list)
    """Heads of chains that were taken and not given back."""

    def take(self, view_of: ViewOf) -> Chain | None:
        """The next chain; None where the driver offers no more."""
        header = self._view(view_of, self.driver, _AVAIL_HEADER + 2 * self.size)
        _, index = struct.unpack_from("<HH", header)
        if index == self.next_available:
            return None
        (head,) = struct.unpack_from("<H", header, _AVAIL_HEADER + 2 * (self.next_available % self.size))
        self.next_available = self.next_available + 1 & 0xFFFF
        self.taken.append(head)
        return self._chain(view_of, head)

    def give_back(self, view_of: ViewOf, chain: Chain, written: int) -> bool:
        """A chain is used, ``written`` bytes of its writable buffers hold something. True: the driver is to be told."""
        self.taken.remove(chain.head)
        ring = self._view(view_of, self.device, _USED_HEADER + _USED_SIZE * self.size, write=True)
        struct.pack_into("<II", ring, _USED_HEADER + _USED_SIZE * (self.next_used % self.size), chain.head, written)
        self.next_used = self.next_used + 1 & 0xFFFF
        struct.pack_into("<H", ring, 2, self.next_used)
        (flags,) = struct.unpack_from("<H", self._view(view_of, self.driver, 2))
        return not flags & _NO_INTERRUPT

    def _chain(self, view_of: ViewOf, head: int) -> Chain:
        table, count, at = self._view(view_of, self.descriptors, _DESCRIPTOR.size * self.size), self.size, head
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        nested = False
        for _ in range(MAX_SIZE * 2):
            if at >= count:
                raise BrokenQueue(f"descriptor {at} of a table of {count}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(table, _DESCRIPTOR.size * at)
            if flags & _INDIRECT:
                if nested or length % _DESCRIPTOR.size or not length:
                    raise BrokenQueue(f"an indirect table of {length} bytes")
                table, count, at, nested = self._view(view_of, address, length), length // _DESCRIPTOR.size, 0, True
                continue
            if flags & _WRITE:
                writable.append(self._view(view_of, address, length, write=True))
            elif writable:
                raise BrokenQueue("a buffer to read behind one to write")
            else:
                readable.append(self._view(view_of, address, length))
            if not flags & _NEXT:
                return Chain(head, tuple(readable), tuple(writable))
            at = following
        raise BrokenQueue("a chain without an end")

    @staticmethod
    def _view(view_of: ViewOf, address: int, size: int, *, write: bool = False) -> memoryview:
        view = view_of(address, size, write)
        if view is None:
            raise BrokenQueue(f"no memory at {address:#x}, {size} bytes")
        return view
