"""Findings as SARIF 2.1.0, which code hosts and editors show at the lines concerned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from kobox.depot.findings import Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(
    findings: Iterable[Finding],
    rules: Mapping[str, str],
    version: str,
    root: str = "",
    *,
    tool: str = "kobox audit",
    base: str = "ROOT",
) -> dict[str, object]:
    """A SARIF log with one run. Paths below ``root`` are given relative to it, which ``base`` stands for."""
    listed = list(findings)
    used = [rule for rule in rules if any(finding.rule == rule for finding in listed)]
    driver = {
        "name": tool,
        "version": version,
        "rules": [{"id": rule, "shortDescription": {"text": rules[rule]}} for rule in used],
    }
    results = [_result(finding, used, root.rstrip("/"), base) for finding in listed]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(finding: Finding, used: list[str], root: str, base: str) -> dict[str, object]:
    text = f"{finding.text}. Fix: {finding.fix}" if finding.fix else finding.text
    out: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": used.index(finding.rule),
        "level": finding.severity,
        "message": {"text": text},
    }
    if finding.place is not None and finding.place.file:
        location: dict[str, object] = {"artifactLocation": _artifact(finding.place.file, root, base)}
        if finding.place.line:
            location["region"] = {"startLine": finding.place.line}
        out["locations"] = [{"physicalLocation": location}]
    return out


def _artifact(file: str, root: str, base: str) -> dict[str, str]:
    """Where a file is: below the root, or, when it lies elsewhere, by its whole path."""
    if file.startswith("/") and root and not file.startswith(f"{root}/"):
        return {"uri": f"file://{_uri(file)}"}
    return {"uri": _uri(file.removeprefix(root).lstrip("/")), "uriBaseId": base}


def _uri(path: str) -> str:
    return quote(path, safe="/:", errors="surrogateescape")
