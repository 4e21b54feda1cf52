"""How many files the host holds: each costs memory of the guest, and the host forgets only when its own is short.

Beyond a limit the host is asked to forget the names that it has known longest. Folders stay, since some program may be
in one; so do files that are open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

N = TypeVar("N")

MOST_FILES = 50_000
"""About 100 MB of a guest, with ext4."""


class Holding(Generic[N]):
    """Files that the host holds, and where each was found last. ``is_open`` tells which must stay."""

    def __init__(self, is_open: Callable[[N], bool], most: int = MOST_FILES) -> None:
        self._is_open, self._most = is_open, most
        self._places: dict[N, tuple[N, bytes]] = {}
        self._asking: threading.Thread | None = None
        self.ask: Callable[[N, bytes], None] | None = None
        """``Session.forget_name``; None before the session is there. It may wait, so it is called in a thread."""

    def __len__(self) -> int:
        return len(self._places)

    def note(self, node: N, parent: N, name: bytes) -> None:
        """The host is told of a file."""
        self._places[node] = parent, name
        if len(self._places) > self._most and (self._asking is None or not self._asking.is_alive()):
            self._ask_for_room()

    def forget(self, node: N) -> None:
        self._places.pop(node, None)

    def _ask_for_room(self) -> None:
        """A quarter at once: the host's answers come one by one."""
        if self.ask is None:
            return
        closed = (node for node in self._places if not self._is_open(node))
        oldest = list(islice(closed, self._most // 4))
        wanted = [self._places.pop(node) for node in oldest]
        self._places.update(zip(oldest, wanted, strict=True))  # last from now on: it may have another name meanwhile
        self._asking = threading.Thread(target=self._ask_for, args=(self.ask, wanted), name="kobox-forget", daemon=True)
        self._asking.start()

    @staticmethod
    def _ask_for(ask: Callable[[N, bytes], None], wanted: list[tuple[N, bytes]]) -> None:
        for parent, name in wanted:
            ask(parent, name)
