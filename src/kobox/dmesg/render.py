"""Log records to lines or JSON, byte for byte as ``dmesg`` of util-linux 2.38 prints the same records.

Text is ``str`` with undecodable bytes as surrogates; whoever prints it writes them back (``surrogateescape``).
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from kobox.dmesg.names import FACILITIES, LEVELS
from kobox.kernel.log import LogRecord


class TimeFormat(Enum):
    """What stands in front of a line."""

    NONE = "notime"
    TIME = "time"
    TIME_DELTA = "time and delta"
    DELTA = "delta"
    CTIME = "ctime"
    CTIME_DELTA = "ctime and delta"
    RELTIME = "reltime"
    ISO = "iso"


@dataclass(frozen=True, slots=True)
class Style:
    """How records are shown. ``boot_time``: seconds since the epoch at which the log's clock was 0."""

    time: TimeFormat = TimeFormat.TIME
    decode: bool = False
    """``kern  :info  :`` in front."""
    raw: bool = False
    """As the syslog buffer has it: ``<6>[    0.000000] text``."""
    escape: bool = True
    """What is not printable becomes ``\\x1b``."""
    force_prefix: bool = False
    """The prefix on each line of a record that has several."""
    color: bool = False
    boot_time: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are shown. None: all. Times are seconds since the epoch, compared to the second."""

    levels: frozenset[int] | None = None
    facilities: frozenset[int] | None = None
    since: int | None = None
    until: int | None = None

    def accepts(self, record: LogRecord, boot_time: int) -> bool:
        if self.levels is not None and (record.facility < 0 or record.level not in self.levels):
            return False
        if self.facilities is not None and record.facility not in self.facilities:
            return False
        when = boot_time + record.time // 1_000_000_000
        if self.since is not None and self.since >= when:
            return False
        return self.until is None or when < self.until


def lines(records: Iterable[LogRecord], style: Style, wanted: Filter | None = None) -> Iterator[str]:
    """One text for each record that is wanted, each ending with a newline; a record may be several lines."""
    clock = _Clock(style)
    for record in records:
        if wanted is not None and not wanted.accepts(record, style.boot_time):
            continue
        yield _record(record, style, clock) if record.text else "\n"


def _record(record: LogRecord, style: Style, clock: _Clock) -> str:
    if style.raw:
        priority = (max(record.facility, 0) << 3) | max(record.level, 0)
        prefix = again = f"<{priority}>{_stamp(record, 5)} "
    else:
        decoded = ""
        if style.decode and record.facility >= 0 and record.level >= 0:
            decoded = f"{FACILITIES[record.facility]:<6}:{LEVELS[record.level]:<6}: "
        stamp, breaks = clock.stamp(record)
        again = "[  +0.000000] " if style.time is TimeFormat.RELTIME else stamp
        paint = _TIME_BREAK if breaks else _TIME
        prefix, again = (decoded + _painted(text, paint, style) for text in (stamp, again))
        indent = len(decoded) + len(stamp)
    if style.raw:
        indent = len(prefix)
    if style.force_prefix:
        parts = [part for part in record.text.split("\n") if part]
    else:
        parts = [record.text]
    shown = (_message(record.level, part, indent, style) for part in parts)
    return "".join(f"{again if number else prefix}{text}\n" for number, text in enumerate(shown))


def _message(level: int, text: str, indent: int, style: Style) -> str:
    if not style.color:
        return _safe(text, indent, style)
    subsystem = _SUBSYSTEM.match(text)
    head = subsystem[0] if subsystem is not None else ""
    rest = text[len(head) :]
    paint = _LEVEL_PAINT.get(level, _SEGFAULT if "segfault at" in rest else "")
    shown = _safe(rest, indent, style)
    painted = f"{paint}{shown}{_RESET}" if paint else shown
    return f"{_SUBSYS}{_safe(head, indent, style)}{_RESET}{painted}" if head else painted


def _safe(text: str, indent: int, style: Style) -> str:
    if text.isprintable():
        return text
    if style.escape:
        text = printable(text)
    return text.replace("\n", "\n" + " " * indent)


def printable(text: str) -> str:
    """``text`` with what a terminal should not get as ``\\x1b``."""
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    """Printable or white space (as glibc sees it) as it is, anything else as its bytes in hex."""
    if char in "\t\n\v\f\r" or unicodedata.category(char) not in ("Cc", "Cs", "Cn"):
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


# --- times -----------------------------------------------------------------------------------------------------------


class _Clock:
    """Time stamps, and what those relative to the record before need to know of it."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._last = 0
        """Microseconds of the record before; 0: none."""
        self._minute = (0, 0, 1)
        """Minute, hour and day of the year shown last."""
        self._write: Callable[[LogRecord, float], str] | None = _STAMPS.get(style.time)

    def stamp(self, record: LogRecord) -> tuple[str, bool]:
        """(text, whether it names a new minute)."""
        microseconds = record.time // 1000
        delta = (microseconds - self._last) / 1e6 if self._last else 0.0
        self._last = microseconds
        if self._write is not None:
            return self._write(record, delta), False
        local = time.localtime(self._style.boot_time + microseconds // 1_000_000)
        if self._style.time is TimeFormat.RELTIME:
            return self._relative(local, delta)
        if self._style.time is TimeFormat.ISO:
            zone = time.strftime("%z", local)
            return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)},{microseconds % 1_000_000:06}{_colon(zone)} ", False
        date = (
            f"{_DAYS[local.tm_wday]} {_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {time.strftime('%H:%M:%S', local)}"
        )
        if self._style.time is TimeFormat.CTIME:
            return f"[{date} {local.tm_year}] ", False
        return f"[{date} {local.tm_year} <{delta:12.6f}>] ", False

    def _relative(self, local: time.struct_time, delta: float) -> tuple[str, bool]:
        minute = (local.tm_min, local.tm_hour, local.tm_yday)
        if minute != self._minute:
            self._minute = minute
            return f"[{_MONTHS[local.tm_mon - 1]}{local.tm_mday:2} {time.strftime('%H:%M', local)}] ", True
        return (f"[  {delta:+8.6f}] " if delta < 10 else f"[ {delta:+9.6f}] "), False


