"""Stands before KUnit until a module needs it: a module without tests costs nothing.

To the linking rules it is the exporter that is asked last, so that the core of a kernel that has KUnit, or of a module
that brings it, wins. It exports to modules only; nobody can collide with its names.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kobox.abi.declare import Declared
from kobox.errors import Errno
from kobox.kernel.env import Result, Steps
from kobox.kernel.guest import Guest
from kobox.link import Export, LoadView
from kobox.link.resolve import Resolution

if TYPE_CHECKING:
    from kobox.kernel.kunit import KUnit

_SUITES = (".kunit_test_suites", ".kunit_init_test_suites")
_MARK = "kunit"
_BARE = "no debug data, from which kobox's KUnit would know struct kunit"


class KunitGate:
    """What the loader knows of KUnit. ``make`` builds it."""

    name = "kobox's KUnit"
    taints = unavailable = 0

    def __init__(self, guest: Guest, make: Callable[[], KUnit]) -> None:
        self._guest, self._make = guest, make
        self._core: KUnit | None = None

    def export(self, name: str) -> Export | None:
        """A function of KUnit's core, for a kernel that was built without it."""
        if _MARK not in name or self._guest.has("kunit_run_tests"):
            return None
        if self._core is None:
            self._core = self._make()
        declared = self._core.exported.get(name)
        return Export(name, self._core.natives.stub(name), declared.gpl) if declared is not None else None

    def check(self, view: LoadView, bound: Mapping[str, Resolution]) -> Steps:
        """A module has bound these symbols: refuse one that is not described, and say in the log who serves it."""
        names = [name for name, found in bound.items() if found.owner == self.name]
        if not names:
            return  # without functions of KUnit there is nothing that its tests could have looked at
        if not view.find_any(".debug_info"):
            raise Errno(errno.ENOENT, f"{view.mod_name}: {_BARE}; build it without stripping")
        assert self._core is not None
        text = f"{view.mod_name}: this kernel is built without KUnit; kobox's own serves {len(names)} symbols"
        yield from self._core.env.printk(5, text)

    def run(self, view: LoadView, addresses: list[int], taken: bool) -> Result:
        """A module is live: run its suites, unless the kernel or a module (``taken``) has done so. How many threads are
        still in its code."""
        guest = self._guest
        found = [number for name in _SUITES if (number := view.find_any(name)) and view.sections[number].size]
        if not found or taken or guest.has("kunit_run_tests"):
            return 0
        if self._core is None:
            self._core = self._make()
        if not view.find_any(".debug_info"):
            yield from self._core.env.printk(4, f"{view.mod_name}: {_BARE}; its tests do not run")
            return 0
        suites = b"".join(guest.read(addresses[number], view.sections[number].size) for number in found)
        yield from self._core.run_module(bytes(view.data), view.mod_name, suites)
        return self._core.left_behind

    def forget(self) -> None:
        """The guest was reset."""
        if self._core is not None:
            self._core.forget()

    def hits(self) -> dict[str, Declared]:
        """Functions that were called."""
        if self._core is None:
            return {}
        return {name: self._core.natives.declared[name] for name in self._core.natives.hits}
