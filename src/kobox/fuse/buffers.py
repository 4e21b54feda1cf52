"""Room for requests: one that is read takes a buffer, and gives it back when it has been served."""

from __future__ import annotations

import mmap

from kobox.fuse.wire import IN_HEADER, LEAST_BUFFER, PAGE, WRITE_IN

HEAD = IN_HEADER.size + WRITE_IN.size
"""What lies before the bytes of a WRITE: these begin a page of their own."""


class Buffer:
    """Where one request is read to."""

    __slots__ = ("head", "parts", "payload", "view")

    def __init__(self, size: int) -> None:
        self.head = bytearray(HEAD)
        self.payload = mmap.mmap(-1, size)
        self.view = memoryview(self.payload)
        self.parts = [memoryview(self.head), self.view]


class Buffers:
    """Those that are free. Memory is taken when requests come faster than they are served, and kept."""

    def __init__(self, largest: int) -> None:
        self._size = max(largest + PAGE, LEAST_BUFFER)
        self._free: list[Buffer] = []

    def take(self) -> Buffer:
        try:
            return self._free.pop()
        except IndexError:
            return Buffer(self._size)

    def give(self, buffer: Buffer) -> None:
        self._free.append(buffer)
