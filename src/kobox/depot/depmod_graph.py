"""Which module needs which: symbols to their owners, owners to an order of loading, cycles named as kmod names them.

Pure computation on what ``module_facts`` read; modules are numbers here, their place in load order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

_MOST_STEPS = 20_000
"""Where the search for further cycles ends: a cycle beside the one at hand would be walked for ever."""


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
    budget = _MOST_STEPS
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
        while stack and budget:
            budget -= 1
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
            if len(stack) + len(needs[index]) > room:  # kmod gives up here, by an assertion
                break
            stack += [_Step(needed, step) for needed in needs[index]]
    lines.append(f"Found {len(in_cycles)} modules in dependency cycles!")
    return lines
