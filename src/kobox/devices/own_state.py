"""The part of a model's attributes that belongs to the kernel's state: copied when it is kept, put back by a reset."""

from __future__ import annotations

import copy
from collections.abc import Set
from typing import Any

from kobox.errors import UsageError


def take(model: object, outside: Set[str]) -> dict[str, Any]:
    """A copy of every attribute but those ``outside``. ``UsageError`` names one that cannot be copied."""
    state = {}
    for name, value in vars(model).items():
        if name not in outside:
            try:
                state[name] = copy.deepcopy(value)
            except TypeError as error:
                what = f"{type(model).__name__}.{name} cannot be kept with the kernel's state: {error}"
                raise UsageError(what, "name it in kept_outside") from error
    return state


def put_back(model: object, outside: Set[str], state: dict[str, Any]) -> None:
    """Attributes as they were; those that came since are gone. The state may be put back again."""
    for name in set(vars(model)) - outside - set(state):
        delattr(model, name)
    vars(model).update(copy.deepcopy(state))
