"""Who wants to know when modules begin and end: told by the loader, between two calls into the guest."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """It may call the guest: nothing of the load runs meanwhile."""

    def module_coming(self, name: str) -> None:
        """A module is complete and about to be initialised."""

    def module_exited(self) -> None:
        """A module's last code has run; its memory and what the kernel keeps of its events are still there."""

    def guest_was_reset(self) -> None:
        """The guest is back in an earlier state."""
