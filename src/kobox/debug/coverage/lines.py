"""Which source lines a module's code came from, and which of them a set of blocks covers.

A line counts as run when any of its code did. Lines of the module's own sources are meant: files in or below the
folders of the files that were compiled. Inlined functions of the kernel's headers have no lines here, nor has the file
that modpost generates.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from kobox.debug.dwarf import CodedLine, ModuleDebug
from kobox.elf import SHF, STT

_GENERATED = ".mod.c"
_ALIASES = frozenset({"init_module", "cleanup_module"})
"""Second names that every module has for its first and last function."""

Block = tuple[int, int]
Line = tuple[str, int]


class Function(NamedTuple):
    """A function of the module: the line its code begins with, and where that is."""

    file: str
    line: int
    name: str
    section_idx: int
    offset: int


class ModuleLines:
    """The line table of one module file (``coded``: as its debug data gives it), asked for blocks of its code.

    Files are named as the compiler was told, with the folder it ran in.
    """

    def __init__(self, debug: ModuleDebug, coded: Iterable[CodedLine]) -> None:
        self._debug = debug
        self._coded = [_normal(one) for one in coded]
        self._known: dict[tuple[int, Block], frozenset[Line]] = {}

    @cached_property
    def _runs(self) -> dict[int, list[tuple[int, int, Line]]]:
        """(start, end, line) by section, sorted."""
        primaries = {one.primary for one in self._coded if not one.primary.endswith(_GENERATED)}
        folders = {posixpath.dirname(primary) + "/" for primary in primaries}
        runs: dict[int, list[tuple[int, int, Line]]] = {}
        for one in self._coded:
            if one.primary in primaries and any(one.file.startswith(folder) for folder in folders):
                start = one.place.offset
                runs.setdefault(one.place.section_idx, []).append((start, start + one.size, (one.file, one.line)))
        for found in runs.values():
            found.sort()
        return runs

    @cached_property
    def lines(self) -> frozenset[Line]:
        """Every line that has code."""
        return frozenset(line for runs in self._runs.values() for _, _, line in runs)

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """Functions of the module's own sources, each under one name, by file and line."""
        symbols = self._debug.elf.symbols
        sections = self._debug.elf.sections
        found: dict[tuple[int, int], Function] = {}
        rows = zip(symbols.names, symbols.shndxs, symbols.values, symbols.infos, strict=True)
        for name, section_idx, offset, info in rows:
            if info & 0xF != STT.FUNC or not 0 < section_idx < len(sections) or ".cold" in name:
                continue
            if not sections[section_idx].flags & SHF.EXECINSTR or (name in _ALIASES and (section_idx, offset) in found):
                continue
            line = next(self._lines_at(section_idx, offset, 1), None)
            if line is not None:
                plain = name.partition(".")[0]  # name.isra.0, name.constprop.0: what the compiler made of it
                found[section_idx, offset] = Function(*line, plain, section_idx, offset)
        return tuple(sorted(found.values()))

    def covered(self, blocks: Mapping[int, Iterable[Block]]) -> tuple[set[Line], set[Function]]:
        """The lines that these blocks (by section number) have code of, and the functions that they enter."""
        lines: set[Line] = set()
        entered = set()
        for section_idx, found in blocks.items():
            for block in found:
                key = (section_idx, block)
                if key not in self._known:
                    self._known[key] = frozenset(self._lines_at(section_idx, *block))
                lines |= self._known[key]
                entered.add((section_idx, block[0]))
        return lines, {one for one in self.functions if (one.section_idx, one.offset) in entered}

    def _lines_at(self, section_idx: int, offset: int, size: int) -> Iterator[Line]:
        runs = self._runs.get(section_idx, [])
        at = bisect_right(runs, offset, key=lambda run: run[0]) - 1
        for start, end, line in runs[max(at, 0) :]:
            if start >= offset + size:
                return
            if end > offset:
                yield line


def _normal(one: CodedLine) -> CodedLine:
    return one._replace(file=posixpath.normpath(one.file), primary=posixpath.normpath(one.primary))
