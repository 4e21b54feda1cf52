"""``--kobox-ktap FILE``: the run's results in the kernel's own test format (Documentation/dev-tools/ktap.rst, version
1): a subtest per file, the kernel's log as diagnostics before the result that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kobox.pytest_plugin.facts import attached
from kobox.pytest_plugin.files import promise, write_whole

_OPTION = "--kobox-ktap"
_INDENT = "    "


class Result(NamedTuple):
    """``outcome``: pass, fail, skip or xfail; ``why`` of a skip or an expected failure; ``notes`` are diagnostics."""

    name: str
    outcome: str
    why: str
    notes: tuple[str, ...]


class KtapWriter:
    """Collects reports and writes the file when the session ends (in the process that has all of them)."""

    def __init__(self, file: Path) -> None:
        self._file = promise(_OPTION, file)
        self._results: dict[str, dict[str, Result]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The call decides; a failure before or after it counts as the test's own."""
        if report.when != "call" and not report.failed and not (report.when == "setup" and report.skipped):
            return
        file, _, name = report.nodeid.partition("::")
        known = self._results.setdefault(file, {})
        if name not in known or report.failed:
            known[name] = _result(name or file, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read is a failed test of its own."""
        if report.failed:
            notes = tuple(report.longreprtext.splitlines())
            self._results.setdefault(report.nodeid, {})[""] = Result("collection", "fail", "", notes)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write everything, whole or not at all."""
        text = "".join(f"{line}\n" for line in ktap_lines({f: list(r.values()) for f, r in self._results.items()}))
        write_whole(_OPTION, self._file, text)


def _result(name: str, report: pytest.TestReport) -> Result:
    facts = attached(report)
    notes = [*(facts["log"] if facts else ()), *(report.longreprtext.splitlines() if report.failed else ())]
    if facts:
        notes.insert(0, f"kernel {facts['kernel']}, taint {facts['taint'] or 'none'}")
    expected = getattr(report, "wasxfail", None)
    if expected is not None:
        return Result(name, "xfail" if report.skipped else "pass", expected, tuple(notes))
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        return Result(name, "skip", why.removeprefix("Skipped: "), tuple(notes))
    return Result(name, "pass" if report.passed else "fail", "", tuple(notes))


def ktap_lines(files: dict[str, list[Result]]) -> Iterator[str]:
    """The document for results by test file."""
    yield "KTAP version 1"
    yield f"1..{len(files)}"
    for number, (file, results) in enumerate(files.items(), 1):
        yield from (_INDENT + line for line in _subtest(file, results))
        failed = any(result.outcome == "fail" for result in results)
        skipped = bool(results) and all(result.outcome == "skip" for result in results)
        yield f"{'not ok' if failed else 'ok'} {number} {_name(file)}{' # SKIP' if skipped else ''}"


def _subtest(file: str, results: Iterable[Result]) -> Iterator[str]:
    results = list(results)
    yield "KTAP version 1"
    yield f"# Subtest: {_name(file)}"
    yield f"1..{len(results)}"
    for number, result in enumerate(results, 1):
        yield from (f"# {note}".rstrip() for text in result.notes for note in text.splitlines() or [""])
        said = f"{'not ok' if result.outcome == 'fail' else 'ok'} {number} {_name(result.name)}"
        if result.outcome in ("skip", "xfail"):
            said += f" # {result.outcome.upper()} {' '.join(result.why.split())}".rstrip()
        yield said


def _name(name: str) -> str:
    """A ``#`` would begin a directive, and a line is a line."""
    return " ".join(name.replace("#", "_").split())
