"""Levels and facilities of log records, by name. Follows ``<sys/syslog.h>``; the names are those of ``dmesg -x``."""

from __future__ import annotations

from collections.abc import Sequence

from kobox.errors import UsageError

LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "res0", "res1", "res2", "res3",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip


def parse_names(text: str, names: Sequence[str], what: str) -> frozenset[int]:
    """Numbers of a list such as ``err,warn`` or ``3,4``; names in any case."""
    return frozenset(parse_name(word, names, what) for word in text.split(","))


def parse_name(word: str, names: Sequence[str], what: str) -> int:
    """The number of one name (or number)."""
    lower = word.lower()
    if lower in names:
        return names.index(lower)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    raise UsageError(f"unknown {what} {word!r}", hint=f"one of {', '.join(names)}")


def parse_console_level(word: str) -> int:
    """1 to 8: messages *below* it reach the console, so a name stands for one more than its number."""
    if word.isdecimal():
        if 1 <= int(word) <= len(LEVELS):
            return int(word)
        raise UsageError(f"unknown level {word!r}", hint=f"1 to {len(LEVELS)}, or one of {', '.join(LEVELS)}")
    return parse_name(word, LEVELS, "level") + 1
