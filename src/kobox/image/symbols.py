"""The kernel's symbols in mapped tables: by name, by address, in address order; nothing is read at start."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kobox.image.index import Slots, build_slots, raw_of, text_of
from kobox.image.kallsyms import Kallsyms


class Symbol(NamedTuple):
    """``type`` is nm's letter (upper case is global, ``A``/``a`` absolute: per-CPU). ``size`` reaches to the next
    address and is 0 for the last symbol."""

    name: str
    address: int
    type: str
    size: int


class Located(NamedTuple):
    """What an address lies in: ``name+offset/size``, as the kernel prints it."""

    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name}+0x{self.offset:x}/0x{self.size:x}"


def symbol_tables(kallsyms: Kallsyms) -> dict[str, bytes | array[int]]:
    """The tables that ``Symbols`` reads."""
    offsets, at = array("I"), 0
    for name in kallsyms.names:
        offsets.append(at)
        at += len(name) + 1
    offsets.append(at)
    return {
        "sym.address": kallsyms.addresses,
        "sym.type": kallsyms.types,
        "sym.name_off": offsets,
        "sym.names": b"\0".join(kallsyms.names) + b"\0",
        "sym.slots": build_slots(kallsyms.names, len(kallsyms.names)),
    }


class Symbols(Mapping[str, int]):
    """Name to address, in address order. A name that several symbols have gives the lowest; ``all`` gives each."""

    __slots__ = ("_addresses", "_name_offs", "_names", "_slots", "_types")

    def __init__(self, tables: Mapping[str, memoryview]) -> None:
        self._addresses = tables["sym.address"].cast("Q")
        self._types = tables["sym.type"]
        self._name_offs = tables["sym.name_off"].cast("I")
        self._names = tables["sym.names"]
        self._slots = Slots(tables["sym.slots"], self._is_named)

    def __getitem__(self, name: str) -> int:
        number = self._slots.first(raw_of(name))
        if number < 0:
            raise KeyError(name)
        return self._addresses[number]

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[str]:
        return (text_of(name) for name in bytes(self._names).split(b"\0")[:-1])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._slots.first(raw_of(name)) >= 0

    def all(self, name: str) -> tuple[int, ...]:
        """Addresses of every symbol of that name, ascending; empty when there is none."""
        return tuple(self._addresses[number] for number in self._slots.all(raw_of(name)))

    def symbol(self, name: str) -> Symbol | None:
        """The whole record of the first symbol of that name."""
        number = self._slots.first(raw_of(name))
        return None if number < 0 else self._record(number)

    def at(self, address: int) -> Located | None:
        """The symbol that holds the address, of several at one address the first; None below the first symbol and at or
        behind the last."""
        number = bisect_right(self._addresses, address) - 1
        if number < 0 or number == len(self._addresses) - 1:
            return None
        start = self._addresses[number]
        number = bisect_left(self._addresses, start, 0, number + 1)
        return Located(text_of(self._name(number)), address - start, self._size(number))

    def exactly_at(self, address: int) -> tuple[str, ...]:
        """Names of every symbol at this very address."""
        number = bisect_left(self._addresses, address)
        names = []
        while number < len(self._addresses) and self._addresses[number] == address:
            names.append(text_of(self._name(number)))
            number += 1
        return tuple(names)

    def records(self) -> Iterator[Symbol]:
        """Every symbol in address order."""
        addresses = self._addresses.tolist()
        sizes, following = [], addresses[-1:]
        for address in reversed(addresses):
            if address != following[-1]:
                following.append(address)
            sizes.append(following[-2] - address if len(following) > 1 else 0)
        return map(Symbol, self, addresses, map(chr, self._types), reversed(sizes))

    def prefixed(self, prefix: str) -> Iterator[Symbol]:
        """Symbols whose name begins so, in address order; a scan of all names, 2 ms."""
        blob, pattern = bytes(self._names), b"\0" + raw_of(prefix)
        if blob.startswith(pattern[1:]):
            yield self._record(0)
        at = blob.find(pattern)
        while at >= 0:
            yield self._record(bisect_left(self._name_offs, at + 1))
            at = blob.find(pattern, at + 1)

    def _name(self, number: int) -> bytes:
        offsets = self._name_offs
        return bytes(self._names[offsets[number] : offsets[number + 1] - 1])

    def _is_named(self, number: int, name: bytes) -> bool:
        start = self._name_offs[number]
        return self._name_offs[number + 1] - start == len(name) + 1 and self._names[start : start + len(name)] == name

    def _size(self, number: int) -> int:
        start = self._addresses[number]
        following = bisect_right(self._addresses, start)
        return self._addresses[following] - start if following < len(self._addresses) else 0

    def _record(self, number: int) -> Symbol:
        return Symbol(
            text_of(self._name(number)), self._addresses[number], chr(self._types[number]), self._size(number)
        )
