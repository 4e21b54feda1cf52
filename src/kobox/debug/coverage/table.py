"""Coverage as a table for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kobox.debug.coverage.collected import FileCoverage


def table_lines(files: Mapping[str, FileCoverage], relative_to: Path) -> Iterator[str]:
    """A line per source file, with the lines that did not run, and a total."""
    names = {path: shown_path(path, relative_to) for path in sorted(files)}
    width = max([len(name) for name in names.values()] + [len("file"), len("total")])
    yield f"{'file':<{width}}  {'lines':>6}  {'missed':>6}  {'run':>5}  not run"
    for path, name in names.items():
        file = files[path]
        missing = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in file.missing())
        yield f"{_row(name, width, len(file.lines), file.covered)}  {missing}".rstrip()
    total, covered = totals(files)
    yield _row("total", width, total, covered)


def _row(name: str, width: int, lines: int, covered: int) -> str:
    return f"{name:<{width}}  {lines:>6}  {lines - covered:>6}  {percent(lines, covered):>4.0f}%"


def totals(files: Mapping[str, FileCoverage]) -> tuple[int, int]:
    """(lines, lines that ran) of all files."""
    return sum(len(file.lines) for file in files.values()), sum(file.covered for file in files.values())


def percent(lines: int, covered: int) -> float:
    """100 only when everything ran."""
    return 100.0 if lines == covered else min(99.0, 100 * covered / lines)


def shown_path(path: str, relative_to: Path) -> str:
    """Relative where the file lies below that folder."""
    found = os.path.relpath(path, relative_to)
    return path if found.startswith("..") else found
