"""kmod's index files (``modules.*.bin``) read in place: exact keys, stored wildcards, dumps.

The format: big-endian words magic, version and root, then the nodes of a compressed trie. A reference to a node is its
offset in the low 28 bits; the high bits say which parts it has, in this order: a prefix (text, NUL), children (first
and last byte, one reference each), values (count, then priority and text, NUL). Keys are 7-bit text.

Files are mapped, never loaded; ``alias_table`` has the one exception, for callers with very many questions. Writing
lives in ``index_write``.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple

from kobox.depot.names import matcher
from kobox.errors import BadFile

INDEX_MAGIC = 0xB007F457
INDEX_VERSION = 0x00020001
NODE_PREFIX = 0x80000000
NODE_VALUES = 0x40000000
NODE_CHILDREN = 0x20000000
NODE_OFFSET = 0x0FFFFFFF
HEADER = struct.Struct(">III")

_WORD = struct.Struct(">I")
_word = _WORD.unpack_from
WILD = "*?["
"""What begins a wildcard, in the order in which a search follows them."""
FIRST_WILD = re.compile(r"[*?\[]")
_DEEPEST = 4096
"""No key is longer: kmod's own buffers end there."""


class IndexEntry(NamedTuple):
    """One value of an index; ``priority`` is the module's place in load order (0 first)."""

    priority: int
    value: str


class _Node(NamedTuple):
    prefix: str
    first: int
    children: tuple[int, ...]
    values: tuple[IndexEntry, ...]

    def child(self, char: int) -> int:
        """The reference of the child at a byte; 0 when there is none."""
        at = char - self.first
        return self.children[at] if 0 <= at < len(self.children) else 0


