"""KTAP as the kernel logs it (Documentation/dev-tools/ktap.rst, version 1): lines to results.

Other lines of the log stand between those of the tests; they are kept as notes of the test that ended next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_RESULT = re.compile(r"((?:    )*)(ok|not ok) (\d+)(?: (?:- )?([^#]*?))?(?: # ?(SKIP|TODO|XFAIL|TIMEOUT|ERROR) ?(.*))?")
_PLAN = re.compile(r"((?:    )*)1\.\.(\d+)")
_BEGIN = re.compile(r"((?:    )*)(?:KTAP version \d+|TAP version \d+|# Subtest: .*)")
_INDENT = 4


@dataclass(frozen=True, slots=True)
class Test:
    """One result. ``directive`` is SKIP and the like, ``why`` what stands behind it; ``missing`` counts tests that were
    announced below this one and never ended."""

    name: str
    ok: bool
    directive: str = ""
    why: str = ""
    notes: tuple[str, ...] = ()
    tests: tuple[Test, ...] = ()
    missing: int = 0

    @property
    def status(self) -> str:
        """pass, fail or skip."""
        if not self.ok or self.missing:
            return "fail"
        return "skip" if self.directive == "SKIP" else "pass"

    def leaves(self) -> Iterator[Test]:
        """The tests of which this one is made; itself, where it is made of none."""
        if not self.tests:
            yield self
        for test in self.tests:
            yield from test.leaves()

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "why": self.why,
            "missing": self.missing,
            "notes": list(self.notes),
            "tests": [test.as_data() for test in self.tests],
        }


@dataclass(frozen=True, slots=True)
class Ktap:
    """What a log has of KTAP. ``missing``: suites that were announced and never ended."""

    suites: tuple[Test, ...]
    missing: int = 0


def read_ktap(lines: Iterable[str]) -> Ktap:
    """The suites in the lines of a log (without times)."""
    found: dict[int, list[Test]] = {}
    planned: dict[int, int] = {}
    notes: list[str] = []
    begun = False
    for line in lines:
        if _BEGIN.fullmatch(line):
            begun = True
        elif plan := _PLAN.fullmatch(line):
            planned[len(plan[1]) // _INDENT] = int(plan[2])
        elif (result := _RESULT.fullmatch(line)) and begun:
            level = len(result[1]) // _INDENT
            below = found.pop(level + 1, [])
            missing = max(0, planned.pop(level + 1, len(below)) - len(below))
            directive, why = result[5] or "", result[6] or ""
            test = Test(result[4] or "", result[2] == "ok", directive, why, tuple(notes), tuple(below), missing)
            found.setdefault(level, []).append(test)
            notes = []
        elif begun:
            notes.append(line)
    suites = found.pop(0, [])
    return Ktap(tuple(suites), max(0, planned.pop(0, len(suites)) - len(suites)))


def renumbered(lines: Iterable[str], first: int) -> Iterator[str]:
    """The lines of one module's tests for a document of several: its head and plan left out, suites counted from
    ``first`` on. What the log says before and behind them is left out."""
    lines = list(lines)
    last = max((at for at, line in enumerate(lines) if _RESULT.fullmatch(line)), default=-1)
    begun, number = False, first
    for line in lines[: last + 1]:
        if _BEGIN.fullmatch(line) and not line.startswith(" "):
            begun = True
        elif begun and not (_PLAN.fullmatch(line) and not line.startswith(" ")):
            result = _RESULT.fullmatch(line)
            if result and not result[1]:
                line = re.sub(r"\d+", str(number), line, count=1)
                number += 1
            yield line