def _stamp(record: LogRecord, width: int) -> str:
    return f"[{record.time // 1_000_000_000:{width}}.{record.time // 1000 % 1_000_000:06}]"


def _colon(zone: str) -> str:
    return f"{zone[:3]}:{zone[3:]}" if zone else ""


_STAMPS: dict[TimeFormat, Callable[[LogRecord, float], str]] = {
    TimeFormat.NONE: lambda record, delta: "",
    TimeFormat.TIME: lambda record, delta: _stamp(record, 5) + " ",
    TimeFormat.TIME_DELTA: lambda record, delta: f"{_stamp(record, 5)[:-1]} <{delta:12.6f}>] ",
    TimeFormat.DELTA: lambda record, delta: f"[<{delta:12.6f}>] ",
}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# --- colour ----------------------------------------------------------------------------------------------------------

_RESET = "\033[0m"
_SUBSYS, _TIME, _TIME_BREAK, _SEGFAULT = "\033[33m", "\033[32m", "\033[32m\033[1m", "\033[2m\033[31m"
_LEVEL_PAINT = {1: "\033[7m\033[31m", 2: "\033[1m\033[31m", 3: "\033[31m", 4: "\033[1m"}
_SUBSYSTEM = re.compile(r".*?:[ \t]", re.DOTALL)
"""What stands before the first colon that a blank follows."""


def _painted(text: str, paint: str, style: Style) -> str:
    return f"{paint}{text}{_RESET}" if style.color and text else text


# --- JSON ------------------------------------------------------------------------------------------------------------


class JsonLog:
    """``dmesg --json``, record by record: ``begin``, ``add`` …, ``end``."""

    def __init__(self, decode: bool = False) -> None:
        self._decode = decode
        self._any = False

    def begin(self) -> str:
        return '{\n   "dmesg": ['

    def add(self, record: LogRecord) -> str:
        """The text of one record, complete as far as its last line's end."""
        fields = []
        if record.facility >= 0 and record.level >= 0:
            if self._decode:
                fields.append(f'"fac": "{FACILITIES[record.facility]}"')
                fields.append(f'"pri": "{LEVELS[record.level]}"')
            else:
                fields.append(f'"pri": {record.facility << 3 | record.level}')
        fields.append(f'"time": {_stamp(record, 5)[1:-1]}')
        fields.append(f'"msg": {_quoted(record.text)}')
        before, self._any = ",{" if self._any else "\n      {", True
        return (
            before
            + "".join(f"{',' if number else ''}\n         {text}" for number, text in enumerate(fields))
            + ("\n      }")
        )

    def end(self) -> str:
        return "\n   ]\n}\n"


_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _quoted(text: str) -> str:
    shown = (_SHORT.get(char) or (f"\\u00{ord(char):02x}" if char < " " else char) for char in text)
    return f'"{"".join(shown)}"'
