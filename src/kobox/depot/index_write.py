"""kmod's index files written: sorted keys to the bytes of a ``.bin`` trie, in either order of nodes.

kmod up to 33 writes a node after its children, later ones before them; what a reader finds is the same. The format is
described in ``index``. The keys are walked once in sorted order: what two neighbours have in common tells which nodes
are finished. Speed matters here, a distribution has some 45,000 keys: the common beginning is found by one XOR of two
large integers, and a leaf is one concatenation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from kobox.errors import BadFile

CHILDREN_FIRST = "children-first"
PARENTS_FIRST = "parents-first"

_MAGIC = b"\xb0\x07\xf4\x57\x00\x02\x00\x01"
_START = 12
_WORD = struct.Struct(">I")
_MOSTLY = 64
"""Neighbouring keys mostly differ in their first bytes, this many."""
_PREFIX = 0x80000000
_VALUES = 0x40000000
_CHILDREN = 0x20000000

Entry = tuple[bytes, int, bytes]
"""(key, priority, value)"""


class IndexValues:
    """The entries of an index, collected in the order in which kmod would insert them.

    Values of one key are kept by rising priority; of equal priorities the one added last comes first. A key with one
    value, which nearly all are, is kept as the bytes it will be written as.
    """

    __slots__ = ("_entries", "_many", "_packed", "_tails")

    def __init__(self) -> None:
        self._packed: dict[bytes, bytes] = {}
        self._many: dict[bytes, list[tuple[int, bytes]]] = {}
        self._tails: dict[tuple[int, bytes], bytes] = {}
        self._entries: dict[bytes, tuple[int, bytes]] = {}

    def add(self, key: bytes, priority: int, value: bytes) -> bool:
        """Add an entry; True when this key has this value already (it is added all the same)."""
        tail = self._tail(priority, value)
        if key not in self._packed:
            self._packed[key] = tail
            return False
        values = self._many.get(key)
        if values is None:
            values = self._many[key] = [self._entries[self._packed[key]]]
        known = any(value == other for _, other in values)
        at = next((at for at, (other, _) in enumerate(values) if other >= priority), len(values))
        values.insert(at, (priority, value))
        return known

    def add_all(self, keys: list[bytes], priority: int, value: bytes) -> None:
        """``add`` for several keys, without being told of duplicates."""
        if len(keys) > 4 and len(set(keys).difference(self._packed)) == len(keys):
            self._packed.update(dict.fromkeys(keys, self._tail(priority, value)))
        else:
            for key in keys:
                self.add(key, priority, value)

    def add_owned(self, owners: Mapping[bytes, int], values: Sequence[bytes]) -> None:
        """Add many distinct, new keys: each with the value, and the priority, of the number that it is mapped to."""
        tails = [self._tail(priority, value) for priority, value in enumerate(values)]
        self._packed.update(zip(owners, map(tails.__getitem__, owners.values()), strict=True))

    def drop_unfit(self) -> list[bytes]:
        """Take out the keys that the format can't hold, those with a byte above 127; they are returned."""
        if b"".join(self._packed).isascii():
            return []
        unfit = [key for key in self._packed if not key.isascii()]
        for key in unfit:
            del self._packed[key]
            self._many.pop(key, None)
        return unfit

    def packed(self) -> dict[bytes, bytes]:
        """Key to the bytes of its values part: count, then priority and text of each."""
        several = {
            key: b"".join(
                [_WORD.pack(len(values)), *[_WORD.pack(priority) + value + b"\0" for priority, value in values]]
            )
            for key, values in self._many.items()
        }
        return self._packed | several

    def _tail(self, priority: int, value: bytes) -> bytes:
        entry = (priority, value)
        tail = self._tails.get(entry)
        if tail is None:
            tail = self._tails[entry] = b"\0\0\0\1" + _WORD.pack(priority) + value + b"\0"
            self._entries[tail] = entry
        return tail


def write_index(values: IndexValues, order: str = CHILDREN_FIRST) -> bytes:
    """The bytes of a ``.bin`` file."""
    return index_bytes(values.packed(), order)


def index_bytes(packed: dict[bytes, bytes], order: str = CHILDREN_FIRST) -> bytes:
    """As ``write_index``, from keys and their packed values. ``BadFile`` for a key that the format can't hold."""
    keys = sorted(packed)
    check_keys(keys)
    nodes, root = _children_first(keys, packed)
    if order == PARENTS_FIRST:
        nodes, root = _parents_first(nodes, root)
    return _MAGIC + struct.pack(">I", root) + nodes


def check_keys(keys: Iterable[bytes]) -> None:
    """Raise ``BadFile`` for the first key with a byte above 127."""
    if not b"".join(keys).isascii():
        bad = next(key for key in keys if not key.isascii())
        raise BadFile("module index", "", f"only 7-bit ASCII is supported: {bad!r}")


def _common_with_next(keys: list[bytes]) -> list[int]:
    """How many bytes each key shares with the one after it; 0 for the last."""
    from_bytes = int.from_bytes
    numbers = [from_bytes(key[:_MOSTLY].ljust(_MOSTLY, b"\0"), "big") for key in keys]
    shared = [_MOSTLY - ((one ^ other).bit_length() + 7 >> 3) for one, other in pairwise(numbers)]
    for at in [at for at, common in enumerate(shared) if common == _MOSTLY]:
        shared[at] = _common(keys[at], keys[at + 1])
    return [*shared, 0] if keys else []


