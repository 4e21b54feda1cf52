"""What install and remove commands of the configuration do, as far as that can be said without running them."""

from __future__ import annotations

import os
import shlex

FAILS, SUCCEEDS, UNKNOWN = "fails", "succeeds", "unknown"

_EFFECTS = {"false": FAILS, "true": SUCCEEDS, ":": SUCCEEDS}


def command_effect(command: str) -> str:
    """``fails`` and ``succeeds`` for commands known to load nothing, else ``unknown``."""
    if any(char in command for char in ";|&$`<>(){}\n"):
        return UNKNOWN
    try:
        words = shlex.split(command)
    except ValueError:
        return UNKNOWN
    if not words:
        return SUCCEEDS
    program = os.path.basename(words[0])
    if program == "exit":
        return SUCCEEDS if words[1:] in ([], ["0"]) else FAILS
    return _EFFECTS.get(program, UNKNOWN)
