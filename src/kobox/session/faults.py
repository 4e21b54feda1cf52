"""Errors that travel: a ``KoboxError`` as JSON and back, so that a client catches what it would in one process."""

from __future__ import annotations

import importlib
from typing import Any

from kobox.errors import BadFile, Errno, GuestError, KoboxError, NotModelled, UsageError

_PLAIN: dict[str, type[KoboxError]] = {
    "KoboxError": KoboxError,
    "UsageError": UsageError,
    "NotModelled": NotModelled,
    "GuestError": GuestError,
}
_HEAVY = {"TaskDied": "kobox.kernel.tasks", "JobTimeout": "kobox.kernel.tasks", "KernelDead": "kobox.kernel.tasks"}
"""Classes whose rooms bring the CPU with them: imported only when such an error has come."""

_STATUS = {"UsageError": 400, "BadFile": 422, "Errno": 422, "NotModelled": 501}


def as_data(error: KoboxError) -> dict[str, Any]:
    """``{"type", "text", "hint", …}``: the class and the fields that make its text."""
    data: dict[str, Any] = {"type": _known(type(error)), "text": error.text, "hint": error.hint}
    if isinstance(error, Errno):
        data |= {"number": error.number, "why": error.why}
    if isinstance(error, BadFile):
        data |= {"file": error.file, "place": error.place, "what": error.what}
        data |= {"found": _plain(error.found), "expected": _plain(error.expected)}
    return data


def from_data(data: dict[str, Any]) -> KoboxError:
    """The error again; a class that this version does not know becomes a ``KoboxError``."""
    kind, text, hint = data.get("type", ""), data.get("text", ""), data.get("hint")
    if kind == "Errno":
        return Errno(data["number"], data["why"], hint)
    if kind == "BadFile":
        return BadFile(data["file"], data["place"], data["what"], data["found"], data["expected"], hint)
    if kind in _HEAVY:
        heavy: type[KoboxError] = getattr(importlib.import_module(_HEAVY[kind]), kind)
        return heavy(text, hint)
    return _PLAIN.get(kind, KoboxError)(text, hint)


def status_of(error: KoboxError) -> int:
    """The HTTP status that goes with an error: who must act."""
    return _STATUS.get(_known(type(error)), 500)


def _known(kind: type) -> str:
    """The nearest class that a client can make again."""
    known = {*_PLAIN, *_HEAVY, "Errno", "BadFile"}
    return next(one.__name__ for one in kind.__mro__ if one.__name__ in known)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, (int, str)) else str(value)
