"""A whole alias index in memory: the answers of ``IndexFile.search_wild`` in microseconds, for thousands of questions.

A pattern can only match a key that begins with what stands before the pattern's first wildcard: patterns are grouped by
that text, and a look-up tries only the groups whose text fits. Some groups are large (``acpi*:…``, ``of:N*T*C…``):
there a piece of text behind the wildcard, the pattern's anchor, must occur in the key too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kobox.depot.index import FIRST_WILD, WILD, IndexEntry, IndexFile, in_kmod_order
from kobox.depot.names import wildcard

_ANCHOR = 6
_LITERAL = re.compile(r"[^*?\[\]\\]+")
_LARGE = 4

Listed = list[tuple[str, list[IndexEntry]]]
"""Patterns, which are compiled when they are first tried, and what they stand for."""


class _LargeGroup:
    """Many patterns with the same text before their first wildcard."""

    __slots__ = ("_anchored", "_free", "_listed")

    def __init__(self, patterns: list[str], listed: Listed) -> None:
        self._listed = listed
        self._free: list[int] = []
        self._anchored: dict[int, dict[str, list[int]]] = {}
        for place, pattern in enumerate(patterns):
            anchor = _anchor(pattern)
            if anchor:
                self._anchored.setdefault(len(anchor), {}).setdefault(anchor, []).append(place)
            else:
                self._free.append(place)

    def candidates(self, rest: str) -> Listed:
        """Those patterns that can match what follows the group's text in a key."""
        places = self._free
        for size, anchors in self._anchored.items():
            windows = {rest[at : at + size] for at in range(len(rest) - size + 1)}
            hits = windows & anchors.keys()
            if hits:
                places = places + [place for anchor in hits for place in anchors[anchor]]
        return [self._listed[place] for place in sorted(places)]


class AliasTable:
    """An index loaded once. It keeps the ``IndexFile`` for keys that hold wildcards themselves."""

    __slots__ = ("_exact", "_file", "_groups", "_large", "_lengths")

    def __init__(self, index: IndexFile) -> None:
        self._file = index
        self._exact: dict[str, list[IndexEntry]] = {}
        collected: dict[str, dict[str, list[IndexEntry]]] = {}
        first_wild = FIRST_WILD.search
        for key, entry in index.dump_as_searched():
            wild = first_wild(key)
            if wild is None:
                self._exact.setdefault(key, []).append(entry)
            else:
                start = wild.start()
                collected.setdefault(key[:start], {}).setdefault(key[start:], []).append(entry)
        self._groups: dict[str, Listed] = {}
        self._large: dict[str, _LargeGroup] = {}
        for literal, patterns in collected.items():
            ordered = sorted(patterns, key=lambda pattern: WILD.index(pattern[0])) if len(patterns) > 1 else [*patterns]
            listed: Listed = [(pattern, patterns[pattern]) for pattern in ordered]
            if len(listed) > _LARGE:
                self._large[literal] = _LargeGroup(ordered, listed)
            self._groups[literal] = listed
        self._lengths = _lengths_by_head(collected)

    def search(self, key: str) -> list[IndexEntry]:
        """As ``IndexFile.search_wild``."""
        if FIRST_WILD.search(key):
            return self._file.search_wild(key)
        found: list[IndexEntry] = []
        groups = self._groups
        for length in self._lengths.get(key[:2]) or self._lengths[""]:
            literal = key[:length]
            if len(literal) < length:
                break
            listed = groups.get(literal)
            if listed is not None:
                rest = key[length:]
                if len(listed) > _LARGE:
                    listed = self._large[literal].candidates(rest)
                for pattern, entries in listed:
                    if wildcard(pattern).fullmatch(rest):
                        found += entries
        exact = self._exact.get(key)
        if exact:
            found += exact
        return in_kmod_order(found) if len(found) > 1 else found


def _lengths_by_head(literals: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Which lengths of literal text occur, by its first two characters; "" for keys of no such head."""
    lengths: dict[str, set[int]] = {}
    for literal in literals:
        lengths.setdefault(literal[:2], set()).add(len(literal))
    short = {size for head, sizes in lengths.items() if len(head) < 2 for size in sizes}
    table = {head: tuple(sorted(sizes | short)) for head, sizes in lengths.items() if len(head) == 2}
    table[""] = tuple(sorted(short))
    return table


def _anchor(pattern: str) -> str:
    """The end of the pattern's longest plain text; empty when there is none or a quote makes it unsure."""
    if "\\" in pattern or "[" in pattern:
        return ""
    pieces = _LITERAL.findall(pattern)
    return max(pieces, key=len)[-_ANCHOR:] if pieces else ""
