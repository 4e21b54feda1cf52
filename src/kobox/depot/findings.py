"""A finding: something about configuration or policy that someone should know, with its place and its fix."""

from __future__ import annotations

from typing import NamedTuple

from kobox.depot.facts import Place
from kobox.depot.plan import place_json

SEVERITIES = ("note", "warning", "error")
"""Least first; the names are SARIF's levels."""


class Finding(NamedTuple):
    """``rule`` is a stable identifier; ``fix`` says what to write where, empty if nothing is to be done."""

    rule: str
    severity: str
    text: str
    place: Place | None = None
    fix: str = ""
    module: str = ""


def finding_json(finding: Finding) -> dict[str, object]:
    return finding._asdict() | {"place": place_json(finding.place)}


def finding_line(finding: Finding) -> str:
    """``file:line: severity: text [rule]``, as compilers and linters say it."""
    where = f"{finding.place}: " if finding.place else ""
    fix = f"\n    fix: {finding.fix}" if finding.fix else ""
    return f"{where}{finding.severity}: {finding.text} [{finding.rule}]{fix}"
