"""The kernel's table of functions that can be traced: one entry for each ``__fentry__`` site, its own and modules'.

Read from the guest's memory by BTF (``struct ftrace_page``, ``struct dyn_ftrace``), as reading
``available_filter_functions`` takes a second. Functions are chosen through the kernel's own ``ftrace_set_filter_ips``.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from kobox.errors import GuestError, NotModelled, UsageError
from kobox.kernel.guest import Guest, errno_of
from kobox.kernel.syscalls import Syscalls

_TRACER_CODE = ("trace_clock_local", "return_to_handler", "ftrace_caller", "prepare_ftrace_return")
"""Functions of the tracer; those that lie around them, up to the next traceable function, are the tracer's too."""
_PAGES_LIMIT = 100_000
_ALL_ONES = (1 << 64) - 1
_WORD = 8


class Sites:
    """The table as it is now; make a new one after a module was loaded."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        if not guest.has("ftrace_pages_start"):
            raise NotModelled(
                f"kernel {guest.image.release} has no function tracer", hint="events and probes may still be traced"
            )
        self.addresses = sorted(self._read())

    def between(self, start: int, end: int) -> list[int]:
        """Sites in [start, end)."""
        return self.addresses[bisect_left(self.addresses, start) : bisect_left(self.addresses, end)]

    def tracer_code(self) -> list[tuple[int, int]]:
        """Where the tracer's own functions lie: stretches of kernel text without any site."""
        gaps = set()
        for name in _TRACER_CODE:
            address = self._guest.symbols.get(name)
            if address is None:
                continue
            index = bisect_right(self.addresses, address)
            if not 0 < index < len(self.addresses):
                continue
            gaps.add((min(self._end_of(self.addresses[index - 1]), address), self._start_of(self.addresses[index])))
        return sorted(gaps)

    def _start_of(self, site: int) -> int:
        found = self._guest.symbols.at(site)
        return site - found.offset if found else site

    def _end_of(self, site: int) -> int:
        found = self._guest.symbols.at(site)
        return site - found.offset + found.size if found else site

    def _read(self) -> Iterator[int]:
        guest, layouts = self._guest, self._guest.layouts
        words = layouts.size("dyn_ftrace") // _WORD
        ip_at, flags_at = (layouts.offset("dyn_ftrace", name) // _WORD for name in ("ip", "flags"))
        disabled = guest.image.btf.constant("FTRACE_FL_DISABLED") or 0
        page = guest.read_uint(guest.symbol("ftrace_pages_start"))
        for _ in range(_PAGES_LIMIT):
            if not page:
                return
            view = guest.view("ftrace_page", page)
            table = memoryview(guest.read(view["records"] & _ALL_ONES, view["index"] * words * _WORD)).cast("Q")
            for ip, flags in zip(table[ip_at::words], table[flags_at::words], strict=True):
                if ip and not flags & disabled:
                    yield ip
            page = view["next"] & _ALL_ONES
        raise GuestError("the kernel's table of traceable functions has no end")


class Filter:
    """The functions that the kernel's tracer is to trace."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._syscalls = syscalls
        self._guest = syscalls.guest
        self.count = 0

    def add(self, sites: list[int]) -> None:
        """Trace these too."""
        if not sites:
            return
        window = self._syscalls.window
        window.clear()
        table = window.put(struct.pack(f"<{len(sites)}Q", *sites))
        many = self._guest.has("ftrace_set_filter_ips")
        ops = self._guest.symbol("global_ops")
        if many:
            self._check(self._guest.call_int("ftrace_set_filter_ips", ops, table, len(sites), 0, 0))
        else:
            for site in sites:
                self._check(self._guest.call_int("ftrace_set_filter_ip", ops, site, 0, 0))
        self.count += len(sites)

    def _check(self, result: int) -> None:
        if result:
            raise UsageError(f"the kernel refused a function to trace (error {errno_of(result) or result})")
