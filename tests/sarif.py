"""A reader of SARIF 2.1.0 for tests: the standard's rules (OASIS, sections in the comments) for what kobox uses."""

from __future__ import annotations

import re
from typing import Any

_LEVELS = {"none", "note", "warning", "error"}  # 3.27.10


def check(log: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of a log; an AssertionError says what the standard does not have."""
    assert set(log) == {"$schema", "version", "runs"}  # 3.13
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    assert set(run) == {"tool", "results"}  # 3.14
    driver = run["tool"]["driver"]
    assert set(driver) == {"name", "version", "rules"}  # 3.19
    rules = driver["rules"]
    ids = [rule["id"] for rule in rules]
    assert len(ids) == len(set(ids))  # 3.19.23: unique
    assert all(set(rule) == {"id", "shortDescription"} and rule["shortDescription"]["text"] for rule in rules)
    for result in run["results"]:
        _check_result(result, ids)
    found: list[dict[str, Any]] = run["results"]
    return found


def _check_result(result: dict[str, Any], ids: list[str]) -> None:
    assert set(result) <= {"ruleId", "ruleIndex", "level", "message", "locations"}  # 3.27
    assert ids[result["ruleIndex"]] == result["ruleId"]  # 3.27.6
    assert result["level"] in _LEVELS
    assert result["message"]["text"]
    for location in result.get("locations", []):
        (place,) = location.values()
        assert set(location) == {"physicalLocation"}  # 3.28.3
        artifact = place["artifactLocation"]
        if "uriBaseId" in artifact:  # 3.4.4: then the URI is a relative reference
            assert not re.match(r"/|[a-z]+:", artifact["uri"]), artifact["uri"]
        else:
            assert artifact["uri"].startswith("file:///")
        assert place.get("region", {"startLine": 1})["startLine"] >= 1  # 3.30.5
