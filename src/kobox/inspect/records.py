"""What an inspection found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ALARM, NOTE = "alarm", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """``rule`` names the trick; an ``alarm`` is what honest modules do not do, a ``note`` what they may. ``place`` is
    the address or name it is about."""

    rule: str
    severity: str
    text: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A module's behaviour in a kernel. ``result``: what the load answered, 0 or a positive errno; ``crash``: why the
    kernel or the task ended, empty when they did not. ``registered``: names by kind."""

    file: str
    module: str
    kernel: str
    result: int
    crash: str
    findings: tuple[Finding, ...]
    registered: dict[str, tuple[str, ...]]
    imports: tuple[str, ...]
    log: tuple[str, ...]

    @property
    def accused(self) -> bool:
        return any(finding.severity == ALARM for finding in self.findings)

    def as_data(self) -> dict[str, Any]:
        return asdict(self) | {"accused": self.accused}
