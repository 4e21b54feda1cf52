"""Coverage of many tests added up: for each source file, in how many tests each line and function ran."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kobox.debug.coverage.lines import ModuleLines
from kobox.debug.dwarf import ModuleDebug
from kobox.errors import BadFile
from kobox.kernel.coverage import ModuleRun
from kobox.ko import parse_module


@dataclass(slots=True)
class FileCoverage:
    """One source file. A count is the number of tests in which a line ran, or a function was entered."""

    lines: dict[int, int] = field(default_factory=dict)
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(line, count) by name."""

    @property
    def covered(self) -> int:
        """How many lines ran."""
        return sum(1 for count in self.lines.values() if count)

    @property
    def percent(self) -> float:
        return 100 * self.covered / len(self.lines) if self.lines else 100.0

    def missing(self) -> list[tuple[int, int]]:
        """Lines that did not run, as (first, last) without a line in between that did."""
        ranges: list[tuple[int, int]] = []
        going = False
        for line in sorted(self.lines):
            if self.lines[line]:
                going = False
            elif going:
                ranges[-1] = (ranges[-1][0], line)
            else:
                ranges.append((line, line))
                going = True
        return ranges


class Collected:
    """``only``: names of the modules that count; empty for all. ``folders``: where sources are looked for that do not
    lie where the compiler had them."""

    def __init__(self, only: Iterable[str] = (), folders: Iterable[Path] = ()) -> None:
        self.only = frozenset(name.replace("-", "_") for name in only)
        self.files: dict[str, FileCoverage] = {}
        self.modules: set[str] = set()
        """Modules that were seen."""
        self.without_lines: set[str] = set()
        """Modules that have no debug data."""
        self.damaged: dict[str, str] = {}
        """What is wrong with the debug data of modules that have unusable ones."""
        self._folders = tuple(folders)
        self._lines: dict[str, ModuleLines] = {}
        self._paths: dict[str, str] = {}

    def add(self, runs: Iterable[ModuleRun]) -> None:
        """What ran in one test."""
        lines: set[tuple[str, int]] = set()
        functions: set[tuple[str, str]] = set()
        for run in runs:
            if self.only and run.name.replace("-", "_") not in self.only:
                continue
            module = self._module(run)
            covered, entered = module.covered(run.blocks)
            lines |= covered
            functions |= {(one.file, one.name) for one in entered}
        for file, line in lines:
            self.files[self._paths[file]].lines[line] += 1
        for file, name in functions:
            known = self.files[self._paths[file]].functions
            known[name] = (known[name][0], known[name][1] + 1)

    def _module(self, run: ModuleRun) -> ModuleLines:
        """The lines of a module's file; when it is new, all of them are known as not run."""
        if run.key not in self._lines:
            found = self._lines[run.key] = self._read(run)
            self.modules.add(run.name)
            for file, line in found.lines:
                self._file(file).lines.setdefault(line, 0)
            for one in found.functions:
                self._file(one.file).functions.setdefault(one.name, (one.line, 0))
        return self._lines[run.key]

    def _read(self, run: ModuleRun) -> ModuleLines:
        debug = ModuleDebug(parse_module(run.data, run.name).elf, run.name)
        try:
            coded = list(debug.coded_lines()) if debug.has_lines else []
        except BadFile as error:
            self.damaged[run.name], coded = str(error), []
        else:
            if not debug.has_lines:
                self.without_lines.add(run.name)
        return ModuleLines(debug, coded)

    def _file(self, file: str) -> FileCoverage:
        if file not in self._paths:
            self._paths[file] = self._place_of(file)
        return self.files.setdefault(self._paths[file], FileCoverage())

    def _place_of(self, file: str) -> str:
        """Where a source is: as the compiler had it, or the longest end of that path below one of the folders."""
        if Path(file).is_file():
            return file
        parts = Path(file).parts
        tails = [Path(*parts[skip:]) for skip in range(1, len(parts))]
        here = (folder / tail for tail in tails for folder in self._folders)
        return next((str(path) for path in here if path.is_file()), file)

    # -- between processes ------------------------------------------------------------------------------------------

    def as_data(self) -> dict[str, Any]:
        """Everything as plain lists and dictionaries, for ``merge`` in another process."""
        return {
            "modules": sorted(self.modules),
            "without_lines": sorted(self.without_lines),
            "damaged": self.damaged,
            "files": {
                path: [
                    sorted(file.lines.items()),
                    [(name, line, count) for name, (line, count) in sorted(file.functions.items())],
                ]
                for path, file in self.files.items()
            },
        }

    def merge(self, data: dict[str, Any]) -> None:
        """Add what another process collected."""
        self.modules |= set(data["modules"])
        self.without_lines |= set(data["without_lines"])
        self.damaged |= data["damaged"]
        for path, (lines, functions) in data["files"].items():
            file = self.files.setdefault(path, FileCoverage())
            for line, count in lines:
                file.lines[line] = file.lines.get(line, 0) + count
            for name, line, count in functions:
                file.functions[name] = (line, file.functions.get(name, (line, 0))[1] + count)