class IndexFile:
    """An open ``.bin`` index. A context manager; the mapping stays until ``close``."""

    __slots__ = ("_budget", "_data", "_root", "path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the file. Raises ``OSError``, or ``BadFile`` when it is no index of a known version."""
        self.path = os.fspath(path)
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < HEADER.size:
                raise BadFile(self.path, "header", "too short for an index", size, HEADER.size)
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, self._root = HEADER.unpack_from(self._data)
        if magic != INDEX_MAGIC:
            raise BadFile(self.path, "header", "magic number", magic, INDEX_MAGIC)
        if version >> 16 != INDEX_VERSION >> 16:
            raise BadFile(self.path, "header", "major version", version >> 16, INDEX_VERSION >> 16)
        self._budget = 0

    def close(self) -> None:
        """Give the mapping back."""
        self._data.close()

    def __enter__(self) -> IndexFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def lookup(self, key: str) -> list[IndexEntry]:
        """The values stored under exactly this key, first the one kmod would take; empty when there is none."""
        reference = self._root
        at = 0
        self._start_walk()
        while reference & NODE_OFFSET:
            node = self._node(reference)
            if not key.startswith(node.prefix, at):
                return []
            at += len(node.prefix)
            if at == len(key):
                return list(node.values)
            reference = node.child(ord(key[at]))
            at += 1
        return []

    def search_wild(self, key: str) -> list[IndexEntry]:
        """Every value whose stored pattern matches the key, in kmod's order: by priority, of equals the last found."""
        found: list[IndexEntry] = []
        reference = self._root
        at = 0
        self._start_walk()
        while reference & NODE_OFFSET:
            node = self._node(reference)
            wild = FIRST_WILD.search(node.prefix)
            if wild:
                start = wild.start()
                if key.startswith(node.prefix[:start], at):
                    self._match_all(node, node.prefix[start:], key[at + start :], found)
                break
            if not key.startswith(node.prefix, at):
                break
            at += len(node.prefix)
            for char in WILD:
                child = node.child(ord(char))
                if child & NODE_OFFSET:
                    below = self._node(child)
                    self._match_all(below, char + below.prefix, key[at:], found)
            if at == len(key):
                found.extend(node.values)
                break
            reference = node.child(ord(key[at]))
            at += 1
        return in_kmod_order(found)

    def dump(self, prefix: str = "") -> Iterator[tuple[str, IndexEntry]]:
        """Every (key, entry) in the order of ``modprobe -c``; ``prefix`` is put before each key."""
        return iter(self._listed(prefix, children_first=False))

    def dump_as_searched(self) -> Iterator[tuple[str, IndexEntry]]:
        """Every (key, entry) in the order in which a search comes across them: longer keys before their prefixes."""
        return iter(self._listed("", children_first=True))

    def _match_all(self, node: _Node, pattern: str, key: str, found: list[IndexEntry]) -> None:
        try:
            self._match_below(node, pattern, key, found)
        except RecursionError as error:
            raise BadFile(self.path, "", "nodes form a loop") from error

    def _match_below(self, node: _Node, pattern: str, key: str, found: list[IndexEntry]) -> None:
        for char, child in enumerate(node.children, node.first):
            if child & NODE_OFFSET:
                below = self._node(child)
                self._match_below(below, pattern + chr(char) + below.prefix, key, found)
        if node.values and matcher(pattern)(key):
            found.extend(node.values)

    def _listed(self, prefix: str, children_first: bool) -> list[tuple[str, IndexEntry]]:
        """Everything in the file, in one loop over all of it: there are thousands of nodes.

        Children before parents is the reverse of parents before children when everything else is turned round too.
        """
        data = self._data[:]
        text = data.decode("latin-1")
        found: list[tuple[str, IndexEntry]] = []
        waiting = [(self._root, prefix)] if self._root & NODE_OFFSET else []
        known: dict[bytes, IndexEntry] = {}
        left = len(data)
        while waiting:
            reference, key = waiting.pop()
            at = reference & NODE_OFFSET
            try:
                if reference & NODE_PREFIX:
                    end = text.index("\0", at)
                    key += text[at:end]
                    at = end + 1
                if reference & NODE_CHILDREN:
                    first = data[at]
                    count = max(data[at + 1] - first + 1, 0)
                    children = _references(count).unpack_from(data, at + 2)
                    at += 2 + 4 * count
                    below = [(child, key + chr(n)) for n, child in enumerate(children, first) if child & NODE_OFFSET]
                    left -= count
                    if left < 0 or len(key) > _DEEPEST:
                        raise BadFile(self.path, hex(reference & NODE_OFFSET), "nodes form a loop")
                    if not children_first:
                        below.reverse()
                    waiting += below
                if reference & NODE_VALUES:
                    (count,) = _word(data, at)
                    entries = []
                    for _ in range(count):
                        end = data.index(b"\0", at + 8)
                        raw = data[at + 4 : end]
                        entry = known.get(raw)
                        if entry is None:
                            value = raw[4:].decode("utf-8", "surrogateescape")
                            entry = known[raw] = IndexEntry(_word(raw)[0], value)
                        entries.append((key, entry))
                        at = end - 3
                    found += reversed(entries) if children_first else entries
            except (struct.error, IndexError, ValueError) as error:
                raise BadFile(self.path, hex(reference & NODE_OFFSET), "a node is cut off") from error
        if children_first:
            found.reverse()
        return found

    def _start_walk(self) -> None:
        self._budget = len(self._data)

    def _node(self, reference: int) -> _Node:
        """Read one node. Each read of a walk costs one; a sound file has fewer nodes than bytes."""
        data = self._data
        at = reference & NODE_OFFSET
        try:
            prefix = ""
            if reference & NODE_PREFIX:
                end = data.find(b"\0", at)
                if end < 0:
                    raise IndexError
                prefix = data[at:end].decode("latin-1")
                at = end + 1
            first = 0
            children: tuple[int, ...] = ()
            if reference & NODE_CHILDREN:
                first, last = data[at], data[at + 1]
                count = max(last - first + 1, 0)
                children = _references(count).unpack_from(data, at + 2)
                at += 2 + 4 * count
            values = self._values(at) if reference & NODE_VALUES else ()
        except (struct.error, IndexError) as error:
            raise BadFile(self.path, hex(reference & NODE_OFFSET), "a node is cut off") from error
        self._budget -= 1
        if self._budget < 0:
            raise BadFile(self.path, hex(reference & NODE_OFFSET), "nodes form a loop")
        return _Node(prefix, first, children, values)

    def _values(self, at: int) -> tuple[IndexEntry, ...]:
        data = self._data
        (count,) = _WORD.unpack_from(data, at)
        at += 4
        values: list[IndexEntry] = []
        for _ in range(count):
            (priority,) = _WORD.unpack_from(data, at)
            end = data.find(b"\0", at + 4)
            if end < 0:
                raise IndexError
            values.append(IndexEntry(priority, data[at + 4 : end].decode("utf-8", "surrogateescape")))
            at = end + 1
        return tuple(values)


@lru_cache(maxsize=256)
def _references(count: int) -> struct.Struct:
    """How the references to that many children lie in a node."""
    return struct.Struct(f">{count}I")


def in_kmod_order(found: list[IndexEntry]) -> list[IndexEntry]:
    """Sort as kmod collects: by priority, and of equal priorities the one found last comes first."""
    found.reverse()
    found.sort(key=lambda entry: entry.priority)
    return found
