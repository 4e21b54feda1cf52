"""Strip what loggers put before a kernel line: levels, times, journald's and syslog's fields, colours, mail quotes."""

from __future__ import annotations

import re

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_ISO_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_LEVEL = r"(?:emerg|alert|crit|err|warn|notice|info|debug)"

_PREFIXES: tuple[re.Pattern[str], ...] = tuple(
    re.compile(text)
    for text in (
        r"(?:> ?)+(?=\S| )",  # a quoted mail
        r"<\d{1,3}>(?:\d+,\d+,-?\d+,[^;]*;)?",  # a printk level, or a syslog priority
        r"\d+,\d+,\d+,[-c+][^;]*;",  # /dev/kmsg
        r"(?:kern|user|daemon|syslog)\s*:" + _LEVEL + r"\s*:\s?",  # dmesg --decode
        r"\[\s*(?:\d+[.,]\d+|"
        + r"\w{3} "
        + _MONTH
        + r" [ \d]\d [\d:]+(?: \d{4})?)\s*(?:<\s*[\d.]+>\s*)?\]\s?",  # dmesg
        r"\[\s*[CT]\d+\]\s?",  # CONFIG_PRINTK_CALLER
        _MONTH + r"\s+\d+\s+\d\d:\d\d:\d\d(?:\.\d+)?\s+\S+\s+(?:kernel|klogd|\S+\[\d+\])(?:\[\d+\])?:\s?",  # syslog
        _ISO_TIME + r"\s+(?:\S+\s+)?(?:kernel|klogd)(?:\[\d+\])?:\s?",  # journald
        r"kernel:\s(?=\[|\S| )",
    )
)


def strip_prefix(line: str) -> str:
    """The line as the kernel printed it; leading blanks that belong to the kernel's text stay."""
    line = _COLOURS.sub("", line.rstrip("\r\n"))
    changed = True
    while changed:
        changed = False
        for prefix in _PREFIXES:
            found = prefix.match(line)
            if found and found.end():
                line, changed = line[found.end() :], True
    return line
