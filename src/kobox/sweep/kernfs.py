"""Names in the folders of /sys, read from the kernel's own tree of them: a folder that did not change since an earlier
look costs one number.

Follows ``include/linux/kernfs.h``: each folder counts its changes. A kernel whose folders do not count, or that has no
such tree, is asked through its files instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

from kobox.errors import Errno


class Folder(NamedTuple):
    """A folder as it was: its number, which is never given twice, how often it had changed, its entries."""

    number: int
    changes: int
    entries: Mapping[str, int]


Seen = Mapping[int, Folder]
"""Folders by address."""
_MOST_ENTRIES = 1 << 20


class Folders(Protocol):
    """One look at /sys."""

    @property
    def seen(self) -> Seen: ...

    def names(self, path: str) -> Collection[str]:
        """Names in a folder below /sys; none where there is no such folder."""


class Kernfs:
    """The tree of one kernel."""

    def __init__(self, kernel: Any, counted: bool) -> None:
        self.kernel, self.counted = kernel, counted

    @classmethod
    def of(cls, kernel: Any) -> Kernfs:
        guest = kernel.guest
        layouts = getattr(guest, "layouts", None)
        needed = ("id", "dir.rev", "dir.children", "rb", "name")
        return cls(
            kernel,
            layouts is not None
            and guest.has("sysfs_root_kn")
            and all(layouts.has("kernfs_node", member) for member in needed),
        )

    def look(self, before: Seen) -> Folders:
        """A look at the present state; folders that are as in ``before`` are taken from there."""
        return _Tree(self.kernel.guest, before) if self.counted else _Files(self.kernel)


class _Tree:
    """The tree in guest memory. The kernel is at rest, so it holds still."""

    def __init__(self, guest: Any, before: Seen) -> None:
        self._guest, self._before = guest, before
        self.seen: dict[int, Folder] = {}
        place = guest.layouts.offset
        self._id, self._changes = place("kernfs_node", "id"), place("kernfs_node", "dir.rev")
        self._children, self._link = place("kernfs_node", "dir.children"), place("kernfs_node", "rb")
        self._name = place("kernfs_node", "name")
        self._left, self._right = place("rb_node", "rb_left"), place("rb_node", "rb_right")
        self._root = guest.read_uint(guest.symbol("sysfs_root_kn"))

    def names(self, path: str) -> Collection[str]:
        node: int | None = self._root
        for part in path.split("/"):
            node = self._entries(node).get(part)
            if node is None:
                return ()
        return self._entries(node).keys()

    def _entries(self, node: int | None) -> Mapping[str, int]:
        assert node is not None
        known = self.seen.get(node)
        if known is None:
            self.seen[node] = known = self._folder(node)
        return known.entries

    def _folder(self, node: int) -> Folder:
        read = self._guest.read_uint
        number, changes = read(node + self._id), read(node + self._changes)
        known = self._before.get(node)
        if known is not None and known.number == number and known.changes == changes:
            return known
        return Folder(number, changes, self._walk(read(node + self._children)))

    def _walk(self, link: int) -> dict[str, int]:
        guest = self._guest
        found: dict[str, int] = {}
        waiting = [link]
        while waiting and len(found) < _MOST_ENTRIES:
            link = waiting.pop()
            if not link:
                continue
            node = link - self._link
            name = guest.read_cstr(guest.read_uint(node + self._name)).decode("utf-8", "surrogateescape")
            found[name] = node
            waiting += (guest.read_uint(link + self._left), guest.read_uint(link + self._right))
        return found


class _Files:
    """The same through the kernel's files."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.seen: Seen = {}

    def names(self, path: str) -> Collection[str]:
        try:
            return [entry.name for entry in self._kernel.ls(f"/sys/{path}")]
        except Errno:
            return ()
