"""``--sarif`` of the commands that look at crashes and at files: their records as findings, printed as SARIF."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kobox.cli.kmod_face import print_json
from kobox.depot.facts import Place
from kobox.depot.findings import Finding
from kobox.depot.sarif import sarif

if TYPE_CHECKING:
    from kobox.debug.report import Report
    from kobox.verdict.records import Verdict

_BASE = "%SRCROOT%"
"""What code hosts take as the root of the checkout: here the folder that the command was started in."""


def print_sarif(tool: str, findings: Iterable[Finding]) -> None:
    """A SARIF log; a rule is described by its own words."""
    from kobox import __version__

    listed = list(findings)
    rules = {finding.rule: finding.rule.replace("-", " ") for finding in listed}
    print_json(sarif(listed, rules, __version__, os.getcwd(), tool=tool, base=_BASE))


def of_crashes(reports: Iterable[Report]) -> Iterable[Finding]:
    """A crash is found at the innermost line that is known."""
    for report in reports:
        oops = report.oops
        line = next((one for one in oops.source), None)
        said = [oops.title, report.explanation.what, *report.explanation.why]
        yield Finding(
            oops.kind.value,
            "error" if oops.kind.kills_task else "warning",
            ". ".join(text for text in said if text),
            Place(line.file, line.line) if line is not None else None,
            "; ".join(report.explanation.advice),
            report.module or "",
        )


def of_verdicts(verdicts: Iterable[Verdict]) -> Iterable[Finding]:
    """Each reason that keeps a file from loading, at the file."""
    for verdict in verdicts:
        place, where = Place(verdict.file), f"{verdict.module} on {verdict.release or verdict.target}"
        for reason in verdict.reasons:
            yield Finding(reason.rule, "error", f"{where}: {reason.text}", place, reason.fix, verdict.module)
        for note in verdict.notes:
            yield Finding(note.rule, "note", f"{where}: {note.text}", place, "", verdict.module)
