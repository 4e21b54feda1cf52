"""What the kernel exports to modules: ``__ksymtab*`` with its CRCs, licences and name spaces.

Each record is three 32-bit distances from their own place: value, name, name space. Kernels keep GPL-only exports in a
table of their own, newer ones in the common table with a byte of flags each. Follows include/linux/export.h and
kernel/module/internal.h.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kobox.errors import BadFile
from kobox.image.index import Slots, build_slots, raw_of, text_of
from kobox.image.vmlinux import Layout

_RECORD = struct.Struct("<QIIII")
RECORD_SIZE = _RECORD.size
_GPL, _HAS_CRC = 1, 2  # the kernel's own flag, and one of this table
_KSYM = struct.Struct("<iii")
_MASK = 0xFFFFFFFFFFFFFFFF


class Export(NamedTuple):
    """``crc`` is None in a kernel without CONFIG_MODVERSIONS; ``namespace`` is empty for the common one."""

    name: str
    address: int
    crc: int | None
    gpl: bool
    namespace: str


def export_tables(flat: bytes, layout: Layout, symbols: Mapping[str, int], name: str) -> dict[str, bytes | array[int]]:
    """The tables that ``Exports`` reads, in the kernel's order: by name, the common ones first."""
    records, names, strings = bytearray(), [], bytearray()
    namespaces: dict[bytes, int] = {}
    for suffix, gpl in (("", 0), ("_gpl", _GPL)):
        table = _range(layout, symbols, f"ksymtab{suffix}")
        if len(table) % _KSYM.size:
            raise BadFile(name, f"__ksymtab{suffix}", "size is no multiple of its records'", len(table), _KSYM.size)
        count = len(table) // _KSYM.size
        crcs = _column(flat, _range(layout, symbols, f"kcrctab{suffix}"), "I", count)
        flags = _column(flat, _range(layout, symbols, f"kflagstab{suffix}"), "B", count)
        for number, place in enumerate(table[:: _KSYM.size]):
            value, name_rel, namespace_rel = _KSYM.unpack_from(flat, place)
            export = _string(flat, place + 4 + name_rel, name)
            namespace = _string(flat, place + 8 + namespace_rel, name) if namespace_rel else b""
            if namespace not in namespaces:
                namespaces[namespace] = len(strings)
                strings += namespace + b"\0"
            address = (layout.text_base + place + value) & _MASK
            crc = 0 if crcs is None else crcs[number]
            flag = gpl | (0 if crcs is None else _HAS_CRC) | (flags[number] & _GPL if flags else 0)
            records += _RECORD.pack(address, crc, flag, len(strings), namespaces[namespace])
            strings += export + b"\0"
            names.append(export)
    return {"exp.records": bytes(records), "exp.strings": bytes(strings), "exp.slots": build_slots(names, len(names))}


class Exports(Mapping[str, Export]):
    """Exports by name, read where they lie in the mapped tables."""

    __slots__ = ("_records", "_slots", "_strings")

    def __init__(self, tables: Mapping[str, memoryview]) -> None:
        self._records = tables["exp.records"]
        self._strings = bytes(tables["exp.strings"])
        self._slots = Slots(tables["exp.slots"], self._is_named)

    def __getitem__(self, name: str) -> Export:
        number = self._slots.first(raw_of(name))
        if number < 0:
            raise KeyError(name)
        address, crc, flags, _, namespace = _RECORD.unpack_from(self._records, number * _RECORD.size)
        return Export(name, address, crc if flags & _HAS_CRC else None, bool(flags & _GPL), self._text(namespace))

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    def __iter__(self) -> Iterator[str]:
        return (text_of(self._name(number)) for number in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._slots.first(raw_of(name)) >= 0

    def _name(self, number: int) -> bytes:
        start = _RECORD.unpack_from(self._records, number * _RECORD.size)[3]
        return self._strings[start : self._strings.index(b"\0", start)]

    def _is_named(self, number: int, name: bytes) -> bool:
        return self._name(number) == name

    def _text(self, start: int) -> str:
        return text_of(self._strings[start : self._strings.index(b"\0", start)])


def _range(layout: Layout, symbols: Mapping[str, int], table: str) -> range:
    """Offsets in the flat kernel of a table, by the symbols around it; empty when this kernel has it not."""
    start, stop = symbols.get(f"__start___{table}"), symbols.get(f"__stop___{table}")
    return range(start - layout.text_base, stop - layout.text_base) if start and stop else range(0)


def _column(flat: bytes, place: range, code: str, count: int) -> tuple[int, ...] | None:
    """A number beside each export, None unless there is one for each."""
    if len(place) != count * struct.calcsize(f"<{code}"):
        return None
    return struct.unpack_from(f"<{count}{code}", flat, place.start)


def _string(flat: bytes, offset: int, name: str) -> bytes:
    end = flat.find(b"\0", offset, offset + 1024)
    if offset < 0 or end < 0:
        raise BadFile(name, "exports", "a name lies outside the kernel", offset)
    return flat[offset:end]
