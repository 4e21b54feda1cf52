"""Numbers that the host knows nodes and handles by."""

from __future__ import annotations

from errno import ESTALE
from typing import Any, Generic, TypeVar

from kobox.errors import Errno
from kobox.fuse.wire import ROOT_ID

N = TypeVar("N")


class Nodes(Generic[N]):
    """Nodes that the host holds, and how often it was told of each. Equal nodes have one number; none is used twice."""

    def __init__(self, root: N) -> None:
        self._nodes: dict[int, N] = {ROOT_ID: root}
        self._ids: dict[N, int] = {root: ROOT_ID}
        self._counts: dict[int, int] = {ROOT_ID: 1}
        self._next = ROOT_ID + 1

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, number: int) -> N:
        """The node of a number; ``Errno(ESTALE)`` where the host holds none of it."""
        try:
            return self._nodes[number]
        except KeyError:
            raise Errno(ESTALE, f"node {number}") from None

    def number(self, node: N) -> int | None:
        """The number by which the host holds it, if it does."""
        return self._ids.get(node)

    def tell(self, node: N) -> int:
        """The number for an answer that makes the host hold the node once more."""
        number = self._ids.get(node)
        if number is None:
            number = self._next
            self._next += 1
            self._ids[node], self._nodes[number], self._counts[number] = number, node, 0
        self._counts[number] += 1
        return number

    def forget(self, number: int, count: int) -> N | None:
        """The host forgets ``count`` answers; the node, once it holds it no longer."""
        left = self._counts.get(number)
        if left is None or number == ROOT_ID:
            return None
        if left > count:
            self._counts[number] = left - count
            return None
        node = self._nodes.pop(number)
        del self._ids[node], self._counts[number]
        return node

    def clear(self) -> list[N]:
        """Forget everything but the root; what was held."""
        held = [node for number, node in self._nodes.items() if number != ROOT_ID]
        root = self._nodes[ROOT_ID]
        self._nodes, self._ids, self._counts = {ROOT_ID: root}, {root: ROOT_ID}, {ROOT_ID: 1}
        return held


class Handles:
    """Open files and directories. Number 0 is no handle."""

    def __init__(self) -> None:
        self._handles: dict[int, Any] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, handle: Any) -> int:
        number = self._next
        self._next += 1
        self._handles[number] = handle
        return number

    def get(self, number: int) -> Any | None:
        """The handle of a number; None for 0."""
        return self._handles.get(number)

    def remove(self, number: int) -> Any | None:
        return self._handles.pop(number, None)

    def clear(self) -> list[Any]:
        """Forget all of them; what was open."""
        held = list(self._handles.values())
        self._handles.clear()
        return held
