"""Which blocks of guest code ran, noted by the translated code itself: no trap, no Python, a few host instructions.

Unicorn calls a function at the start of every translated block of an address range. Ours is five bytes of host code
that store the block's size in a table, at the place of its address. So watching costs next to nothing, whatever the
guest does, and neither memory nor code of the guest is changed by it.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re

from kobox.errors import NotModelled
from kobox.machine.unicorn_abi import Unicorn

_NOTE = bytes.fromhex("66891471 c3")
"""``mov word [rcx + rsi * 2], dx; ret`` with the arguments of a block hook in the System V convention: rsi the block's
address, edx its size in bytes, rcx the hook's own pointer. A block never crosses a page, so 16 bits hold its size."""
_HOSTS = ("x86_64", "AMD64")
_WIDTH = 2


class WatchedCode:
    """A range of guest code [start, start + size) and what ran of it since the last ``clear``."""

    def __init__(self, start: int, size: int) -> None:
        self.start, self.size = start, size
        self._table = mmap.mmap(-1, size * _WIDTH)
        self._view = memoryview(self._table).cast("H")
        self.table_address = ctypes.addressof(ctypes.c_char.from_buffer(self._table))

    def ran(self) -> frozenset[tuple[int, int]]:
        """(offset from start, size) in bytes of every block that was entered."""
        view = self._view
        touched = {place.start() // _WIDTH for place in re.finditer(rb"[^\0]", self._table)}
        return frozenset((offset, view[offset]) for offset in touched)

    def clear(self) -> None:
        """Nothing ran yet."""
        ctypes.memset(self.table_address, 0, self.size * _WIDTH)


class BlockWatch:
    """The watched ranges of one CPU. A range that is asked for again is the same one: hooks are never taken away."""

    def __init__(self, cpu: Unicorn) -> None:
        if platform.machine() not in _HOSTS:
            raise NotModelled(f"code coverage needs an x86-64 host, this one is {platform.machine()}")
        self._cpu = cpu
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_NOTE)
        self._note = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._known: dict[tuple[int, int], WatchedCode] = {}

    def watch(self, start: int, size: int) -> WatchedCode:
        """Note from now on which blocks of [start, start + size) run. Call it before that code runs first."""
        watched = self._known.get((start, size))
        if watched is None:
            watched = self._known[start, size] = WatchedCode(start, size)
            pointer = (watched.table_address - start * _WIDTH) & (1 << 64) - 1
            self._cpu.on_block(self._note, pointer, start, start + size - 1, (self._page, watched))
        watched.clear()
        return watched
