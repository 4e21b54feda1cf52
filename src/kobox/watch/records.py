"""What is handed between the loop, its worker process, and whoever shows the events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kobox.build import BuildReport
from kobox.runner import RunReport


class Setup(NamedTuple):
    """What a worker is started with: the kernels to keep warm, by what names each image and by its command line."""

    images: tuple[str, ...]
    append: str


class Job(NamedTuple):
    """One round: pytest with these arguments, or (None) the whole life of each module. ``modules`` are files by image,
    ``parameters`` name=value for the modules."""

    pytest_args: tuple[str, ...] | None
    modules: tuple[tuple[str, tuple[str, ...]], ...]
    parameters: tuple[str, ...] = ()
    coloured: bool = False


class Cancel(NamedTuple):
    """The loop's word to its worker: end the job."""


class Progress(NamedTuple):
    """What a worker does now, while it boots."""

    text: str


class Ready(NamedTuple):
    """The worker's kernels are booted."""

    seconds: float


class Failed(NamedTuple):
    """The worker cannot serve: why, as one line."""

    text: str


class Finished(NamedTuple):
    """The job is over. ``code`` is pytest's exit code, or negative where a signal ended it; ``output`` is what was
    printed, kept where the code says that something else than a test went wrong."""

    code: int
    output: str = ""


class Test(NamedTuple):
    """One test: ``outcome`` is passed, failed, skipped or error (of what surrounds it); ``text`` the traceback,
    ``sections`` what was captured, by title, the kernel's log and crash among them."""

    name: str
    outcome: str
    seconds: float
    text: str = ""
    sections: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome in ("passed", "skipped")

    def as_data(self) -> dict[str, Any]:
        return {**self._asdict(), "sections": [{"title": title, "text": text} for title, text in self.sections]}


class Result(NamedTuple):
    """The end of a round. ``stage`` is the last one reached: ``build``, ``run``, or ``cancelled`` by another change.
    Seconds: of the round, since the compiler's end, since the newest change was saved; None where there was none."""

    ok: bool
    stage: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    after_compiler: float | None
    after_save: float | None

    def as_data(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in self._asdict().items()}


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show. ``kind`` says what ``body`` is: ``watching`` and ``note`` plain data, ``changed`` the files,
    ``build`` a BuildReport, ``test`` a Test, ``module`` a RunReport, ``result`` a Result."""

    kind: str
    body: BuildReport | RunReport | Test | Result | dict[str, Any]
    time: float = field(default_factory=time.time)

    def as_data(self) -> dict[str, Any]:
        """One line of ``kobox watch --json``."""
        body = self.body if isinstance(self.body, dict) else self.body.as_data()
        return {"event": self.kind, "time": round(self.time, 3), **body}


def note(level: str, text: str) -> Event:
    """Something to tell that belongs to no file: ``level`` is error, warning or note."""
    return Event("note", {"level": level, "text": text})


def newest(files: frozenset[Path]) -> float | None:
    """When the newest of the files was saved, in seconds since 1970; None where none is left."""
    stamps = []
    for file in files:
        try:
            stamps.append(file.stat().st_mtime)
        except OSError:
            continue  # removed, or renamed away by an editor
    return max(stamps, default=None)
