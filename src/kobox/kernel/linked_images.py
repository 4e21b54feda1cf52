"""Modules as they were linked, for loads of the same file to the same place with the same symbols.

A state is gone back to before each test, and then the same modules are loaded: all that linking computes comes out the
same, and for a large module it is a third of the load. What the load has changed in ``struct module`` by then is the
guest's and no part of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from kobox.link import Kallsyms

_KEPT = 64 << 20
"""Bytes of linked modules that are kept at most."""


class Site(NamedTuple):
    """An instruction that was made a trap."""

    address: int
    length: int
    kind: str


class LinkedImage(NamedTuple):
    """The regions of a linked module, and what goes with them.

    ``pointers`` are the (offset, bytes) that relocations stored in ``struct module``, from where it begins.
    """

    memory: Mapping[str, bytes]
    pointers: Sequence[tuple[int, bytes]]
    kallsyms: Kallsyms
    sites: Sequence[Site]


class LinkedImages:
    """The last ones, by what decided them."""

    def __init__(self) -> None:
        self._images: dict[Hashable, LinkedImage] = {}
        self._size = 0

    def find(self, key: Hashable) -> LinkedImage | None:
        image = self._images.pop(key, None)
        if image is not None:
            self._images[key] = image  # used last, it goes last
        return image

    def keep(self, key: Hashable, image: LinkedImage) -> None:
        """Keep one that ``find`` did not have."""
        size = _size(image)
        if size > _KEPT:
            return
        self._images[key] = image
        self._size += size
        while self._size > _KEPT:
            self._size -= _size(self._images.pop(next(iter(self._images))))


def _size(image: LinkedImage) -> int:
    return sum(map(len, image.memory.values()))
