"""Findings as SARIF 2.1.0, which code hosts and editors show at the lines concerned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from kobox.depot.findings import Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(findings: Iterable[Finding], rules: Mapping[str, str], version: str, root: str = "") -> dict[str, object]:
    """A SARIF log with one run. Paths below ``root`` are given relative to it."""
    listed = list(findings)
    used = [rule for rule in rules if any(finding.rule == rule for finding in listed)]
    driver = {
        "name": "kobox audit",
        "version": version,
        "rules": [{"id": rule, "shortDescription": {"text": rules[rule]}} for rule in used],
    }
    results = [_result(finding, used, root.rstrip("/")) for finding in listed]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(finding: Finding, used: list[str], root: str) -> dict[str, object]:
    text = f"{finding.text}. Fix: {finding.fix}" if finding.fix else finding.text
    out: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": used.index(finding.rule),
        "level": finding.severity,
        "message": {"text": text},
    }
    if finding.place is not None and finding.place.file:
        path = finding.place.file.removeprefix(root).lstrip("/") if root else finding.place.file.lstrip("/")
        location: dict[str, object] = {"artifactLocation": {"uri": _uri(path), "uriBaseId": "ROOT"}}
        if finding.place.line:
            location["region"] = {"startLine": finding.place.line}
        out["locations"] = [{"physicalLocation": location}]
    return out


def _uri(path: str) -> str:
    return quote(path, safe="/:", errors="surrogateescape")
