"""Stands before the memory checker until a module needs it: a module that allocates nothing costs nothing.

The checker, and the declarations it works from, are imported when the first module binds a function of the allocator
family. Until then this remembers only which modules were linked, for the traces of later ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kobox.kernel.env import Steps
from kobox.link import Layout, LoadView

if TYPE_CHECKING:
    from kobox.kernel.heapcheck import HeapCheck
    from kobox.kernel.heapcheck_records import HeapState

FAMILY = re.compile(r"k\w*alloc|kv?free|kmem_cache|v\w*alloc|vfree|dup|ksize|asprintf")
"""What the name of every function has in it that the checker may want; others are not even looked up."""


class Linked(NamedTuple):
    """A module as the loader linked it."""

    name: str
    view: LoadView
    layout: Layout
    bases: dict[str, int]
    addresses: list[int]
    memory: dict[str, bytearray]


class HeapMark(NamedTuple):
    """A state that a reset goes back to."""

    linked: dict[str, Linked]
    state: HeapState | None


class HeapGate:
    """What the loader knows of the checker. ``make`` builds it."""

    def __init__(self, make: Callable[[], HeapCheck], enabled: bool) -> None:
        self._make = make
        self.enabled = enabled
        self.check: HeapCheck | None = None
        self._linked: dict[str, Linked] = {}

    def opened(self) -> HeapCheck:
        """The checker, made now if it was not needed before."""
        if self.check is None:
            self.check = self._make()
            self._hand_over()
        return self.check

    def _hand_over(self) -> None:
        if self.check is not None:
            for module in self._linked.values():
                self.check.module_linked(*module)
            self._linked = {}

    def stub_for(self, name: str, module: str) -> int | None:
        """As ``HeapCheck.stub_for``."""
        if not self.enabled or FAMILY.search(name) is None:
            return None
        return self.opened().stub_for(name, module)

    def module_linked(self, module: Linked) -> None:
        """A module's code is about to be stored."""
        self._linked[module.name] = module
        self._hand_over()

    def module_gone(self, name: str) -> Steps:
        """A module's last code has run, its memory is still there."""
        if self.check is None:
            self._linked.pop(name, None)
        else:
            yield from self.check.module_gone(name)

    def capture(self) -> HeapMark:
        """What ``restore`` needs to come back to this moment."""
        return HeapMark(dict(self._linked), self.check.capture() if self.check is not None else None)

    @property
    def linked(self) -> dict[str, Linked]:
        """What was linked before the checker was needed."""
        return dict(self._linked)

    def resume(self, linked: dict[str, Linked]) -> None:
        """In another process: these were linked, and nothing needed the checker."""
        self._linked = dict(linked)

    def restore(self, mark: HeapMark | None) -> None:
        """After a reset of the guest: back to a captured state, or to nothing."""
        self._linked = dict(mark.linked) if mark is not None else {}
        if self.check is not None:
            self.check.restore(mark.state if mark is not None else None)
            self._hand_over()
