"""A tiny kernel for the tests: memory as written, one task stack, functions with names and ORC entries."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from kobox.abi.traps import PT_REGS
from kobox.debug.orc import OrcEntry, OrcReg, OrcType
from kobox.debug.records import Symbol
from kobox.debug.unwind import Stack

STACK = Stack("TASK", 0xFFFFC90000010000, 0xFFFFC90000014000)
TEXT = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0000000


def call(sp_offset: int = 8) -> OrcEntry:
    """A function whose frame takes ``sp_offset`` bytes, return address included."""
    return OrcEntry(OrcReg.SP, sp_offset, OrcReg.UNDEFINED, 0, OrcType.CALL, False)


def regs_entry(partial: bool = False) -> OrcEntry:
    kind = OrcType.REGS_PARTIAL if partial else OrcType.REGS
    return OrcEntry(OrcReg.SP, 0, OrcReg.UNDEFINED, 0, kind, True)


END = OrcEntry(OrcReg.UNDEFINED, 0, OrcReg.UNDEFINED, 0, OrcType.END_OF_STACK, False)


@dataclass
class World:
    """Implements the walk's ``Guest`` and ``Symbolizer`` protocols."""

    functions: list[tuple[int, int, str, str | None, OrcEntry | None]] = field(default_factory=list)
    memory: dict[int, bytes] = field(default_factory=dict)
    stacks: list[Stack] = field(default_factory=lambda: [STACK])

    def function(
        self, name: str, orc: OrcEntry | None, module: str | None = None, size: int = 0x100, at: int | None = None
    ) -> int:
        """Add a function and answer its address."""
        if at is None:
            at = (MODULE if module else TEXT) + 0x1000 * len(self.functions)
        self.functions.append((at, size, name, module, orc))
        return at

    def write(self, addr: int, *words: int) -> None:
        for index, word in enumerate(words):
            self.memory[addr + 8 * index] = struct.pack("<Q", word)

    def write_regs(self, addr: int, **named: int) -> None:
        self.write(addr, *(named.get(name, 0) for name in PT_REGS._fields))

    def read(self, addr: int, size: int) -> bytes | None:
        for stack in self.stacks:
            if stack.holds(addr, size):
                words = range(addr & ~7, addr + size, 8)
                whole = b"".join(self.memory.get(at, bytes(8)) for at in words)
                return whole[addr & 7 :][:size]
        for at, data in self.memory.items():
            if at <= addr and addr + size <= at + len(data):
                return data[addr - at :][:size]
        return None

    def stack_at(self, addr: int) -> Stack | None:
        return next((stack for stack in self.stacks if stack.begin <= addr < stack.end), None)

    def is_text(self, addr: int) -> bool:
        return self._at(addr) is not None

    def find_orc(self, ip: int) -> OrcEntry | None:
        found = self._at(ip)
        return found and found[4]

    def symbolize(self, address: int) -> Symbol | None:
        found = self._at(address)
        return found and Symbol(found[2], address - found[0], found[1], found[3])

    def _at(self, addr: int):
        return next((one for one in self.functions if one[0] <= addr < one[0] + one[1]), None)
