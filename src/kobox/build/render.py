"""A build as text: remarks as a compiler prints them, coloured for a terminal, and one line for the outcome."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kobox.build.builder import BuildReport
from kobox.build.diagnostics import Diagnostic, hint_of

_COLOURS = {"error": "31;1", "warning": "35;1", "note": "36;1"}
_MARKS = re.compile(r"\^~*|~+")


def diagnostic_lines(diagnostics: Sequence[Diagnostic], colour: bool) -> Iterator[str]:
    """Lines without their ends. A hint follows the first of those that have one."""
    told: set[str] = set()
    for one in diagnostics:
        code = _COLOURS[one.level]
        yield from one.before
        place = _painted(f"{one.place}:", "1", colour) + " " if one.place else ""
        yield f"{place}{_painted(f'{one.level}:', code, colour)} {_painted(one.text, '1', colour)}"
        yield from (_marked(line, code, colour) for line in one.lines)
        hint = hint_of(one)
        if hint and hint not in told:
            told.add(hint)
            yield f"hint: {hint}"


def outcome_line(report: BuildReport) -> str:
    """What came of it: how many modules, where, how fast."""
    errors = sum(one.level == "error" for one in report.diagnostics)
    warnings = sum(one.level == "warning" for one in report.diagnostics)
    counts = [_count(errors, "error")] if errors else []
    counts += [_count(warnings, "warning")] if warnings else []
    if not report.ok:
        return f"{report.release}: not built: {', '.join(counts) or 'see above'} ({report.seconds:.1f} s)"
    if report.how == "nothing":
        return f"{report.release}: up to date: {_names(report)}"
    told = f", {', '.join(counts)}" if counts else ""
    return f"{report.release}: built {_names(report)}{told} ({report.seconds:.1f} s)"


def _marked(line: str, code: str, colour: bool) -> str:
    """A source line as it is; one of carets with these coloured."""
    source, bar, marks = line.partition("|")
    if not bar or source.strip():
        return line
    return source + bar + _MARKS.sub(lambda match: _painted(match[0], code, colour), marks)


def _names(report: BuildReport) -> str:
    """The modules by path from here; many are counted."""
    output = Path(os.path.relpath(report.output))
    if len(report.modules) == 1:
        return str(output / report.modules[0].relative_to(report.output))
    return f"{len(report.modules)} modules in {output}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour and text else text
