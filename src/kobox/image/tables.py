"""Tables that the kernel's build collects into sections: initcalls, exception fixups, bug sites, unwind entries.

Each is read where it lies, by the symbols around it; layouts come from BTF. Nothing here runs or interprets an entry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kobox.image.btf import Btf
from kobox.image.symbols import Symbols
from kobox.image.vmlinux import Layout

_REL = struct.Struct("<i")
_MASK = 0xFFFFFFFFFFFFFFFF

LEVELS = (
    ("early", "__initcall_start", "__initcall0_start"),
    ("pure", "__initcall0_start", "__initcall1_start"),
    ("core", "__initcall1_start", "__initcall2_start"),
    ("postcore", "__initcall2_start", "__initcall3_start"),
    ("arch", "__initcall3_start", "__initcall4_start"),
    ("subsys", "__initcall4_start", "__initcall5_start"),
    ("fs", "__initcall5_start", "__initcallrootfs_start"),
    ("rootfs", "__initcallrootfs_start", "__initcall6_start"),
    ("device", "__initcall6_start", "__initcall7_start"),
    ("late", "__initcall7_start", "__initcall_end"),
    ("console", "__con_initcall_start", "__con_initcall_end"),
)
"""Levels with the symbols around each, in the order the kernel runs them; ``console`` runs by itself, early."""


class Kernel(Protocol):
    """What is read here of an image."""

    @property
    def layout(self) -> Layout: ...

    @property
    def symbols(self) -> Symbols: ...

    @property
    def btf(self) -> Btf: ...

    def read(self, address: int, size: int) -> bytes: ...


class Initcall(NamedTuple):
    """``place`` is the entry's own address in the table, ``address`` the function."""

    level: str
    name: str
    address: int
    place: int


class Fixup(NamedTuple):
    """An exception table entry: a fault at ``insn`` goes on at ``fixup``; ``data`` says how (type and register)."""

    insn: int
    fixup: int
    data: int


class BugSite(NamedTuple):
    """Where a BUG or WARN traps: a ``ud2``, in newer kernels also a call for one with arguments. ``file`` is empty when
    the kernel keeps no names, ``format`` when it keeps none or the message is none of printf's."""

    address: int
    file: str
    line: int
    flags: int
    format: str


class Unwind(NamedTuple):
    """The ORC entry that holds for addresses from ``address`` on; ``raw`` is a ``struct orc_entry``."""

    address: int
    raw: bytes


def initcalls(kernel: Kernel) -> Iterator[Initcall]:
    """Every initcall in the order the kernel runs them, console ones last."""
    for level, start, stop in LEVELS:
        first, last = kernel.symbols.get(start), kernel.symbols.get(stop)
        if first is None or last is None:
            continue
        for place, address in _relative(kernel, first, last):
            names = kernel.symbols.exactly_at(address)
            yield Initcall(level, names[0] if names else f"0x{address:x}", address, place)


def exception_table(kernel: Kernel) -> Iterator[Fixup]:
    """``__ex_table`` in its order, which is ascending by instruction."""
    start, stop = _range(kernel, "__start___ex_table", "__stop___ex_table")
    for place, (insn, fixup, data) in _records(kernel, start, stop, struct.Struct("<iiI")):
        yield Fixup((place + insn) & _MASK, (place + 4 + fixup) & _MASK, data)


def bug_table(kernel: Kernel) -> Iterator[BugSite]:
    """``__bug_table``: addresses and places in source."""
    start, stop = _range(kernel, "__start___bug_table", "__stop___bug_table")
    entry = kernel.btf.struct("bug_entry")
    address, line, flags = (entry.offset_of(name) for name in ("bug_addr_disp", "line", "flags"))
    texts = [entry.find(name) for name in ("file_disp", "format_disp")]
    for place in range(start, stop, entry.size):
        raw = kernel.read(place, entry.size)
        file, form = ("" if text is None else _text_at(kernel, place, raw, text.offset) for text in texts)
        yield BugSite(
            (place + address + _REL.unpack_from(raw, address)[0]) & _MASK,
            file,
            int.from_bytes(raw[line : line + 2], "little"),
            int.from_bytes(raw[flags : flags + 2], "little"),
            form,
        )


def unwind_entry(kernel: Kernel, address: int) -> Unwind | None:
    """The ORC entry that covers an address of kernel text; None where there is none."""
    start, stop = _range(kernel, "__start_orc_unwind_ip", "__stop_orc_unwind_ip")
    entries = kernel.symbols.get("__start_orc_unwind")
    low, high = 0, (stop - start) // 4
    if not high or entries is None:
        return None
    while low < high:
        middle = (low + high) // 2
        if _relative_at(kernel, start + 4 * middle) <= address:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return None
    size = kernel.btf.struct("orc_entry").size
    return Unwind(_relative_at(kernel, start + 4 * (low - 1)), kernel.read(entries + size * (low - 1), size))


def smp_locks(kernel: Kernel) -> Iterator[int]:
    """Addresses of the lock prefixes that a kernel on one CPU replaces. The table is filled up to a page with zeros."""
    start, stop = _range(kernel, "__smp_locks", "__smp_locks_end")
    return (address for place, address in _relative(kernel, start, stop) if address != place)


def string_at(kernel: Kernel, address: int, limit: int = 4096) -> str:
    """A NUL-terminated string of the kernel's."""
    text = b""
    while b"\0" not in text and len(text) < limit:
        text += kernel.read(address + len(text), 64)
    return text.partition(b"\0")[0].decode("utf-8", "replace")


def _text_at(kernel: Kernel, place: int, raw: bytes, offset: int) -> str:
    """The string that a field at ``offset`` of a record at ``place`` points to; a distance of zero is none."""
    distance = int(_REL.unpack_from(raw, offset)[0])
    return string_at(kernel, place + offset + distance) if distance else ""


def _range(kernel: Kernel, start: str, stop: str) -> tuple[int, int]:
    """Addresses of two marks; an empty range when the kernel has them not."""
    first, last = kernel.symbols.get(start), kernel.symbols.get(stop)
    return (first, last) if first is not None and last is not None else (0, 0)


def _relative(kernel: Kernel, start: int, stop: int) -> Iterator[tuple[int, int]]:
    for place, (distance,) in _records(kernel, start, stop, _REL):
        yield place, (place + distance) & _MASK


def _relative_at(kernel: Kernel, place: int) -> int:
    return (place + int(_REL.unpack(kernel.read(place, 4))[0])) & _MASK


def _records(kernel: Kernel, start: int, stop: int, record: struct.Struct) -> Iterator[tuple[int, tuple[int, ...]]]:
    size = (stop - start) // record.size * record.size
    if not size:
        return iter(())
    return zip(range(start, stop, record.size), record.iter_unpack(kernel.read(start, size)), strict=False)
