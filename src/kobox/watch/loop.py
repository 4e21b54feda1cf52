"""The loop itself: wait for a change, build, run, say what came of it; a change in between starts over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from kobox.build import BuildOptions, BuildReport, Folder, open_folder
from kobox.build.mirror import is_source
from kobox.errors import KoboxError
from kobox.runner import RunReport
from kobox.watch.changes import Changes
from kobox.watch.client import Worker
from kobox.watch.records import Event, Failed, Finished, Job, Progress, Ready, Result, Setup, Test, newest, note

_TESTS = ("test_*.py", "*_test.py")
_NEED_CACHE = (
    "--lf",
    "--last-failed",
    "--ff",
    "--failed-first",
    "--nf",
    "--new-first",
    "--sw",
    "--stepwise",
    "--cache",
)
_NO_TESTS = 5
_TESTS_FAILED = 1
_LOOK_SECONDS = 1.0
_RECENT = 60.0
"""Seconds; a file with an older time stamp was not saved now but put in place."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """``releases`` to build for, with the image that boots each; ``pytest_args`` None: the tests in the folder, if it
    has any. ``parameters`` are name=value for modules that are loaded without tests."""

    images: tuple[tuple[str, str], ...]
    pytest_args: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    append: str = ""
    coloured: bool = False
    polling: bool = False
    build: BuildOptions = field(default_factory=BuildOptions)


class Watch:
    """Watches a folder of sources. ``tell`` hears every event."""

    def __init__(self, sources: Path, options: WatchOptions, tell: Callable[[Event], None]) -> None:
        self._options, self._tell = options, tell
        self._folders = [open_folder(sources, release, options.build) for _, release in options.images]
        self._sources = self._folders[0].sources
        self._extra = _paths_in(options.pytest_args)
        self._worker: Worker | None = None
        self._news: frozenset[Path] = frozenset()
        self._owed = False

    def run(self, rounds: int | None = None) -> bool:
        """Go on until the folder is gone or KeyboardInterrupt; ``rounds`` ends it after so many. True: the last round
        was a good one."""
        outside = [path for path in self._extra if not path.is_relative_to(self._sources)]
        changes = Changes([self._sources, *outside], self._is_wanted, self._warn, self._options.polling)
        try:
            self._start_worker()
            return self._rounds(changes, rounds)
        finally:
            if self._worker is not None:
                self._worker.close()
            changes.close()

    def _rounds(self, changes: Changes, rounds: int | None) -> bool:
        self._tell(Event("watching", self._facts()))
        done, ok = 0, False
        while True:
            changed, self._news = self._news, frozenset()
            result = self._round(changed, changes, first=done == 0)
            if result is not None:
                ok, done = result.ok, done + 1
                self._tell(Event("result", result))
            if rounds is not None and done >= rounds:
                return ok
            while not self._news:
                wait([changes.fileno()], _LOOK_SECONDS)
                self._look(changes)
                if not self._sources.is_dir():  # of which nobody tells
                    self._tell(note("error", f"{self._sources}: the folder is gone"))
                    return False

    def _look(self, changes: Changes) -> None:
        """Keep what changed and differs from what was built and tested: a touched file does not."""
        self._news |= frozenset(path for path in changes.take() if self._folders[0].differs(path))

    def _round(self, changed: frozenset[Path], changes: Changes, first: bool) -> Result | None:
        """Build and run; None when nothing that was changed matters."""
        start = time.time()
        saved = newest(changed)
        saved = saved if saved is not None and start - saved < _RECENT else None
        try:
            reports = self._build()
        except (KoboxError, OSError) as error:
            self._tell(note("error", str(error)))
            return _result(False, "build", (), start, None, saved)
        new = any(report.how != "nothing" or not report.ok for report in reports)
        if not (first or new or self._owed or any(map(self._is_for_tests, changed))):
            return None
        if changed:
            there = [path for path in changed if path.exists()] or changed  # not what an editor wrote and renamed
            files = sorted(str(_below(path, self._sources)) for path in there)
            self._tell(Event("changed", {"files": files}))
        for report in reports:
            self._tell(Event("build", report))
        if not all(report.ok for report in reports):
            return _result(False, "build", (), start, None, saved)
        compiled = max(time.time() - report.link_seconds for report in reports)
        compiler_ran = any(report.how != "nothing" for report in reports)
        stage, ok, told = self._run_job(self._job(reports), changes)
        self._owed = stage == "cancelled"  # what was built has not been tested
        return _result(ok, stage, told, start, compiled if compiler_ran and not first else None, saved)

    def _build(self) -> list[BuildReport]:
        with ThreadPoolExecutor(len(self._folders)) as pool:
            return list(pool.map(Folder.build, self._folders))

    def _job(self, reports: Sequence[BuildReport]) -> Job:
        modules = tuple(
            (image, tuple(map(str, report.modules)))
            for (image, _), report in zip(self._options.images, reports, strict=True)
        )
        args = self._pytest_args(reports[0].output.parent)
        return Job(args, modules, self._options.parameters, self._options.coloured)

    def _pytest_args(self, built: Path) -> tuple[str, ...] | None:
        """pytest's arguments; None when there is no test to run."""
        given = self._options.pytest_args
        where = () if self._extra else (str(self._sources),)
        if not given and not any(self._tests()):
            return None
        quiet = ["-q", "--no-header", "--ignore", str(built)]
        if not any(arg.startswith(_NEED_CACHE) for arg in given):
            quiet += ["-p", "no:cacheprovider"]  # it would write beside the sources
        return (*quiet, "--kobox-build", str(built), *given, *where)

    def _tests(self) -> Iterator[Path]:
        for pattern in _TESTS:
            for path in self._sources.rglob(pattern):
                if not any(part.startswith(".") for part in path.relative_to(self._sources).parts):
                    yield path

    def _run_job(self, job: Job, changes: Changes) -> tuple[str, bool, list[Test | RunReport]]:
        """Run it in the worker, telling what it says; another change cancels it."""
        told: list[Test | RunReport] = []
        worker = self._worker or self._start_worker()
        cancelled = False
        try:
            worker.submit(job)
            while True:
                ready = wait([worker.fileno()] if cancelled else [worker.fileno(), changes.fileno()])
                if worker.fileno() not in ready:
                    self._look(changes)
                    cancelled = bool(self._news)
                    if cancelled:
                        worker.cancel()
                    continue
                record = worker.receive()
                if isinstance(record, Test | RunReport):
                    told.append(record)
                    self._tell(Event("test" if isinstance(record, Test) else "module", record))
                elif isinstance(record, Finished):
                    return self._finished(record, cancelled, told)
                elif isinstance(record, Failed):
                    raise KoboxError(record.text)
                else:
                    self._tell(_progress(record))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = worker.close()
            self._worker = None
            self._tell(note("error", f"the process that ran the tests ended with {code}; another is started"))
            return "run", False, told

    def _finished(
        self, finished: Finished, cancelled: bool, told: list[Test | RunReport]
    ) -> tuple[str, bool, list[Test | RunReport]]:
        if cancelled:
            return "cancelled", False, told
        if finished.code == _NO_TESTS:
            self._tell(note("warning", "no test was selected"))
        elif finished.code not in (0, _TESTS_FAILED):
            why = f"ended by signal {-finished.code}" if finished.code < 0 else f"ended with code {finished.code}"
            self._tell(note("error", f"the tests {why}\n{finished.output}".rstrip()))
        return "run", finished.code in (0, _NO_TESTS), told

    def _start_worker(self) -> Worker:
        self._worker = Worker(Setup(tuple(image for image, _ in self._options.images), self._options.append))
        return self._worker

    def _facts(self) -> dict[str, object]:
        return {
            "folder": str(self._sources),
            "images": [release for _, release in self._options.images],
            "tests": [str(_below(path, self._sources)) for path in sorted(self._tests())],
        }

    def _is_wanted(self, path: Path) -> bool:
        """Whether a change of this path may matter; called from the thread that watches."""
        if not path.is_relative_to(self._sources):
            return path.suffix == ".py"
        parts = path.relative_to(self._sources).parts
        results = [folder.output for folder in self._folders if folder.output != self._sources]
        if any(path.is_relative_to(result) or result.is_relative_to(path) for result in results):
            return False
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        return bool(parts) and not hidden and path.suffix != ".o" and is_source(path.name, frozenset())

    def _is_for_tests(self, path: Path) -> bool:
        return path.suffix == ".py" or not path.is_relative_to(self._sources)

    def _warn(self, text: str) -> None:
        self._tell(note("warning", text))


def _progress(record: Progress | Ready) -> Event:
    if isinstance(record, Ready):
        return Event("ready", {"seconds": round(record.seconds, 3)})
    return note("note", record.text)


def _result(
    ok: bool, stage: str, told: Sequence[Test | RunReport], start: float, compiled: float | None, saved: float | None
) -> Result:
    now = time.time()
    good = sum(one.ok for one in told)
    skipped = sum(isinstance(one, Test) and one.outcome == "skipped" for one in told)
    return Result(
        ok, stage, good - skipped, len(told) - good, skipped, now - start,
        now - compiled if compiled is not None and stage == "run" else None,
        now - saved if saved is not None and stage != "cancelled" else None,
    )  # fmt: skip


def _paths_in(pytest_args: Sequence[str]) -> list[Path]:
    """Files and folders among pytest's arguments (``tests/test_x.py::test_y`` names a file)."""
    candidates = [Path(arg.split("::", 1)[0]) for arg in pytest_args if not arg.startswith("-")]
    return [path.resolve() for path in candidates if path.exists()]


def _below(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path
