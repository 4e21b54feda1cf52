"""Which module needs which: symbols to their owners, owners to an order of loading, cycles named as kmod names them.

Pure computation on what ``module_facts`` read; modules are numbers here, their place in load order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

_MOST_STEPS = 2_000
"""More than a walk from one module ever takes, unless it never ends."""


class Cycles(Exception):
    """Modules that need each other; ``lines`` say it in kmod's words."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("; ".join(lines))


def owners_of_symbols(exports: Iterable[Sequence[bytes]]) -> dict[bytes, int]:
    """Symbol to the module that exports it; of several the last counts."""
    owners: dict[bytes, int] = {}
    for index, names in enumerate(exports):
        if names:
            owners.update(dict.fromkeys(names, index))
    return owners


def direct_needs(needs: Iterable[Sequence[bytes]], owners: dict[bytes, int]) -> list[list[int]]:
    """For each module those that it takes symbols from, in the order in which it first names them."""
    owner = owners.get
    found: list[list[int]] = []
    for names in needs:
        distinct = dict.fromkeys(map(owner, names))
        found.append([index for index in distinct if index is not None])
    return found


def load_ranks(needs: list[list[int]], names: Sequence[str]) -> list[int]:
    """Each module's rank: lower ranks are loaded later. Raises ``Cycles``."""
    users = [0] * len(needs)
    for needed in needs:
        for index in needed:
            users[index] += 1
    ranks = [-1] * len(needs)
    waiting = [index for index, count in enumerate(users) if not count]
    rank = 0
    while waiting:
        index = waiting.pop()
        ranks[index] = rank
        rank += 1
        for needed_index in needs[index]:
            users[needed_index] -= 1
            if not users[needed_index]:
                waiting.append(needed_index)
    if rank < len(needs):
        raise Cycles(_report(needs, names, [index for index, count in enumerate(users) if count > 0]))
    return ranks


def all_needs(needs: list[list[int]], ranks: list[int]) -> list[list[int]]:
    """For each module everything it needs, directly or not, in the order of modules.dep: what is loaded last
    first."""
    by_rank = sorted(range(len(needs)), key=ranks.__getitem__)
    closed: list[frozenset[int]] = [frozenset()] * len(needs)
    for index in reversed(by_rank):
        if needs[index]:
            closed[index] = frozenset(needs[index]).union(*[closed[needed] for needed in needs[index]])
    order = ranks.__getitem__
    return [sorted(closure, key=order) if closure else [] for closure in closed]


class _Step(NamedTuple):
    """A module on the walk, and the step that led to it."""

    module: int
    before: _Step | None

    def way(self) -> list[int]:
        """The modules before this one, the root first."""
        found: list[int] = []
        step = self.before
        while step is not None:
            found.append(step.module)
            step = step.before
        return found[::-1]


def _report(needs: list[list[int]], names: Sequence[str], roots: list[int]) -> list[str]:
    """kmod's walk over what the sort left: it starts from each module that is still needed and not yet explained."""
    lines: list[str] = []
    in_cycles: set[int] = set()
    visited: set[int] = set()
    room = len(roots)

    def explained(index: int) -> None:
        """Take a module off the list of starts, which then goes on behind it."""
        nonlocal roots
        if index in roots:
            at = roots.index(index)
            roots = roots[at + 1 :] + roots[:at]

    while roots:
        root, roots = roots[0], roots[1:]
        stack = [_Step(root, None)]
        budget = _MOST_STEPS
        while stack:
            budget -= 1
            if not budget:  # a cycle beside the root's own is walked for ever: here kmod hangs
                return _shortest_cycles(needs, names)
            step = stack.pop()
            index = step.module
            if index in visited and index == root:
                way = step.way()
                in_cycles.update(way)
                lines.append("Cycle detected: " + " -> ".join(names[place] for place in [*way, index]))
                for place in way:
                    explained(place)
                continue
            visited.add(index)
            if not needs[index]:
                explained(index)
                continue
            if len(stack) + len(needs[index]) > room:  # here kmod crashes
                return _shortest_cycles(needs, names)
            stack += [_Step(needed, step) for needed in needs[index]]
    lines.append(f"Found {len(in_cycles)} modules in dependency cycles!")
    return lines


def _shortest_cycles(needs: list[list[int]], names: Sequence[str]) -> list[str]:
    """Each module's shortest way back to itself, no cycle twice: for tangles that kmod's walk doesn't survive."""
    told: dict[frozenset[int], list[int]] = {}
    for start in range(len(needs)):
        way = _way_back(needs, start)
        if way:
            told.setdefault(frozenset(way), way)
    lines = ["Cycle detected: " + " -> ".join(names[index] for index in [*way, way[0]]) for way in told.values()]
    count = len(frozenset().union(*told))
    return [*lines, f"Found {count} modules in dependency cycles!"]


def _way_back(needs: list[list[int]], start: int) -> list[int]:
    """The modules on the shortest way from a module to itself; empty when there is none."""
    before: dict[int, int] = {}
    waiting = [start]
    for index in waiting:
        for needed in needs[index]:
            if needed == start:
                way = [index]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return way[::-1]
            if needed not in before:
                before[needed] = index
                waiting.append(needed)
    return []
