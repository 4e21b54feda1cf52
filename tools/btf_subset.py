"""Cut a small BTF out of a kernel's: a few structures with all that they consist of, what they point to by name only.

The result is complete BTF, for ``kobox.image.btf``, ``bpftool btf dump file`` or any other reader. A structure that a
kept one contains by value is kept whole; one behind a pointer becomes a forward declaration unless it was asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping

from kobox.image.btf import Btf, Kind, Member, Type

MAGIC, VERSION = 0xEB9F, 1
COMPOSITE = (Kind.STRUCT, Kind.UNION)
REFERRING = (Kind.PTR, Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT)
SIGNED, BOOL = 1, 4


class Subset:
    """BTF being written. ``picks`` names for a structure the members to keep; others are kept with all of them."""

    def __init__(self, whole: Collection[int], picks: Mapping[int, Collection[str]]) -> None:
        self.whole, self.picks = whole, picks
        self.records: list[bytes] = []
        self.numbers: dict[object, int] = {}
        self.strings = bytearray(b"\0")
        self.places = {"": 0}

    def add(self, kind: Type, behind_pointer: bool = False) -> int:
        """The number of ``kind`` here; written on first asking, with everything it refers to."""
        while kind.kind is Kind.TYPE_TAG:
            kind = kind.target
        if kind.kind is Kind.VOID:
            return 0
        forward = behind_pointer and kind.kind in COMPOSITE and bool(kind.name) and kind.id not in self.whole
        key = (kind.name, kind.kind) if forward else kind.id
        if key not in self.numbers:
            self.records.append(b"")
            number = self.numbers[key] = len(self.records)
            self.records[number - 1] = self._forward(kind) if forward else self._record(kind, behind_pointer)
        return self.numbers[key]

    def to_bytes(self) -> bytes:
        """The whole file: header, types, strings."""
        types = b"".join(self.records)
        header = struct.pack("<HBBIIIII", MAGIC, VERSION, 0, 24, 0, len(types), len(types), len(self.strings))
        return header + types + bytes(self.strings)

    def _string(self, text: str) -> int:
        if text not in self.places:
            self.places[text] = len(self.strings)
            self.strings += text.encode() + b"\0"
        return self.places[text]

    def _head(self, kind: Kind, name: str, count: int, flag: bool, word: int) -> bytes:
        return struct.pack("<III", self._string(name), flag << 31 | kind << 24 | count, word)

    def _forward(self, kind: Type) -> bytes:
        return self._head(Kind.FWD, kind.name, 0, kind.is_union, 0)

    def _record(self, kind: Type, behind_pointer: bool) -> bytes:
        if kind.kind in REFERRING:
            weak = behind_pointer or kind.kind is Kind.PTR
            return self._head(kind.kind, kind.name, 0, False, self.add(kind.target, weak))
        if kind.kind in COMPOSITE:
            return self._composite(kind)
        if kind.kind is Kind.ARRAY:
            index = next(found for found in kind.btf if found.kind is Kind.INT and found.size == 4)
            element = self.add(kind.target, behind_pointer)
            return self._head(Kind.ARRAY, "", 0, False, 0) + struct.pack("<III", element, self.add(index), kind.count)
        if kind.kind is Kind.INT:
            encoding = SIGNED * kind.is_signed | BOOL * kind.is_bool
            return self._head(Kind.INT, kind.name, 0, False, kind.size) + struct.pack("<I", encoding << 24 | kind.bits)
        if kind.kind in (Kind.ENUM, Kind.ENUM64):
            return self._enum(kind)
        if kind.kind is Kind.FUNC_PROTO:
            params = [(param.name, self.add(param.type, True)) for param in kind.params]
            params += [("", 0)] * kind.is_variadic
            words = b"".join(struct.pack("<II", self._string(name), number) for name, number in params)
            return self._head(Kind.FUNC_PROTO, "", len(params), False, self.add(kind.returns, True)) + words
        return self._head(kind.kind, kind.name, 0, kind.is_union, 0)

    def _composite(self, kind: Type) -> bytes:
        kept = list(_picked(kind, self.picks[kind.id]) if kind.id in self.picks else kind.members)
        flag = any(member.bit_size for member in kept)
        words = [(self._string(m.name), self.add(m.type), m.bit_size << 24 | m.bit_offset) for m in kept]
        packed = b"".join(struct.pack("<III", *word) for word in words)
        return self._head(kind.kind, kind.name, len(kept), flag, kind.size) + packed

    def _enum(self, kind: Type) -> bytes:
        values = kind.enumerators.items()
        wide = kind.kind is Kind.ENUM64
        words = [struct.pack("<I", self._string(name)) + _value(value, 8 if wide else 4) for name, value in values]
        return self._head(kind.kind, kind.name, len(words), kind.is_signed, kind.size) + b"".join(words)


def _value(value: int, size: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _picked(kind: Type, names: Collection[str], base_bits: int = 0) -> Iterator[Member]:
    """The named members; out of anonymous parts they are lifted to the structure itself."""
    for member in kind.members:
        if not member.name:
            yield from _picked(member.type.strip(), names, base_bits + member.bit_offset)
        elif member.name in names:
            yield member._replace(bit_offset=base_bits + member.bit_offset)


def cut(btf: Btf, names: Iterable[str], picks: Mapping[str, Collection[str]]) -> tuple[bytes, list[str]]:
    """BTF with these structs, enums and typedefs, and with picked members of others. And the names that are unknown."""
    found = {name: btf.find_struct(name) or btf.find(name) for name in [*names, *picks]}
    kinds = {name: kind for name, kind in found.items() if kind is not None}
    whole = {kind.strip().id for kind in kinds.values()}
    subset = Subset(whole, {kinds[name].strip().id: members for name, members in picks.items() if name in kinds})
    for kind in kinds.values():
        subset.add(kind)
    return subset.to_bytes(), sorted(found.keys() - kinds.keys())
