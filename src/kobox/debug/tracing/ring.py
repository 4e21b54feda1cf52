"""The kernel's ring buffer as ``trace_pipe_raw`` gives it, and the records in it as their ``format`` files say.

Follows ``include/linux/ring_buffer.h``; where things lie in a page is read from ``events/header_page``, where they lie
in a record from ``events/SYSTEM/NAME/format``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_DELTA_BITS, _LENGTH_MASK = 5, 31
_MISSED_EVENTS, _MISSED_STORED = 1 << 31, 1 << 30
_STAMP_BITS = 59
"""Absolute stamps carry this many bits; the rest is as in the page's own."""
_FIELD = re.compile(r"field:\s*([^;]*?)\s*(\w+)(\[[^\]]*\])?;\s*offset:(\d+);\s*size:(\d+);(?:\s*signed:(\d+);)?")
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Field(NamedTuple):
    """A member of a record; ``kind`` is its C type without the dimension."""

    name: str
    kind: str
    offset: int
    size: int
    signed: bool
    is_array: bool


@dataclass(frozen=True, slots=True)
class Format:
    """The layout of one kind of record."""

    system: str
    name: str
    number: int
    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, system: str, text: str) -> Format:
        """A ``format`` file."""
        name = re.search(r"^name: (.*)$", text, re.MULTILINE)
        number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
        return cls(system, name[1] if name else "", int(number[1]) if number else 0, parse_fields(text))

    def picker(self, *names: str) -> struct.Struct:
        """Unpacks these members, which must be numbers, from the start of a record in the order they lie in."""
        code, end = "<", 0
        for one in sorted((self.field(name) for name in names), key=lambda one: one.offset):
            letter = _CODES[one.size]
            code += f"{one.offset - end}x" + (letter.lower() if one.signed else letter)
            end = one.offset + one.size
        return struct.Struct(code)

    def field(self, name: str) -> Field:
        return next(one for one in self.fields if one.name == name)

    def has(self, name: str) -> bool:
        return any(one.name == name for one in self.fields)

    def decode(self, data: bytes) -> dict[str, int | str]:
        """Every member by name but those common to all records: numbers, texts, and other arrays as hex digits."""
        return {one.name: _value(one, data) for one in self.fields if not one.name.startswith("common_")}


def parse_fields(text: str) -> tuple[Field, ...]:
    """The ``field:`` lines of a ``format`` or ``header_page`` file."""
    return tuple(
        Field(name, kind, int(offset), int(size), signed == "1", bool(dimension))
        for kind, name, dimension, offset, size, signed in _FIELD.findall(text)
    )


def _value(one: Field, data: bytes) -> int | str:
    raw = data[one.offset : one.offset + one.size]
    if one.kind.startswith(("__data_loc", "__rel_loc")):
        word = int.from_bytes(raw, "little")
        start = (word & 0xFFFF) + (one.offset + one.size if one.kind.startswith("__rel_loc") else 0)
        content = data[start : start + (word >> 16)]
        return _text(content) if "char" in one.kind else content.hex()
    if one.is_array or one.size not in _CODES:
        return _text(raw) if "char" in one.kind and "unsigned" not in one.kind else raw.hex()
    return int.from_bytes(raw, "little", signed=one.signed)


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")


class Page(NamedTuple):
    """Records of one page of the buffer, with their times, and how many were lost before them."""

    records: list[tuple[int, bytes]]
    lost: int


class PageReader:
    """Reads pages of one kernel's buffer; ``header`` is the text of ``events/header_page``."""

    def __init__(self, header: str) -> None:
        fields = {one.name: one for one in parse_fields(header)}
        self._commit, self._data = fields["commit"], fields["data"]
        self._commit_size = max(self._commit.size, 4)
        self.size = self._data.offset + self._data.size

    def read(self, page: bytes, taken: int = 0) -> Page:
        """``taken``: bytes of the page's data whose records are known already."""
        (stamp,) = struct.unpack_from("<Q", page)
        place = self._commit.offset
        commit = int.from_bytes(page[place : place + self._commit_size], "little")
        used = commit & (_MISSED_STORED - 1)
        start = self._data.offset
        lost = 0
        if commit & _MISSED_EVENTS:
            lost = 1
            if commit & _MISSED_STORED:
                lost = int.from_bytes(page[start + used : start + used + self._commit.size], "little")
        return Page(list(_records(page[start : start + used], stamp, taken)), lost)


def _records(data: bytes, time: int, taken: int) -> Iterator[tuple[int, bytes]]:
    at, end = 0, len(data)
    while at + 4 <= end:
        known = at < taken
        (word,) = struct.unpack_from("<I", data, at)
        kind, delta = word & _LENGTH_MASK, word >> _DELTA_BITS
        at += 4
        if kind == _PADDING:
            if not delta:
                return
            at += int.from_bytes(data[at : at + 4], "little")
            time += delta
        elif kind in (_TIME_EXTEND, _TIME_STAMP):
            long = (int.from_bytes(data[at : at + 4], "little") << 27) + delta
            time = time + long if kind == _TIME_EXTEND else long | time >> _STAMP_BITS << _STAMP_BITS
            at += 4
        else:
            time += delta
            size = kind * 4
            if not kind:
                size = int.from_bytes(data[at : at + 4], "little") - 4
                at += 4
            if not known:
                yield time, data[at : at + size]
            at += size
