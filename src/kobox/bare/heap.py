"""The bare kernel's memory for modules: one heap, where every object is fenced, watched, and remembered.

An object lies between two redzones and is filled with a pattern when freed; freed objects wait before their room is
used again. So an overrun, a write after free and a double free are seen, and what a module leaves behind is a leak.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kobox.bare.guest import BareGuest
    from kobox.kernel.heapcheck_records import Trace

_RED, _FREED, _FRESH = 0xBB, 0x6B, 0x5A
_REDZONE = 16
_WAITING = 1 << 20
"""Bytes of freed objects that wait before their room is used again."""


@dataclass(slots=True)
class _Object:
    address: int
    size: int
    room: int
    module: str
    allocated: Trace | None
    time: int
    cache: int = 0
    freed: Trace | None = None


class _Cache(NamedTuple):
    name: str
    size: int
    align: int
    constructor: int
    module: str


class BareHeap:
    """Objects by address, those that were freed lately included."""

    ZERO_SIZE = 16

    def __init__(self, guest: BareGuest, start: int, end: int) -> None:
        self._guest, self._next, self._end = guest, start, end
        self.objects: dict[int, _Object] = {}
        self.caches: dict[int, _Cache] = {}
        self.unwatched: tuple[str, ...] = ()
        """Allocating functions that are not watched: none."""
        self.reports: list[dict[str, Any]] = []
        self._waiting: deque[_Object] = deque()
        self._held = 0
        self._free: dict[int, list[int]] = {}

    def allocate(self, size: int, *, zero: bool = False, cache: int = 0, internal: bool = False) -> int:
        """Address of ``size`` bytes, 0 when the heap is full. ``internal``: the kernel's own, never a leak."""
        if size == 0:
            return self.ZERO_SIZE
        room = _room(size)
        free = self._free.get(room)
        if free:
            start = free.pop()
        else:
            align = min(room, 4096)
            start = -(-(self._next + _REDZONE) // align) * align
            if start + room + _REDZONE > self._end:
                return 0
            self._next = start + room + _REDZONE
        guest = self._guest
        guest.write(start - _REDZONE, bytes([_RED]) * _REDZONE)
        guest.write(start, bytes(size) if zero or internal else bytes([_FRESH]) * size)
        guest.write(start + size, bytes([_RED]) * (room - size + _REDZONE))
        trace = None if internal else guest.trace()
        owner = "" if internal else guest.modules.name_at(guest.caller())
        self.objects[start] = _Object(start, size, room, owner, trace, guest.machine.clock.now, cache)
        return start

    def release(self, address: int, cache: int = 0) -> None:
        """Give an object back; what is no object, or was freed before, is reported."""
        if address in (0, self.ZERO_SIZE):
            return
        found = self.objects.get(address)
        if found is None:
            self._report("invalid-free", f"{address:#x} is no object", None, address)
        elif found.freed:
            self._report("double-free", f"an object of {found.size} bytes was freed before", found)
        else:
            if found.cache != cache:
                self._report("invalid-free", "an object was given to another cache than it came from", found)
            self._check(found)
            self._guest.write(found.address, bytes([_FREED]) * found.size)
            found.freed = self._guest.trace()
            self._waiting.append(found)
            self._held += found.room
            while self._held > _WAITING:
                self._retire(self._waiting.popleft())

    def _retire(self, one: _Object) -> None:
        self._held -= one.room
        self._check(one)
        del self.objects[one.address]
        self._free.setdefault(one.room, []).append(one.address)

    def size_of(self, address: int) -> int:
        found = self.objects.get(address)
        return found.size if found is not None and not found.freed else 0

    def check_range(self, address: int, size: int) -> None:
        """A copy to or from user memory must not reach over an object's end."""
        for one in self.objects.values():
            if one.address <= address < one.address + one.room:
                if one.freed or address + size > one.address + one.size:
                    text = f"a copy of {size} bytes to or from user memory leaves an object of {one.size}"
                    self._report("overrun", text, one, address - one.address, size)
                return

    def check_all(self) -> None:
        for one in self.objects.values():
            self._check(one)

    def _check(self, one: _Object) -> None:
        guest = self._guest
        behind = one.room - one.size + _REDZONE
        for start, size in ((-_REDZONE, _REDZONE), (one.size, behind)):
            data = guest.read(one.address + start, size)
            bad = [start + index for index, byte in enumerate(data) if byte != _RED]
            if bad:
                text = f"bytes from {bad[0]} on of an object of {one.size} bytes were written"
                self._report("overrun", text, one, bad[0], len(bad))
                guest.write(one.address + start, bytes([_RED]) * size)
        if one.freed:
            bad = [index for index, byte in enumerate(guest.read(one.address, one.size)) if byte != _FREED]
            if bad:
                text = f"an object of {one.size} bytes was written after it was freed"
                self._report("write-after-free", text, one, bad[0], len(bad))
                guest.write(one.address, bytes([_FREED]) * one.size)

    def _report(self, kind: str, text: str, one: _Object | None, offset: int = 0, count: int = 0) -> None:
        guest = self._guest
        running = guest.calls.busy
        found = self._frames(guest.trace())
        line = f"BUG: kobox: {kind}: {text}"
        guest.log.write(3, f"{line}, found in {found[0]['symbol']}" if found else line)
        self.reports.append(
            {
                "kind": kind,
                "text": line,
                "address": f"{one.address if one is not None else offset:#x}",
                "size": one.size if one is not None else 0,
                "offset": offset if one is not None else 0,
                "count": count,
                "module": one.module if one is not None else guest.modules.name_at(guest.caller()) if running else "",
                "time": guest.machine.clock.now / 1e9,
                "allocated": self._frames(one.allocated) if one is not None else [],
                "freed": self._frames(one.freed) if one is not None else [],
                "found": found,
            }
        )

    def _frames(self, trace: Trace | None) -> list[dict[str, Any]]:
        return self._guest.frames(trace) if trace is not None else []

    # -- caches ---------------------------------------------------------------------------------------------------

    def create_cache(self, name: str, size: int, align: int, constructor: int) -> int:
        handle = self.allocate(64, internal=True)
        owner = self._guest.modules.name_at(self._guest.caller())
        self.caches[handle] = _Cache(name, size, align, constructor, owner)
        return handle

    def destroy_cache(self, handle: int) -> None:
        cache = self.caches.pop(handle, None)
        if cache is None:
            return
        if any(one.cache == handle and not one.freed for one in self.objects.values()):
            caller = self._guest.symbol_text(self._guest.caller())
            text = f"kmem_cache_destroy {cache.name}: Slab cache still has objects when called from {caller}"
            self._guest.log.write(4, text)
        self.release(handle)

    # -- what is left ---------------------------------------------------------------------------------------------

    def leaks(self, loaded: set[str]) -> tuple[dict[str, Any], ...]:
        """Objects of modules that are gone, oldest first."""
        now = self._guest.machine.clock.now
        return tuple(
            {
                "address": f"{one.address:#x}", "size": one.size, "module": one.module,
                "pool": "kmem_cache" if one.cache else "kmalloc", "age": round((now - one.time) / 1e9, 6),
                "trace": self._frames(one.allocated),
            }
            for one in self.objects.values()
            if not one.freed and one.module and one.module not in loaded
        )  # fmt: skip


def _room(size: int) -> int:
    """What ``kmalloc`` would set aside: the next power of two, from 8 on."""
    return max(8, 1 << (size - 1).bit_length())
