"""pytest in a process that has booted kernels: tests use them, and each test's outcome is handed on as a record."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from _pytest._code.code import TerminalRepr
from _pytest._io import TerminalWriter

from kobox.box import Kernel
from kobox.pytest_plugin import WARM_KERNELS, Kernels

_WIDTH = 100

Tell = Callable[[str, str, float, str, tuple[tuple[str, str], ...]], None]
"""Hears of each test: its name, the outcome (passed, failed, skipped, or error of what surrounds it), seconds, the
traceback, and what was captured by title."""


def import_all() -> None:
    """Import what pytest and its plugins need, by a run over nothing: a fork of this process has it then."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        Path(folder, "pytest.ini").touch()
        pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", folder, folder])


def run_tests(args: Sequence[str], kernels: Mapping[str, Kernel], append: str, coloured: bool, tell: Tell) -> int:
    """pytest's exit code. ``kernels`` are pristine, by image; ``tell`` gets a record for each test as it ends."""
    warm = Kernels()
    for image, kernel in kernels.items():
        warm.put(image, append, kernel)
    images = [word for image in kernels for word in ("--kobox-image", image)]
    return int(pytest.main([*images, *args], plugins=[_Reporter(warm, tell, coloured)]))


class _Reporter:
    """Puts the warm kernels where the fixture finds them, and tells outcomes."""

    def __init__(self, kernels: Kernels, tell: Tell, coloured: bool) -> None:
        self._kernels, self._tell, self._coloured = kernels, tell, coloured
        self._seconds = 0.0

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[WARM_KERNELS] = self._kernels

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(report.nodeid, "error", 0.0, self._text(report), tuple(report.sections))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has three reports; what is told is the call's, or that of a setup or teardown which did not pass."""
        self._seconds = report.duration + (self._seconds if report.when != "setup" else 0.0)
        if report.when != "call" and report.passed:
            return
        outcome = "error" if report.failed and report.when != "call" else report.outcome
        text = self._text(report) if report.failed else ""
        sections = tuple(report.sections) if report.failed else ()
        self._tell(report.nodeid, outcome, round(self._seconds, 4), text, sections)

    def _text(self, report: pytest.TestReport | pytest.CollectReport) -> str:
        """The traceback as pytest prints it, in colour on demand."""
        if not isinstance(report.longrepr, TerminalRepr):
            return str(report.longrepr or "")
        file = io.StringIO()
        writer = TerminalWriter(file)
        writer.hasmarkup = self._coloured
        writer.fullwidth = _WIDTH
        report.longrepr.toterminal(writer)
        return file.getvalue().rstrip()
