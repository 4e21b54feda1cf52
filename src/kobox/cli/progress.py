"""What is going on, on standard error, for work that takes more than two seconds and only on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_PATIENCE = 2.0


def teller(command: str) -> Callable[[str], None]:
    """A function that shows a step's name once the command has taken long enough to be wondered about."""
    start = time.monotonic()
    first: list[str] = []

    def tell(text: str) -> None:
        if not sys.stderr.isatty():
            return
        first.append(text)
        if time.monotonic() - start > _PATIENCE or text in ("booting",):
            print(f"{command}: {text} …", file=sys.stderr)

    return tell
