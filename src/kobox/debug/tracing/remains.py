"""The ring buffer of a kernel that has stopped for good: nobody there can be asked for it, so its memory is read.

Follows ``kernel/trace/ring_buffer.c``: one page that is being read lies outside of a ring of pages; the ring begins
behind the link that is marked as the head's, and ends with the page that was committed last.
"""

from __future__ import annotations

from collections.abc import Iterator

from kobox.debug.tracing.tracefs import arrays_of
from kobox.kernel.guest import Guest, View

_ALL_ONES = (1 << 64) - 1
_FLAGS, _HEAD = 3, 1
"""The two lowest bits of a link; the value that marks the link to the head."""


def remaining_pages(guest: Guest, size: int, instance: bool) -> Iterator[tuple[bytes, int]]:
    """Pages of the one CPU's buffer with how many bytes of their data have been taken already, oldest first."""
    arrays = arrays_of(guest)
    if len(arrays) <= instance:
        return
    buffer = guest.view("trace_array", arrays[instance])["array_buffer.buffer"] & _ALL_ONES
    first = guest.read_uint(guest.view("trace_buffer", buffer)["buffers"] & _ALL_ONES)
    one_cpu = guest.view("ring_buffer_per_cpu", first)
    last = one_cpu["commit_page"] & _ALL_ONES
    for page in _in_order(guest, one_cpu, last):
        view = guest.view("buffer_page", page)
        yield guest.read(view["page"] & _ALL_ONES, size), view["read"]


def _in_order(guest: Guest, one_cpu: View, last: int) -> Iterator[int]:
    page = one_cpu["reader_page"] & _ALL_ONES
    yield page
    if page == last:
        return
    page = _head(guest, one_cpu)
    for _ in range(one_cpu["nr_pages"]):
        yield page
        if page == last:
            return
        page = _next(guest, page) & ~_FLAGS


def _head(guest: Guest, one_cpu: View) -> int:
    """The oldest page of the ring; the kernel's own pointer to it may lag behind."""
    page = one_cpu["head_page"] & _ALL_ONES
    for _ in range(one_cpu["nr_pages"]):
        link = _next(guest, page)
        if link & _FLAGS == _HEAD:
            return link & ~_FLAGS
        page = link & ~_FLAGS
    return page


def _next(guest: Guest, page: int) -> int:
    at = guest.layouts.offset("buffer_page", "list")
    return guest.read_uint(page + at) - at
