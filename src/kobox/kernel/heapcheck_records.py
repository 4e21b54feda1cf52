"""What the memory checker knows: objects, where they were allocated and freed, and its findings. Records only.

A ``Trace`` is taken in microseconds: three registers and a copy of the stack's top. It is unwound, by
``debug.heap_trace``, only when somebody wants to see it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from kobox.link import Layout, LoadView, symbol_table
from kobox.link.resolve import symbol_name

_SHF_EXECINSTR = 4


class ModuleCode:
    """Code of one module as it was loaded; it outlives the module, so that a leak's trace still has names."""

    def __init__(
        self, name: str, view: LoadView, layout: Layout, bases: Mapping[str, int], addresses: list[int]
    ) -> None:
        self.name, self.view, self.layout, self.bases, self.addresses = name, view, layout, bases, addresses
        self.memory: Mapping[str, bytearray] = {}
        """The linked regions, for the unwinder's tables."""
        self.ranges = tuple(
            (base, base + region.text_size)
            for region_name, region in layout.regions.items()
            if (base := bases.get(region_name, 0)) and region.text_size and "text" in (region_name, *_TEXT[region_name])
        )

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and any(start <= address < end for start, end in self.ranges)

    def symbol_at(self, address: int) -> tuple[str, int, int] | None:
        """(name, offset, size) of the function that covers an address."""
        starts, rows = self._functions
        index = bisect_right(starts, address) - 1
        if index < 0 or address not in self:
            return None
        start, size, number = rows[index]
        following = starts[index + 1] if index + 1 < len(starts) else start + size
        return symbol_name(self.view, symbol_table(self.view), number), address - start, size or following - start

    def names(self) -> Iterator[tuple[str, int]]:
        """(name, address) of every function."""
        table = symbol_table(self.view)
        for start, _, number in self._functions[1]:
            yield symbol_name(self.view, table, number), start

    @cached_property
    def _functions(self) -> tuple[list[int], list[tuple[int, int, int]]]:
        table = symbol_table(self.view)
        code = {s.index for s in self.view.sections if s.flags & _SHF_EXECINSTR and self.addresses[s.index]}
        rows: dict[int, tuple[int, int, int]] = {}
        for number, (value, size, shndx, info) in enumerate(
            zip(table.values, table.sizes, table.shndxs, table.infos, strict=True)
        ):
            if shndx in code and info & 15 in (0, 2) and table.name_offsets[number]:
                start = self.addresses[shndx] + value
                rows.setdefault(start, (start, size, number))  # the first name wins, as in the kernel
        ordered = sorted(rows.values())
        return [row[0] for row in ordered], ordered


_TEXT: dict[str, tuple[str, ...]] = {
    "core": ("text",), "init": ("text",), "text": ("text",), "init_text": ("text",),
    "data": (), "rodata": (), "ro_after_init": (), "init_data": (), "init_rodata": (),
}  # fmt: skip
"""Regions that begin with code."""


def code_at(codes: tuple[ModuleCode, ...], address: int) -> ModuleCode | None:
    """Whose code lies there; the newest, where it was loaded into the place of somebody's freed init code."""
    return next((code for code in reversed(codes) if address in code), None)


class Trace(NamedTuple):
    """Where the CPU stood: a return address, the stack pointer behind it, and the stack from there."""

    ip: int
    sp: int
    bp: int
    stack: bytes
    time: int
    codes: tuple[ModuleCode, ...]
    """The modules that were loaded then."""

    def module(self) -> ModuleCode | None:
        """Whose code made the call."""
        return code_at(self.codes, self.ip)


class Pool(Enum):
    """Who must be told to take an object back."""

    KMALLOC = "kmalloc"
    CACHE = "kmem_cache"
    VMALLOC = "vmalloc"


@dataclass(slots=True, eq=False)
class HeapObject:
    """One allocation of a module. ``redzone`` bytes behind it were filled with a pattern."""

    address: int
    size: int
    pool: Pool
    owner: ModuleCode
    allocated: Trace
    redzone: int = 0
    cache: int = 0
    freed: Trace | None = None
    """Where it was freed, or handed to ``kfree_rcu``."""
    promised: bool = False
    """``kfree_rcu`` will free it: not a leak."""
    kept: bytes | None = None
    """In quarantine: what a constructor made of it, put back before the cache gets it."""

    def copy(self) -> HeapObject:
        return HeapObject(
            self.address, self.size, self.pool, self.owner, self.allocated, self.redzone, self.cache, self.freed,
            self.promised, self.kept,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """A module's slab cache as the module asked for it. ``fixed``: its free objects must keep their content."""

    name: str
    size: int
    constructed: bool
    fixed: bool


class Fault(Enum):
    """What a module did to memory."""

    OVERRUN = "overrun"
    DOUBLE_FREE = "double-free"
    INVALID_FREE = "invalid-free"
    WRITE_AFTER_FREE = "write-after-free"
    LEAK = "leak"


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """One finding. ``text`` is its line in the kernel's log; ``offset`` and ``count`` say which bytes of the object."""

    fault: Fault
    text: str
    address: int
    size: int
    module: str
    time: int
    allocated: Trace | None = None
    freed: Trace | None = None
    found: Trace | None = None
    offset: int = 0
    count: int = 0


class Placed(NamedTuple):
    """What the checker has stored in kobox's pages, by name of the function where it is not by address.

    ``code``: every piece by its address; ``guards``: filters, ``guard_stubs``: the stubs they lead to, ``natives``: the
    functions behind them; ``free``: stubs of modules that are forgotten; ``unwatched``: what could not be guarded;
    ``stored``: whether the guest has the pieces in its memory now (a reset takes them away).
    """

    code: dict[int, bytes]
    guards: dict[str, int]
    guard_stubs: dict[str, int]
    natives: dict[str, int]
    free: list[int]
    unwatched: list[str]
    stored: bool


@dataclass(slots=True)
class HeapState:
    """Everything that a reset puts back."""

    objects: dict[int, HeapObject] = field(default_factory=dict)
    quarantine: dict[Pool, dict[int, HeapObject]] = field(default_factory=lambda: {pool: {} for pool in Pool})
    held: int = 0
    """Bytes in quarantine."""
    caches: dict[int, CacheFacts] = field(default_factory=dict)
    pages: dict[int, int] = field(default_factory=dict)
    """How many tracked objects begin in pages of each filter index."""
    faults: list[MemoryFault] = field(default_factory=list)
    codes: tuple[ModuleCode, ...] = ()
    stubs: dict[tuple[str, str], int] = field(default_factory=dict)
    """By name of the function and of the module that it was bound for."""
    guarded: bool = False

    def copy(self) -> HeapState:
        return HeapState(
            {address: one.copy() for address, one in self.objects.items()},
            {pool: {address: one.copy() for address, one in kept.items()} for pool, kept in self.quarantine.items()},
            self.held, dict(self.caches), dict(self.pages), list(self.faults), self.codes, dict(self.stubs),
            self.guarded,
        )  # fmt: skip
