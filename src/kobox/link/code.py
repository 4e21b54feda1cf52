"""A module's memory by address, with a record of every byte that patching changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Patch(NamedTuple):
    """``code`` was written at ``address``; ``why`` names the kind of site."""

    address: int
    code: bytes
    why: str


@dataclass(slots=True)
class Code:
    """Regions at their addresses. Writes go to the memory itself and are noted in ``patches``, in order.

    ``doubts`` says what no compiler makes and a kernel warns about.
    """

    memory: Mapping[str, memoryview | bytearray]
    bases: Mapping[str, int]
    patches: list[Patch] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def find(self, address: int) -> tuple[memoryview, int] | None:
        """The region holding ``address`` and the offset in it; None outside the module."""
        for name, base in self.bases.items():
            memory = self.memory[name]
            if 0 <= address - base < len(memory):
                return memoryview(memory), address - base
        return None

    def read(self, address: int, size: int) -> bytes:
        """Up to ``size`` bytes, fewer at the end of a region, none outside the module."""
        found = self.find(address)
        return bytes(found[0][found[1] : found[1] + size]) if found else b""

    def write(self, address: int, code: bytes, why: str) -> None:
        """Change bytes; a site outside the module is left alone, as are bytes that are right already."""
        found = self.find(address)
        if found is None or found[1] + len(code) > len(found[0]):
            return
        memory, at = found
        if memory[at : at + len(code)] != code:
            memory[at : at + len(code)] = code
            self.patches.append(Patch(address, code, why))
