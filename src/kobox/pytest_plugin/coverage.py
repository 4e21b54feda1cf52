"""``--kobox-cov``: which source lines of the modules ran in the tests, over all tests and worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from kobox.pytest_plugin.files import not_written, promise, write_whole

if TYPE_CHECKING:
    from kobox.box import Kernel
    from kobox.debug.coverage import Collected

_KEY = "kobox_coverage"
_OPTION = "--kobox-cov-report"
_DEFAULTS = {"term": "", "lcov": "kobox.lcov", "html": "kobox-html"}


class Report(NamedTuple):
    """A report that was asked for: ``term``, ``lcov`` or ``html``, and its file or folder."""

    kind: str
    place: str


def report_of(text: str) -> Report:
    """``KIND`` or ``KIND:PLACE`` as the option takes it."""
    kind, _, place = text.partition(":")
    if kind not in _DEFAULTS or (kind == "term" and place):
        raise pytest.UsageError(f"--kobox-cov-report={text}: expected term, lcov[:FILE] or html[:DIR]")
    return Report(kind, place or _DEFAULTS[kind])


class CoveragePlugin:
    """Registered when coverage was asked for."""

    def __init__(self, config: pytest.Config) -> None:
        from kobox.debug.coverage import Collected

        self._config = config
        self._only = [name for name in config.getoption("--kobox-cov") if name]
        self._reports = [report_of(text) for text in config.getoption("--kobox-cov-report")] or [Report("term", "")]
        for report in self._reports:
            if report.kind == "lcov":
                promise(_OPTION, config.invocation_params.dir / report.place)
            if report.kind == "html":
                promise(_OPTION, config.invocation_params.dir / report.place / "index.html")
        root = Path(config.rootpath)
        self.collected: Collected = Collected(self._only, dict.fromkeys((root, config.invocation_params.dir)))

    def start(self, kernel: Kernel) -> None:
        """Before a test. What ran before it, in a kernel that somebody else warmed up, does not count."""
        kernel.record_coverage().take()

    def add(self, kernel: Kernel) -> None:
        """After a test."""
        self.collected.add(kernel.record_coverage().take())

    # -- worker processes of pytest-xdist -----------------------------------------------------------------------------

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands over what it collected."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = self.collected.as_data()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended; one that crashed hands over nothing."""
        data = getattr(node, "workeroutput", {}).get(_KEY)
        if data is not None:
            self.collected.merge(data)

    # -- reports ------------------------------------------------------------------------------------------------------

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the reports that were asked for, and say what is missing."""
        from kobox.debug.sources import HOW_TO_BUILD

        write = terminalreporter.write_line
        terminalreporter.section("kobox coverage")
        if self.collected.files:
            for report in self._reports:
                _WRITERS[report.kind](self.collected, report.place, write, self._config.invocation_params.dir)
        if self.collected.without_lines:
            write(f"no source lines in {', '.join(sorted(self.collected.without_lines))}: {HOW_TO_BUILD}")
        for name, error in sorted(self.collected.damaged.items()):
            write(f"no source lines in {name}: {error}")
        missing = sorted(self.collected.only - self.collected.modules)
        if missing:
            write(f"never loaded: {', '.join(missing)}")
        elif not self.collected.modules:
            write("no module was loaded by a test with the fixture 'kernel'")


_Write = Callable[[str], None]


def _table(collected: Collected, place: str, write: _Write, here: Path) -> None:
    from kobox.debug.coverage.table import table_lines

    for line in table_lines(collected.files, here):
        write(line)


def _lcov(collected: Collected, place: str, write: _Write, here: Path) -> None:
    from kobox.debug.coverage.lcov import lcov_text

    write_whole(_OPTION, here / place, lcov_text(collected.files))
    write(f"lcov tracefile: {place}")


def _html(collected: Collected, place: str, write: _Write, here: Path) -> None:
    from kobox.debug.coverage.html import write_html

    try:
        write_html(collected.files, here / place, here)
    except OSError as error:
        not_written(_OPTION, here / place, error)
    write(f"HTML report: {place}/index.html")


_WRITERS: dict[str, Callable[[Collected, str, _Write, Path], None]] = {"term": _table, "lcov": _lcov, "html": _html}
