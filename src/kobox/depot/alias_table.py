"""A whole alias index in memory: the answers of ``IndexFile.search_wild`` in microseconds, for thousands of questions.

A pattern can only match a key that begins with what stands before the pattern's first wildcard: patterns are grouped by
that text, and a look-up tries only the groups whose text fits. Some groups are large (``acpi*:…``, ``of:N*T*C…``):
there a piece of text behind the wildcard, the pattern's anchor, must occur in the key too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import chain

from kobox.depot.index import FIRST_WILD, WILD, IndexEntry, IndexFile, in_kmod_order
from kobox.depot.names import matcher, wildcard

_LITERAL = re.compile(r"[^*?\[\]\\]+")
_LARGE = 4
_SHORT = 3
"""A shorter text is a poor anchor."""
_SIZES = 4
"""To so many sizes, at most, the anchors with one beginning are cut."""
_WORTH_COMPILING = 3
"""A pattern that so many groups share becomes a regular expression: four times as fast, 200 times as long to make."""

Patterns = list[tuple[str, list[IndexEntry]]]
"""What may follow a group's text, in the order in which kmod tries it, and what it stands for."""


class _Group:
    """The patterns with one text before their first wildcard. ``longer``: sizes of the texts that continue it."""

    __slots__ = ("_anchors", "_free", "longer", "patterns", "small")

    def __init__(self, patterns: Patterns) -> None:
        self.longer: tuple[int, ...] = ()
        self.patterns = patterns
        self.small = len(patterns) <= _LARGE
        if not self.small:
            self._find_anchors()

    def _find_anchors(self) -> None:
        """Sort the patterns by their anchors: by what these begin with, cut to few sizes so that slices find them."""
        self._free: list[int] = []
        self._anchors: list[tuple[str, list[tuple[int, dict[str, list[int]]]]]] = []
        pieces = [_pieces(pattern) for pattern, _ in self.patterns]
        uses = Counter(chain.from_iterable(pieces))
        anchors: dict[str, list[int]] = {}
        for place, texts in enumerate(pieces):
            anchor = min(texts, key=lambda text: (len(text) < _SHORT, uses[text], -len(text)), default="")
            (anchors.setdefault(anchor, []) if anchor else self._free).append(place)
        by_first: dict[str, list[str]] = {}
        for anchor in anchors:
            by_first.setdefault(anchor[0], []).append(anchor)
        for texts in by_first.values():
            lengths = sorted(map(len, texts))
            chosen = sorted({lengths[len(lengths) * part // _SIZES] for part in range(_SIZES)}, reverse=True)
            sizes: dict[int, dict[str, list[int]]] = {size: {} for size in chosen}
            for anchor in texts:
                size = next(size for size in chosen if size <= len(anchor))
                sizes[size].setdefault(anchor[:size], []).extend(anchors[anchor])
            self._anchors.append((_common_beginning(texts), [*sizes.items()]))

    def candidates(self, rest: str) -> Patterns:
        """Those patterns of a large group that can match what follows its text in a key."""
        places = self._free
        for beginning, sizes in self._anchors:
            at = rest.find(beginning)
            while at >= 0:
                for size, anchors in sizes:
                    hits = anchors.get(rest[at : at + size])
                    if hits:
                        places = places + hits
                at = rest.find(beginning, at + 1)
        return [self.patterns[place] for place in sorted(set(places))] if places else []


class AliasTable:
    """An index loaded once. It keeps the ``IndexFile`` for keys that hold wildcards themselves."""

    __slots__ = ("_common", "_exact", "_file", "_groups", "_lengths", "_matchers")

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
        self._groups = {
            literal: _Group(sorted(patterns.items(), key=_first_wild) if len(patterns) > 1 else [*patterns.items()])
            for literal, patterns in collected.items()
        }
        uses = Counter(chain.from_iterable(collected.values()))
        self._common = frozenset(pattern for pattern, count in uses.items() if count >= _WORTH_COMPILING)
        self._matchers: dict[str, Callable[[str], object]] = {}
        self._lengths = self._link_groups()

    def search(self, key: str) -> list[IndexEntry]:
        """As ``IndexFile.search_wild``."""
        if "*" in key or "?" in key or "[" in key:
            return self._file.search_wild(key)
        found: list[IndexEntry] = []
        group_of, matcher_of, size = self._groups.get, self._matchers.get, len(key)
        lengths = self._lengths.get(key[:2]) or self._lengths[""]
        while lengths:
            for length in lengths:
                if length > size:
                    lengths = ()
                    break
                group = group_of(key[:length])
                if group is not None:
                    rest = key[length:]
                    for pattern, entries in group.patterns if group.small else group.candidates(rest):
                        if (matcher_of(pattern) or self._matcher(pattern))(rest):
                            found += entries
                    lengths = group.longer
                    break
            else:
                break
        exact = self._exact.get(key)
        if exact:
            found += exact
        return in_kmod_order(found) if len(found) > 1 else found

    def _matcher(self, pattern: str) -> Callable[[str], object]:
        made = wildcard(pattern).fullmatch if pattern in self._common else matcher(pattern)
        self._matchers[pattern] = made
        return made

    def _link_groups(self) -> dict[str, tuple[int, ...]]:
        """Tell each group which continue it; those that continue none are returned, by their first two characters.

        All groups that a key fits are continuations of one another: with one found, only its own matter.
        """
        longer: dict[str, set[int]] = {}
        heads: dict[str, set[int]] = {}
        above: list[str] = []
        for literal in sorted(self._groups):
            while above and not literal.startswith(above[-1]):
                above.pop()
            (longer.setdefault(above[-1], set()) if above else heads.setdefault(literal[:2], set())).add(len(literal))
            above.append(literal)
        for literal, sizes in longer.items():
            self._groups[literal].longer = tuple(sorted(sizes))
        short = {size for head, sizes in heads.items() if len(head) < 2 for size in sizes}
        table = {head: tuple(sorted(sizes | short)) for head, sizes in heads.items()}
        table[""] = tuple(sorted(short))
        return table


def _common_beginning(texts: list[str]) -> str:
    beginning, last = min(texts), max(texts)
    while not last.startswith(beginning):
        beginning = beginning[:-1]
    return beginning


def _first_wild(pattern: tuple[str, list[IndexEntry]]) -> int:
    return WILD.index(pattern[0][0])


def _pieces(pattern: str) -> list[str]:
    """The plain texts that a key must have; none when a quote or a class makes it unsure."""
    return [] if "\\" in pattern or "[" in pattern else _LITERAL.findall(pattern)
