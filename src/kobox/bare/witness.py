"""The bare kernel as ``debug`` looks at it: memory, stack, unwind tables, names; of now or of an earlier moment."""

from __future__ import annotations

import struct
from typing import Any

from kobox.bare.calls import RETURN_NAME
from kobox.bare.guest import BareGuest
from kobox.debug.orc import OrcEntry, OrcLayout, OrcReg, OrcTable, OrcType
from kobox.debug.records import Frame, Registers, Symbol
from kobox.debug.unwind import Stack, walk
from kobox.errors import GuestError
from kobox.kernel.heapcheck_records import ModuleCode, Trace

_LEAF = OrcEntry(OrcReg.SP, 8, OrcReg.UNDEFINED, 0, OrcType.CALL, False)
"""A stub: its return address is on top of the stack."""
_END = OrcEntry(OrcReg.UNDEFINED, 0, OrcReg.UNDEFINED, 0, OrcType.END_OF_STACK, False)
_MEMBERS = ("sp_offset", "bp_offset", "sp_reg", "bp_reg", "type", "end")


class Witness:
    """What a stack walk asks. ``trace``: the stack of then instead of the one of now."""

    def __init__(self, guest: BareGuest, trace: Trace | None = None) -> None:
        self._guest = guest
        self._codes = trace.codes if trace is not None else guest.codes
        self._start = trace.sp - 8 if trace is not None else guest.stack.start
        self._content = struct.pack("<Q", trace.ip) + trace.stack if trace is not None else b""
        self._tables: dict[int, OrcTable | None] = {}

    def read(self, addr: int, size: int) -> bytes | None:
        at = addr - self._start
        if self._content and at >= 0 and at + size <= len(self._content):
            return self._content[at : at + size]
        try:
            return self._guest.read(addr, size)
        except GuestError:
            return None

    def stack_at(self, addr: int) -> Stack | None:
        end = self._start + len(self._content) if self._content else self._guest.stack.stop
        stack = Stack("TASK", self._start, end)
        return stack if stack.holds(addr, 1) else None

    def is_text(self, addr: int) -> bool:
        return self._code_at(addr) is not None or self._guest.is_kernel_text(addr)

    def find_orc(self, ip: int) -> OrcEntry | None:
        code = self._code_at(ip)
        if code is None:
            known = self._guest.symbols.at(ip)
            if known is None:
                return None
            return _END if known[0] == RETURN_NAME else _LEAF
        if id(code) not in self._tables:
            self._tables[id(code)] = self._table_of(code)
        table = self._tables[id(code)]
        return table.find(ip) if table is not None else None

    def symbolize(self, address: int, /) -> Symbol | None:
        code = self._code_at(address)
        if code is None:
            kernel = self._guest.symbols.at(address)
            return Symbol(*kernel) if kernel is not None else None
        found = code.symbol_at(address)
        if found is None:
            return None
        name, offset, _ = found
        return Symbol(name, offset, self._extent(code, address - offset), code.name)

    def _extent(self, code: ModuleCode, start: int) -> int:
        """A symbol's size as the kernel says it: up to the next one, or to the end of the text it lies in."""
        end = next((stop for first, stop in code.ranges if first <= start < stop), start)
        return min((address for _, address in code.names() if start < address < end), default=end) - start

    def _code_at(self, address: int) -> ModuleCode | None:
        return next((code for code in self._codes if address in code), None)

    def _table_of(self, code: ModuleCode) -> OrcTable | None:
        sections = {section.name: section.index for section in code.view.sections}
        ips, entries = sections.get(".orc_unwind_ip"), sections.get(".orc_unwind")
        if ips is None or entries is None:
            return None
        windows = code.layout.windows(code.view, code.memory)
        ip_window, entry_window = windows[ips], windows[entries]
        if ip_window is None or entry_window is None:
            return None
        layouts = self._guest.layouts
        fields = {name: layouts.field("orc_entry", name) for name in _MEMBERS if layouts.has("orc_entry", name)}
        members = {
            name: (f.bit_offset if f.bit_size else f.offset * 8, f.bit_size or f.size * 8) for name, f in fields.items()
        }
        layout = OrcLayout.from_members(layouts.size("orc_entry"), members)
        return OrcTable.from_bytes(layout, code.addresses[ips], ip_window, entry_window)


def frames_of(guest: BareGuest, trace: Trace) -> list[dict[str, Any]]:
    """The reliable frames of a trace, innermost first, as reports show them."""
    witness = Witness(guest, trace)
    start = Registers(ip=trace.ip, sp=trace.sp, bp=trace.bp)
    items = walk(witness, start, witness.symbolize, interrupted=False)
    frames = [item for item in items if isinstance(item, Frame) and item.reliable]
    return [
        {
            "symbol": str(frame.symbol) if frame.symbol else f"{frame.address or 0:#x}",
            "source": None,
            "inlined": [],
        }
        for frame in frames
    ]
