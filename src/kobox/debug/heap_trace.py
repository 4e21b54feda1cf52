"""Findings of the memory checker for people and for JSON: traces are unwound, named and given source lines here.

A trace was taken as registers and a copy of the stack; it is walked as the guest's own unwinder would have walked it
then, with the modules of that moment, whether they are still loaded or not.
"""

from __future__ import annotations

import struct
from typing import Any

from kobox.debug.dwarf import ModuleDebug, Place
from kobox.debug.live import LiveGuest
from kobox.debug.orc import OrcEntry, OrcTable
from kobox.debug.records import Frame, Registers, SourceLine, Symbol
from kobox.debug.unwind import Stack, walk
from kobox.errors import BadFile
from kobox.kernel.guest import Guest
from kobox.kernel.heapcheck import HeapCheck
from kobox.kernel.heapcheck_records import HeapObject, MemoryFault, ModuleCode, Trace, code_at
from kobox.ko import parse_module


class PastGuest(LiveGuest):
    """The guest as it was when a trace was taken, as far as a stack walk looks at it."""

    def __init__(self, guest: Guest, trace: Trace, tables: dict[int, OrcTable | None]) -> None:
        super().__init__(guest)
        self._trace = trace
        self._tables = tables
        self._start = trace.sp - 8
        self._content = struct.pack("<Q", trace.ip) + trace.stack

    def read(self, addr: int, size: int) -> bytes | None:
        at = addr - self._start
        if at >= 0 and at + size <= len(self._content):
            return self._content[at : at + size]
        return super().read(addr, size)

    def stack_at(self, addr: int) -> Stack | None:
        stack = Stack("TASK", self._start, self._start + len(self._content))
        return stack if stack.holds(addr, 1) else None

    def is_text(self, addr: int) -> bool:
        return self._code_at(addr) is not None or any(addr in part for part in self._kernel_code)

    def find_orc(self, ip: int) -> OrcEntry | None:
        code = self._code_at(ip)
        if code is None:
            return super().find_orc(ip) if any(ip in part for part in self._kernel_code) else None
        if id(code) not in self._tables:
            self._tables[id(code)] = self._table_of(code)
        table = self._tables[id(code)]
        return table.find(ip) if table is not None else None

    def symbolize(self, address: int) -> Symbol | None:
        code = self._code_at(address)
        if code is None:
            found = self._image.symbols.at(address)
            return Symbol(found.name, found.offset, found.size) if found and self.is_text(address) else None
        known = code.symbol_at(address)
        return Symbol(*known, code.name) if known is not None else None

    def frames(self) -> list[Frame]:
        """The reliable part of the trace, innermost first."""
        trace = self._trace
        start = Registers(ip=trace.ip, sp=trace.sp, bp=trace.bp)
        items = walk(self, start, self.symbolize, interrupted=False)
        return [item for item in items if isinstance(item, Frame) and item.reliable]

    def _code_at(self, address: int) -> ModuleCode | None:
        return code_at(self._trace.codes, address)

    def _table_of(self, code: ModuleCode) -> OrcTable | None:
        sections = {section.name: section.index for section in code.view.sections}
        ips, entries = sections.get(".orc_unwind_ip"), sections.get(".orc_unwind")
        if ips is None or entries is None or self._layout is None:
            return None
        windows = code.layout.windows(code.view, code.memory)
        ip_window, entry_window = windows[ips], windows[entries]
        if ip_window is None or entry_window is None:
            return None
        return OrcTable.from_bytes(self._layout, code.addresses[ips], ip_window, entry_window)


class HeapReporter:
    """Makes the records of one guest's findings."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._tables: dict[int, OrcTable | None] = {}
        self._debug: dict[int, ModuleDebug] = {}

    def leaks(self, heap: HeapCheck) -> tuple[dict[str, Any], ...]:
        """What nobody has freed of modules that are gone, oldest first."""
        return tuple(self._leak(one) for one in heap.leaks())

    def faults(self, heap: HeapCheck) -> tuple[dict[str, Any], ...]:
        """Everything found so far, in its order."""
        return tuple(self._fault(fault) for fault in heap.state.faults)

    def _leak(self, one: HeapObject) -> dict[str, Any]:
        age = self._guest.machine.clock.now - one.allocated.time
        return {
            "address": f"{one.address:#x}",
            "size": one.size,
            "module": one.owner.name,
            "pool": one.pool.value,
            "age": round(age / 1e9, 6),
            "trace": self.trace(one.allocated),
        }

    def _fault(self, fault: MemoryFault) -> dict[str, Any]:
        return {
            "kind": fault.fault.value,
            "text": fault.text,
            "address": f"{fault.address:#x}",
            "size": fault.size,
            "offset": fault.offset,
            "count": fault.count,
            "module": fault.module,
            "time": fault.time / 1e9,
            "allocated": self.trace(fault.allocated),
            "freed": self.trace(fault.freed),
            "found": self.trace(fault.found),
        }

    def trace(self, trace: Trace | None) -> list[dict[str, Any]]:
        """The frames of a trace, innermost first.

        ``source`` is ``file:line`` where the module was built with debug data, else null; ``inlined`` are the places
        inside functions that were inlined there, innermost first.
        """
        if trace is None:
            return []
        frames = PastGuest(self._guest, trace, self._tables).frames()
        return [self._frame(trace, frame) for frame in frames]

    def _frame(self, trace: Trace, frame: Frame) -> dict[str, Any]:
        *inlined, own = (*self._lines(trace, frame.address or 0),) or (None,)
        return {
            "symbol": str(frame.symbol) if frame.symbol else f"{frame.address or 0:#x}",
            "source": str(own) if own is not None else None,
            "inlined": [str(line) for line in inlined],
        }

    def _lines(self, trace: Trace, address: int) -> tuple[SourceLine, ...]:
        code = code_at(trace.codes, address - 1)
        if code is None:
            return ()
        place = next(
            (
                Place(section.index, address - at)
                for section, at in zip(code.view.sections, code.addresses, strict=True)
                if at and at < address <= at + section.size
            ),
            None,
        )
        try:
            if id(code) not in self._debug:
                self._debug[id(code)] = ModuleDebug(parse_module(bytes(code.view.data), code.name).elf, code.name)
            debug = self._debug[id(code)]
            return tuple(debug.locate(place, True)) if place is not None and debug.has_lines else ()
        except BadFile:
            return ()  # damaged debug data takes no report away