def _common(one: bytes, other: bytes) -> int:
    at = _MOSTLY
    while at < len(one) and one[at] == other[at]:  # sorted and distinct: the other is never the shorter one then
        at += 1
    return at


def _children_first(keys: list[bytes], packed: dict[bytes, bytes]) -> tuple[bytes, int]:
    """All nodes, each after its children, and the reference of the root.

    ``open_nodes`` are the unfinished nodes on the way from the root to the current key. A node's ``end`` is the
    length of the text that leads to it; its prefix is that text without its parent's and without the byte that
    chose it.
    """
    out: list[bytes] = []
    write = out.append
    at = _START
    end, first_bytes, tail = 0, bytearray(), b""
    references: list[int] = []
    open_nodes: list[tuple[int, bytearray, list[int], bytes]] = []
    values_of = map(packed.__getitem__, keys)
    for key, common, values in zip(keys, _common_with_next(keys), values_of, strict=True):
        size = len(key)
        if common == size or not size:  # the next key lies below this one
            if size:
                open_nodes.append((end, first_bytes, references, tail))
                end, first_bytes, references = size, bytearray(), []
            tail = values
            continue
        if common > end:
            open_nodes.append((end, first_bytes, references, tail))
            end, first_bytes, references, tail = common, bytearray(), [], b""
        first_bytes.append(key[end])
        if size - end > 1:
            node = key[end + 1 :] + b"\0" + values
            references.append(at | _PREFIX | _VALUES)
        else:
            node = values
            references.append(at | _VALUES)
        write(node)
        at += len(node)
        while end > common:
            start = max(open_nodes[-1][0], common)
            node = _children_part(first_bytes, references) + tail
            reference = at | _CHILDREN | (_VALUES if tail else 0)
            if end - start > 1:
                node = key[start + 1 : end] + b"\0" + node
                reference |= _PREFIX
            write(node)
            at += len(node)
            if start > open_nodes[-1][0]:
                end, first_bytes, references, tail = start, bytearray(), [], b""
            else:
                end, first_bytes, references, tail = open_nodes.pop()
            first_bytes.append(key[start])
            references.append(reference)
    flags = (_CHILDREN if references else 0) | (_VALUES if tail else 0)
    write((_children_part(first_bytes, references) if references else b"") + tail)
    return b"".join(out), at | flags


@lru_cache(maxsize=256)
def _children_format(count: int) -> struct.Struct:
    return struct.Struct(f">BB{count}I")


def _children_part(first_bytes: bytearray, references: list[int]) -> bytes:
    """First and last byte, then a reference for each byte between; 0 where there is no child."""
    first, last = first_bytes[0], first_bytes[-1]
    count = last - first + 1
    if count != len(references):
        spread = [0] * count
        for byte, reference in zip(first_bytes, references, strict=True):
            spread[byte - first] = reference
        references = spread
    return _children_format(count).pack(first, last, *references)


def _parents_first(nodes: bytes, root: int) -> tuple[bytes, int]:
    """The same nodes with each before its children, which follow it in order."""
    tree = _Relaid(nodes, root)
    out: list[bytes] = []
    tree.write(_START, out)
    return b"".join(out), _START | root & 0xF0000000


class _Relaid:
    """A node read back from children-first bytes, with what its subtree will take."""

    __slots__ = ("_after", "_before", "_children", "_first", "_size", "flags", "total")

    flags: int
    total: int

    def __init__(self, nodes: bytes, reference: int) -> None:
        self.flags = reference & 0xF0000000
        start = at = (reference & 0x0FFFFFFF) - _START
        if reference & _PREFIX:
            at = nodes.index(b"\0", at) + 1
        self._before = nodes[start:at]
        self._first = b""
        self._children: list[_Relaid | None] = []
        if reference & _CHILDREN:
            self._first = nodes[at : at + 2]
            count = self._first[1] - self._first[0] + 1
            references = struct.unpack_from(f">{count}I", nodes, at + 2)
            at += 2 + 4 * count
            self._children = [_Relaid(nodes, child) if child else None for child in references]
        self._after = nodes[at : _end_of_values(nodes, at)] if reference & _VALUES else b""
        self._size = len(self._before) + len(self._first) + 4 * len(self._children) + len(self._after)
        self.total = self._size + sum(child.total for child in self._children if child)

    def write(self, at: int, out: list[bytes]) -> None:
        below = at + self._size
        references: list[int] = []
        for child in self._children:
            references.append(below | child.flags if child else 0)
            below += child.total if child else 0
        out += (self._before, self._first, struct.pack(f">{len(references)}I", *references), self._after)
        at += self._size
        for child in self._children:
            if child:
                child.write(at, out)
                at += child.total


def _end_of_values(nodes: bytes, at: int) -> int:
    (count,) = struct.unpack_from(">I", nodes, at)
    at += 4
    for _ in range(count):
        at = nodes.index(b"\0", at + 4) + 1
    return at
