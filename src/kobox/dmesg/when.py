"""Points in time as people write them after ``--since`` and ``--until``. Follows ``lib/timeutils.c`` of util-linux."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

from kobox.errors import UsageError

_UNITS = {
    "seconds": 1, "second": 1, "sec": 1, "s": 1,
    "minutes": 60, "minute": 60, "min": 60, "m": 60,
    "months": 2_629_800, "month": 2_629_800,
    "msec": 0.001, "ms": 0.001,
    "hours": 3600, "hour": 3600, "hr": 3600, "h": 3600,
    "days": 86400, "day": 86400, "d": 86400,
    "weeks": 604_800, "week": 604_800, "w": 604_800,
    "years": 31_557_600, "year": 31_557_600, "y": 31_557_600,
    "usec": 0.000_001, "us": 0.000_001,
    "": 1,
}  # fmt: skip
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")
_FORMATS = (
    "%y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%y-%m-%d %H:%M", "%Y-%m-%d %H:%M",
    "%y-%m-%d", "%Y-%m-%d", "%H:%M:%S", "%H:%M", "%Y%m%d%H%M%S",
)  # fmt: skip
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_EXAMPLES = "such as '2026-11-30 16:34', '10 min ago', today, or @SECONDS"


def parse_time(text: str, now: float | None = None) -> float:
    """Seconds since the epoch. Dates are local time; ``now`` is for tests."""
    moment = datetime.fromtimestamp(time.time() if now is None else now)
    found = _parse(text, moment)
    if found is None:
        raise UsageError(f'invalid time value "{text}"', hint=_EXAMPLES)
    return found.timestamp()


def _parse(text: str, now: datetime) -> datetime | None:
    if text == "now":
        return now
    if text in _DAYS:
        return _midnight(now) + timedelta(days=_DAYS[text])
    if text.startswith("@"):
        seconds = text[1:].replace(",", ".")
        return datetime.fromtimestamp(float(seconds)) if re.fullmatch(r"\d+(\.\d+)?", seconds) else None
    if text[:1] in ("+", "-") or text.endswith(" ago"):
        span = _seconds(text.removesuffix(" ago").lstrip("+-"))
        if span is None:
            return None
        return now + timedelta(seconds=span if text[0] == "+" else -span)
    return _date(text, now)


def _date(text: str, now: datetime) -> datetime | None:
    for form in _FORMATS:
        try:
            found = datetime.strptime(text, form)
        except ValueError:
            continue
        return found if "%d" in form else datetime.combine(now.date(), found.time())
    return None


def _seconds(text: str) -> float | None:
    total, at = 0.0, 0
    while at < len(text.rstrip()):
        found = _SPAN.match(text, at)
        if found is None or found[2] not in _UNITS:
            return None
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    return total if text.strip() else None


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
