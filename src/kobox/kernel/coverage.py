"""Which code of which module ran: from the machine's notes to offsets in the sections of module files.

Init code counts too, although it is freed after init: notes are about addresses, and what was noted of a module is
taken before another module's code comes to the same place, before a reset, and when somebody asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kobox.elf import SHF
from kobox.link import LoadView
from kobox.machine.blocks import BlockWatch, WatchedCode
from kobox.machine.unicorn_abi import Unicorn

Block = tuple[int, int]
"""(offset in the section, size) of code that ran, in bytes."""


class ModuleRun(NamedTuple):
    """What ran of one module file. ``key`` tells builds of a module apart; ``data`` is the file."""

    name: str
    key: str
    data: bytes
    blocks: Mapping[int, frozenset[Block]]
    """By section number."""


Placed = tuple[str, int, WatchedCode]
"""(module file, section, its code)."""


class CodeCoverage:
    """What modules loaded by kobox's own loader ran, since the last ``take``. Outlives resets."""

    def __init__(self, cpu: Unicorn) -> None:
        self._watch = BlockWatch(cpu)
        self._files: dict[str, tuple[str, bytes]] = {}
        """Name and content of every file that was linked, by its key."""
        self._blocks: dict[str, dict[int, frozenset[Block]]] = {}
        """What ran since the last ``take``, of the files that are or were loaded in that time."""
        self._placed: list[Placed] = []
        """Everything that was linked since the state that a reset goes back to, and what was there then."""

    def use(self, cpu: Unicorn) -> None:
        """Go on with another CPU, on which nothing is loaded; the one before may be closed then."""
        self.restore(())
        self._watch = BlockWatch(cpu)

    def module_linked(self, name: str, view: LoadView, addresses: Sequence[int]) -> None:
        """A module's code is in place and will run next."""
        self._collect()
        data = bytes(view.data)
        key = hashlib.sha256(data).hexdigest()
        self._files.setdefault(key, (name, data))
        self._blocks.setdefault(key, {})
        for number, section in enumerate(view.sections):
            if section.flags & SHF.ALLOC and section.flags & SHF.EXECINSTR and section.size:
                self._placed.append((key, number, self._watch.watch(addresses[number], section.size)))

    def capture(self) -> tuple[Placed, ...]:
        """What ``restore`` needs: which modules are loaded now."""
        return tuple(self._placed)

    def restore(self, placed: Sequence[Placed]) -> None:
        """Before the guest goes back to a captured state: keep what was noted, expect the code of then."""
        self._collect()
        self._placed = list(placed)

    def take(self) -> tuple[ModuleRun, ...]:
        """What ran since the last call: of each module file that was loaded in that time."""
        self._collect()
        runs = tuple(ModuleRun(self._files[key][0], key, self._files[key][1], ran) for key, ran in self._blocks.items())
        self._blocks = {key: {} for key, _, _ in self._placed}
        return runs

    def _collect(self) -> None:
        for key, number, code in self._placed:
            ran = code.ran()
            if ran:
                blocks = self._blocks.setdefault(key, {})
                blocks[number] = blocks.get(number, frozenset()) | ran
                code.clear()
