"""Colour for people at a terminal: only there, and never when ``NO_COLOR`` is set (no-color.org)."""

from __future__ import annotations

import os
from typing import TextIO

_OF_LEVEL = {0: "31;1", 1: "31;1", 2: "31;1", 3: "31", 4: "33"}
"""By the kernel's log level: what is worse than an error bold, errors red, warnings yellow."""


def wanted(stream: TextIO) -> bool:
    """Whether text for this stream may be coloured."""
    return stream.isatty() and allowed()


def allowed() -> bool:
    """Whether a terminal, if there is one, may be given colour."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def of_level(text: str, level: int, coloured: bool) -> str:
    """A line of the kernel's log in the colour of its level."""
    code = _OF_LEVEL.get(level) if coloured else None
    return f"\033[{code}m{text}\033[0m" if code else text
