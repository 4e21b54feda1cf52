"""What pytest shows of a failure in a kernel: the traceback ends in the test, since what lies below is kobox."""

from __future__ import annotations

from pathlib import Path

from _pytest._code.code import ExceptionChainRepr, ReprEntry, ReprTraceback

_OWN_CODE = Path(__file__).resolve().parents[1]
_FAILURE = "E "


def end_in_the_test(shown: object, folder: Path) -> None:
    """Drop kobox's own frames from a traceback as pytest made it for printing, unless there is nothing else. What was
    raised (the lines marked E) moves to the frame that is then the last. Paths are shown relative to ``folder``."""
    if not isinstance(shown, ExceptionChainRepr):
        return
    for traceback, _, _ in shown.chain:
        _cut(traceback, folder)


def _cut(traceback: ReprTraceback, folder: Path) -> None:
    entries = [entry for entry in traceback.reprentries if isinstance(entry, ReprEntry)]
    kept = [entry for entry in entries if not _is_own(entry, folder)]
    if not kept or len(entries) < len(traceback.reprentries) or kept[-1] is entries[-1]:
        return
    raised = [line for line in entries[-1].lines if line.startswith(_FAILURE)]
    last = kept[-1]
    location = last.reprfileloc
    if location is not None and entries[-1].reprfileloc is not None:
        location = type(location)(location.path, location.lineno, entries[-1].reprfileloc.message)
    kept[-1] = ReprEntry([*last.lines, *raised], last.reprfuncargs, last.reprlocals, location, last.style)
    traceback.reprentries = kept


def _is_own(entry: ReprEntry, folder: Path) -> bool:
    return entry.reprfileloc is not None and (folder / entry.reprfileloc.path).resolve().is_relative_to(_OWN_CODE)
