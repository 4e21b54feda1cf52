"""Verdicts as text and as JSON: two renderings of the same records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobox.abi import taint
from kobox.abi.errno_names import name_of
from kobox.verdict.records import MODPROBE, Line, Reason, Verdict
from kobox.verdict.words import insmod_says

VERSION = 1
"""Of the JSON: goes up when something changes its meaning or goes away."""
_MOST_LINES = 4


def as_data(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The JSON of ``kobox explain FILE.ko --json``."""
    return {
        "version": VERSION,
        "loads": all(verdict.loads for verdict in verdicts),
        "verdicts": [_verdict(verdict) for verdict in verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": verdict.file,
        "module": verdict.module,
        "target": verdict.target,
        "release": verdict.release,
        "loads": verdict.loads,
        "errno": verdict.errno,
        "errno_name": _errno_name(verdict.errno),
        "insmod_says": insmod_says(verdict.errno) if verdict.errno else None,
        "reasons": [_reason(number, reason) for number, reason in enumerate(verdict.reasons, 1)],
        "notes": [{"rule": note.rule, "text": note.text} for note in verdict.notes],
        "needs": [
            {"module": needed.name, "path": needed.path or None, "symbols": needed.symbols, "loads": needed.loads}
            for needed in verdict.needed
        ],
        "log": _lines(verdict.log),
        "taint": verdict.taint,
        "module_taint": taint.letters(verdict.module_taint),
        "facts": dict(verdict.facts),
    }


def _reason(order: int, reason: Reason) -> dict[str, Any]:
    return {
        "order": order,
        "rule": reason.rule,
        "by": reason.by,
        "step": reason.step,
        "errno": reason.errno,
        "errno_name": _errno_name(reason.errno),
        "text": reason.text,
        "fix": reason.fix,
        "log": _lines(reason.log),
        "items": [dict(item) for item in reason.items],
    }


def _lines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{"level": int(line.level), "text": line.text} for line in lines]


def _errno_name(number: int) -> str | None:
    return name_of(number) if number else None


# -- text


def text_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """For people: a table when there are several answers, then what each one rests on."""
    lines = _table(verdicts) if len(verdicts) > 1 else []
    for verdict in verdicts:
        if lines:
            lines.append("")
        lines += _report(verdict)
    return lines


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    files = len({verdict.file for verdict in verdicts}) > 1
    rows = [("file",) * files + ("kernel", "loads", "errno", "why")]
    for verdict in verdicts:
        why = ", ".join(reason.rule for reason in verdict.reasons) or "-"
        answer = (verdict.target, "yes" if verdict.loads else "no", _errno_name(verdict.errno) or "-", why)
        rows.append((verdict.file,) * files + answer)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _report(verdict: Verdict) -> list[str]:
    if verdict.loads:
        lines = [f"{verdict.file}: loads on {verdict.target}"]
    else:
        answer = _answer(verdict)
        count = len(verdict.reasons)
        lines = [f"{verdict.file}: does not load on {verdict.target}: {answer}"]
        lines.append(f"{count} reasons, in the order in which they are met:" if count > 1 else "the reason:")
    for number, reason in enumerate(verdict.reasons, 1):
        lines += _reason_lines(number, reason)
    for needed in verdict.needed:
        where = f" ({needed.path})" if needed.path else " (loaded)"
        lines.append(f"  needs first: {needed.name}{where}")
    lines += [f"  note: {note.text}" for note in verdict.notes]
    if verdict.loads:
        lines.append("  whether its init function succeeds is not judged: kobox run tries it")
    return lines


def _answer(verdict: Verdict) -> str:
    if verdict.errno:
        return f'{name_of(verdict.errno)}, insmod says "{insmod_says(verdict.errno)}"'
    return "modprobe does not try" if verdict.reasons[0].by == MODPROBE else "the kernel does not survive it"


def _reason_lines(number: int, reason: Reason) -> list[str]:
    code = f" {name_of(reason.errno)}" if reason.errno else ""
    who = "modprobe" if reason.by == MODPROBE else f"kernel, step {reason.step}"
    lines = [f"  {number}. {reason.text} [{reason.rule}]", f"     met by: {who}{':' + code if code else ''}"]
    lines += [f"     log: {line.text}" for line in reason.log[:_MOST_LINES]]
    if len(reason.log) > _MOST_LINES:
        lines.append(f"     log: … {len(reason.log) - _MOST_LINES} more lines of this kind (all with --json)")
    return [*lines, f"     fix: {reason.fix}"]
