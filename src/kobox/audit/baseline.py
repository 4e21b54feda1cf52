"""A known-good list: which modules were loaded and what the kernel said about modules; and what is new since.

The file is JSON: ``{"modules": [...], "log": [...]}``. Log lines are kept without time, addresses and numbers, so that
a second boot says the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kobox.depot.findings import Finding
from kobox.depot.names import module_name
from kobox.errors import BadFile

_STAMP = re.compile(r"^(?:<\d+>)?(?:\[[ \d.]+\]\s*|\S+ \d+ [\d:]+ \S+ kernel: (?:\[[ \d.]+\]\s*)?)")
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]{8,}\b|\b\d+(?:\.\d+)*\b")
_ABOUT_MODULES = re.compile(
    r"module|taint|insmod|modprobe|signature|verification|lockdown|unknown symbol|disagrees about|vermagic|livepatch",
    re.IGNORECASE,
)


class Baseline(NamedTuple):
    modules: tuple[str, ...]
    log: tuple[str, ...]


def normal_line(line: str) -> str:
    """A log line without what differs from boot to boot."""
    return _CHANGING.sub("#", _STAMP.sub("", line.strip()))


def about_modules(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if _ABOUT_MODULES.search(line)]


def make_baseline(modules: Iterable[str], log: Iterable[str]) -> Baseline:
    """Of a system that is known to be good."""
    lines = dict.fromkeys(normal_line(line) for line in about_modules(log))
    return Baseline(tuple(sorted(set(modules))), tuple(lines))


def save_baseline(baseline: Baseline, path: Path) -> None:
    path.write_text(json.dumps(baseline._asdict(), indent=1) + "\n")


def load_baseline(path: Path) -> Baseline:
    """Raises ``BadFile`` for anything that is no baseline."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise BadFile(str(path), "", f"no JSON: {error}") from error
    parts = [content.get(key, []) if isinstance(content, dict) else None for key in ("modules", "log")]
    if not all(isinstance(part, list) and all(isinstance(word, str) for word in part) for part in parts):
        raise BadFile(str(path), "", "no baseline", expected='{"modules": [names], "log": [lines]}')
    return Baseline(tuple(module_name(name) for name in parts[0] or ()), tuple(parts[1] or ()))


def compare(baseline: Baseline, modules: Iterable[str], log: Iterable[str]) -> list[Finding]:
    """What is loaded, and what was said, that the baseline does not have."""
    found = []
    for name in sorted(set(modules) - set(baseline.modules)):
        said = f"module {name} is loaded, but is not in the baseline"
        found.append(
            Finding("baseline-module", "error", said, None, f"find out who loads it: kobox explain {name}", name)
        )
    known = set(baseline.log)
    new = dict.fromkeys(line for line in about_modules(log) if normal_line(line) not in known)
    return [*found, *(Finding("baseline-log", "warning", f"not in the baseline's log: {line.strip()}") for line in new)]
