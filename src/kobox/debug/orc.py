"""The ORC tables that objtool leaves in a kernel and its modules: how to leave a function, for each code address.

Two parallel arrays, sorted by address: ``.orc_unwind_ip`` (32-bit offsets, each relative to its own place) and
``.orc_unwind`` (``struct orc_entry``). The bit layout of the entry differs between releases and is taken from BTF; what
its ``type`` numbers mean follows from which members exist. Follows ``arch/x86/include/asm/orc_types.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from kobox.errors import BadFile


class OrcReg(IntEnum):
    """Base registers of an entry."""

    UNDEFINED = 0
    PREV_SP = 1
    DX = 2
    DI = 3
    BP = 4
    SP = 5
    R10 = 6
    R13 = 7
    BP_INDIRECT = 8
    SP_INDIRECT = 9


class OrcType(Enum):
    """What lies between a frame and the one before it."""

    UNDEFINED = auto()
    END_OF_STACK = auto()
    CALL = auto()
    REGS = auto()
    REGS_PARTIAL = auto()


_OLD_TYPES = (OrcType.CALL, OrcType.REGS, OrcType.REGS_PARTIAL)
_NEW_TYPES = (OrcType.UNDEFINED, OrcType.END_OF_STACK, *_OLD_TYPES)
"""Since fb799447ae29 (6.4) "undefined" and "end of stack" are types of their own and the ``end`` bit is gone."""


class OrcEntry(NamedTuple):
    """One decoded entry. ``signal``: the frame was interrupted, its address is that of the next instruction to run."""

    sp_reg: int
    sp_offset: int
    bp_reg: int
    bp_offset: int
    type: OrcType
    signal: bool


class Bits(NamedTuple):
    """Where a member lies in the entry, counted from its lowest bit."""

    offset: int
    size: int

    def of(self, value: int) -> int:
        return value >> self.offset & ((1 << self.size) - 1)

    def signed_of(self, value: int) -> int:
        raw = self.of(value)
        return raw - (1 << self.size) if raw >> (self.size - 1) else raw


@dataclass(frozen=True, slots=True)
class OrcLayout:
    """``struct orc_entry`` of one kernel."""

    size: int
    sp_offset: Bits
    bp_offset: Bits
    sp_reg: Bits
    bp_reg: Bits
    type: Bits
    end: Bits | None = None
    signal: Bits | None = None

    @classmethod
    def from_members(cls, size: int, members: Mapping[str, tuple[int, int]]) -> OrcLayout:
        """From BTF: the structure's size in bytes and each member's (bit offset, bit size)."""
        needed = ("sp_offset", "bp_offset", "sp_reg", "bp_reg", "type")
        missing = [name for name in needed if name not in members]
        if missing:
            raise BadFile("BTF", "struct orc_entry", f"members missing: {', '.join(missing)}", sorted(members))
        optional = {name: Bits(*members[name]) for name in ("end", "signal") if name in members}
        return cls(size, *(Bits(*members[name]) for name in needed), **optional)

    def decode(self, raw: bytes) -> OrcEntry:
        value = int.from_bytes(raw, "little")
        sp_reg, number = self.sp_reg.of(value), self.type.of(value)
        if self.end is None:
            kind = _NEW_TYPES[number] if number < len(_NEW_TYPES) else OrcType.UNDEFINED
        elif sp_reg == OrcReg.UNDEFINED:
            kind = OrcType.END_OF_STACK if self.end.of(value) else OrcType.UNDEFINED
        else:
            kind = _OLD_TYPES[number] if number < len(_OLD_TYPES) else OrcType.UNDEFINED
        if self.signal is None:
            signal = kind in (OrcType.REGS, OrcType.REGS_PARTIAL)
        else:
            signal = bool(self.signal.of(value))
        return OrcEntry(
            sp_reg,
            self.sp_offset.signed_of(value),
            self.bp_reg.of(value),
            self.bp_offset.signed_of(value),
            kind,
            signal,
        )


Buffer = bytes | bytearray | memoryview


class OrcTable:
    """One kernel's or module's tables. ``find`` is a binary search over the bytes; nothing is unpacked ahead.

    ``read`` gives the bytes behind an address range of the guest, so that a table of a running guest is read where it
    lies; a table from a file is wrapped by ``OrcTable.from_bytes``.
    """

    def __init__(
        self, layout: OrcLayout, ip_addr: int, entry_addr: int, count: int, read: Callable[[int, int], bytes]
    ) -> None:
        self.layout, self.ip_addr, self.entry_addr, self.count, self._read = layout, ip_addr, entry_addr, count, read

    @classmethod
    def from_bytes(cls, layout: OrcLayout, ip_addr: int, ips: Buffer, entries: Buffer) -> OrcTable:
        """``ips`` is the content of ``.orc_unwind_ip`` as loaded at ``ip_addr``, sorted; ``entries`` its companion."""
        count = len(ips) // 4
        if len(ips) % 4 or len(entries) != count * layout.size:
            raise BadFile("orc", ".orc_unwind", "table size", len(entries), count * layout.size)
        ip_view, entry_view = memoryview(ips), memoryview(entries)
        entry_addr = ip_addr + len(ips)

        def read(addr: int, size: int) -> bytes:
            at = addr - ip_addr
            if at < len(ip_view):
                return bytes(ip_view[at : at + size])
            return bytes(entry_view[at - len(ip_view) : at - len(ip_view) + size])

        return cls(layout, ip_addr, entry_addr, count, read)

    def address(self, index: int) -> int:
        """The code address where entry ``index`` begins to hold."""
        place = self.ip_addr + 4 * index
        return place + int(struct.unpack("<i", self._read(place, 4))[0]) & (1 << 64) - 1

    def find(self, ip: int) -> OrcEntry | None:
        """The last entry that begins at or before ``ip``; the first one when ``ip`` lies before all of them."""
        if not self.count:
            return None
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.address(middle) <= ip:
                low = middle + 1
            else:
                high = middle
        index = max(low - 1, 0)
        return self.layout.decode(self._read(self.entry_addr + index * self.layout.size, self.layout.size))


def sort_module_tables(layout: OrcLayout, ip_addr: int, ips: bytearray, entries: bytearray) -> None:
    """Sort a module's freshly relocated tables in place, as ``unwind_module_init`` does at load.

    The offsets are relative to their own place, so they change when they move. Section terminators go before real
    entries of the same address, so that ``find`` prefers the real one.
    """
    size, count = layout.size, len(ips) // 4
    offsets = struct.unpack(f"<{count}i", ips)
    raw = [bytes(entries[at : at + size]) for at in range(0, count * size, size)]

    def key(index: int) -> tuple[int, bool]:
        return 4 * index + offsets[index], layout.decode(raw[index]).type is not OrcType.UNDEFINED

    order = sorted(range(count), key=key)
    struct.pack_into(f"<{count}i", ips, 0, *(4 * old + offsets[old] - 4 * new for new, old in enumerate(order)))
    entries[: count * size] = b"".join(raw[old] for old in order)
