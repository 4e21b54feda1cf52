"""Paths made absolute as kmod makes them: text, never normalised, so that what is printed is what was given."""

from __future__ import annotations

import os


def absolute(path: str) -> str:
    """A relative path with the current directory in front, by the name by which the shell knows that."""
    return path if path.startswith("/") else f"{_here()}/{path}"


def _here() -> str:
    named = os.environ.get("PWD", "")
    try:
        return named if named.startswith("/") and os.path.samefile(named, ".") else os.getcwd()
    except OSError:
        return os.getcwd()
