"""The log of a kernel whose ``printk`` is Python: levels, times, continued lines. Follows kernel/printk/printk.c."""

from __future__ import annotations

from collections.abc import Callable

from kobox.kernel.log import LogRecord

_DEFAULT_LEVEL = 4
_LINE_MAX = 991
"""Bytes of a message that are kept, its level prefix included."""
_SOH = 0x01


class BareLog:
    """All records, oldest first. ``now`` gives virtual nanoseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.records: list[LogRecord] = []
        self._open = False
        """The last record did not end with a newline: a continuation is appended to it."""

    def printk(self, text: bytes) -> None:
        """One formatted message with its level prefix."""
        level, continues = _DEFAULT_LEVEL, False
        text = text[:_LINE_MAX]
        while len(text) > 1 and text[0] == _SOH:
            mark, text = text[1:2], text[2:]
            if mark.isdigit() and mark < b"8":
                level = int(mark)
            elif mark == b"c":
                continues = True
            else:
                break
        ended = text.endswith(b"\n")
        line = text.removesuffix(b"\n").decode("utf-8", "surrogateescape")
        if continues and self._open:
            last = self.records[-1]
            self.records[-1] = last._replace(text=last.text + line, continued=True)
        else:
            self.write(level, line)
        self._open = not ended

    def write(self, level: int, text: str) -> None:
        """A whole line, as with a level prefix of two bytes."""
        self._open = False
        if len(text) > _LINE_MAX - 2:
            text = text.encode("utf-8", "surrogateescape")[: _LINE_MAX - 2].decode("utf-8", "surrogateescape")
        self.records.append(LogRecord(len(self.records), self._now(), level, text))
