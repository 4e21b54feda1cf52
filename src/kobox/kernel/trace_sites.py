"""The places in a module that tracing may patch, opened to ftrace: ``ftrace_module_enable`` without its long way.

For each place the kernel looks up the nearest symbol, to leave out weak functions that were replaced
(``test_for_valid_rec``), and each look-up walks the whole symbol table: 20 million steps for ext4. Here the table is
read once. Everything else stays with the kernel's function, which is called for a module of the same name without any
memory. While somebody traces, or where this kernel is not as known here, it does it all. Follows kernel/trace/ftrace.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from kobox.elf.constants import SHN
from kobox.kernel.env import Call, Env
from kobox.kernel.guest import Guest, View
from kobox.link import LoadView, Symbols, symbol_table

_U64, _U64_AT = (1 << 64) - 1, struct.Struct("<Q").unpack_from
_ENDBR_SIZE = 4
_MAPPING_MARKS = (b".", b"$", b"L")
"""Names that begin like this may be no symbols to the kernel (``is_mapping_symbol``)."""


def enable_call(
    guest: Guest, env: Env, module: View, regions: Sequence[tuple[int, int]], view: LoadView, symbols: Symbols
) -> Call:
    """Open the module's places as far as that can be done here; the guest call that does the rest.

    ``regions`` are (address, size) of the module's memory.
    """
    enable, disabled = guest.symbol("ftrace_module_enable"), guest.image.btf.constant("FTRACE_FL_DISABLED")
    if disabled is None or not guest.has("test_for_valid_rec") or not _is_calm(guest):
        return (enable, module.address)
    reach = _ENDBR_SIZE if guest.image.config.get("CONFIG_X86_KERNEL_IBT") == "y" else 0
    starts, opened = _starts(view, symbols), []
    for first, count in _records(guest):
        records = _opened(guest, first, count, regions, starts, reach, disabled)
        if records is None:
            return (enable, module.address)
        opened.append((first, records))
    for first, records in opened:
        guest.write(first, records)
    name = guest.layouts.field("module", "name")
    hollow = bytearray(guest.layouts.size("module"))
    hollow[name.offset : name.offset + name.size] = guest.read(module.at("name"), name.size)
    return (enable, env.scratch(hollow))


def _is_calm(guest: Guest) -> bool:
    """Nobody traces, nobody is about to, and ftrace has not given up."""
    lock = guest.view("mutex", guest.symbol("ftrace_lock"))
    owner = "rtmutex.owner" if guest.layouts.has("mutex", "rtmutex") else "owner.counter"  # of a real-time kernel
    words = [guest.read_uint(guest.symbol(name), 4) for name in ("ftrace_start_up", "ftrace_disabled")]
    return not any(words) and not lock[owner]


class _Starts(NamedTuple):
    """Addresses of symbols: of those that a look-up finds, and of those that some kernels pass over."""

    sure: set[int]
    doubtful: set[int]


def _starts(view: LoadView, symbols: Symbols) -> _Starts:
    table, strings = symbol_table(view), bytes(view.contents(view.index.str))
    sure, doubtful = set(), set()
    for offset, shndx, value in islice(zip(table.name_offsets, table.shndxs, symbols.values, strict=True), 1, None):
        if shndx != SHN.UNDEF:
            mark = strings[offset : offset + 1]
            if mark in _MAPPING_MARKS:
                doubtful.add(value & _U64)
            elif mark != b"\0":
                sure.add(value & _U64)
    return _Starts(sure, doubtful)


def _records(guest: Guest) -> Iterator[tuple[int, int]]:
    """Address of the first record, and how many follow one another, of each of ftrace's pages."""
    page = guest.read_uint(guest.symbol("ftrace_pages_start"))
    while page:
        view = guest.view("ftrace_page", page)
        yield view["records"], view["index"]
        page = view["next"]


def _opened(
    guest: Guest, first: int, count: int, regions: Sequence[tuple[int, int]], starts: _Starts, reach: int, disabled: int
) -> bytes | None:
    """The records of one page, if they are the module's (else none), without the flag ``disabled``; but with it alone
    where one lies farther than ``reach`` behind every symbol. None where it cannot be told."""
    size, ip_at = guest.layouts.size("dyn_ftrace"), guest.layouts.offset("dyn_ftrace", "ip")
    flags = guest.layouts.field("dyn_ftrace", "flags")
    if not count or not _within(guest.read_uint(first + ip_at), regions):
        return b""  # a page has records of one module only
    records = bytearray(guest.read(first, size * count))
    for at in range(0, len(records), size):
        (ip,) = _U64_AT(records, at + ip_at)
        if not _within(ip, regions):
            break
        known = ip in starts.sure or not starts.sure.isdisjoint(range(ip - reach, ip))
        if not known and not starts.doubtful.isdisjoint(range(ip - reach, ip + 1)):
            return None
        place = slice(at + flags.offset, at + flags.offset + flags.size)
        value = int.from_bytes(records[place], "little") & ~disabled if known else disabled
        records[place] = value.to_bytes(flags.size, "little")
    return bytes(records)


def _within(address: int, regions: Sequence[tuple[int, int]]) -> bool:
    for start, size in regions:  # noqa: SIM110  # a generator would take most of the time of a load's trace sites
        if start <= address < start + size:
            return True
    return False
