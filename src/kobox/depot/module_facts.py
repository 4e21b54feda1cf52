"""What depmod needs to know of one module, read with as few bytes and steps as can be.

``facts_of_file`` reads a 64-bit little-endian module by a handful of ``pread`` calls: section headers, ``.modinfo``,
``__versions``, the symbol table and its strings. Work on symbols is done on whole columns. Whatever is out of the
ordinary is left to ``module_file``, the plain reader of all formats, with which this one must agree.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import compress
from typing import NamedTuple

from kobox.depot.module_file import ModuleElf, info_strings, is_compressed, unpacked

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PLACE = struct.Struct("<QQ")
_ELF64_LE = b"\x7fELF\x02\x01"
_AHEAD = 2048
"""How much before the section headers is read with them: section names mostly stand there."""
_GAP = 4096
"""Bytes between two sections that are rather read than skipped by a second call."""
_IS_ZERO = bytes([1]) + bytes(255)

Read = Callable[[int, int], bytes]
"""(count, offset) to bytes"""


class Facts(NamedTuple):
    """Lists of texts, each joined by NUL bytes. Symbol names are as depmod looks them up."""

    exports: bytes = b""
    needs: bytes = b""
    """Undefined symbols in table order, then what only ``__versions`` names."""
    aliases: bytes = b""
    softdeps: bytes = b""
    weakdeps: bytes = b""
    error: int = 0
    """Why the file could not be read as a module; 0 when it could."""
    reason: str = ""


class _Odd(Exception):
    """This file is for the plain reader."""


def facts_of_file(path: str) -> Facts:
    """Read one module. Never raises for what is wrong with the file: that is in the record."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(fd, 64, 0)
            if head[:6] == _ELF64_LE:
                try:
                    return _quick(fd, head)
                except _Odd:
                    pass
            with open(fd, "rb", buffering=0, closefd=False) as file:
                data = unpacked(file.read(), path)
        finally:
            os.close(fd)
        return facts_of_bytes(data, quick=is_compressed(head))
    except OSError as error:
        return Facts(error=error.errno or errno.EIO, reason=error.strerror or "")


def content_digest(path: str) -> bytes:
    """A digest of a compressed file's bytes; empty for a plain or unreadable one, which is as quickly read anew."""
    try:
        with open(path, "rb", buffering=0) as file:
            start = file.read(8)
            if not is_compressed(start):
                return b""
            data = start + file.read()
            return b"%x %x %x" % (len(data), zlib.crc32(data), zlib.adler32(data))
    except OSError:
        return b""


def facts_of_bytes(data: bytes, quick: bool = True) -> Facts:
    """As ``facts_of_file``, from a decompressed module; ``quick=False`` reads it the plain way."""
    if quick and data[:6] == _ELF64_LE:
        try:
            return _quick(data, data[:64])
        except _Odd:
            pass
    try:
        elf = ModuleElf(data)
    except OSError as error:
        return Facts(error=error.errno or errno.EIO, reason=error.strerror or "")
    exports = [symbol.name for symbol in elf.exports() or ()]
    needs = _looked_up([symbol.name for symbol in elf.needs()])
    return Facts(b"\0".join(dict.fromkeys(exports)), b"\0".join(needs), *_told(elf.info() or []))


def listed(joined: bytes) -> list[bytes]:
    """The texts of a field of ``Facts``."""
    return joined.split(b"\0") if joined else []


def _looked_up(names: list[bytes]) -> list[bytes]:
    """Names as symbols are looked up by: on PowerPC64 ``.foo`` means ``foo``."""
    return [name for name in (name[1:] if name[:1] == b"." else name for name in names) if name]


def _told(info: list[bytes]) -> tuple[bytes, bytes, bytes]:
    """alias, softdep and weakdep values of ``.modinfo`` strings."""
    aliases = [text[6:] for text in info if text[:6] == b"alias="]
    softdeps = [text[8:] for text in info if text[:8] == b"softdep="]
    weakdeps = [text[8:] for text in info if text[:8] == b"weakdep="]
    return b"\0".join(aliases), b"\0".join(softdeps), b"\0".join(weakdeps)


class _PlainNames(dict[bytes, bytes]):
    """56 padded bytes to the name in them; the same few thousand names come up in every module."""

    def __missing__(self, padded: bytes) -> bytes:
        name = self[padded] = padded[: padded.index(0)]
        return name


_PLAIN_NAMES = _PlainNames()


@lru_cache(maxsize=2048)
def _version_names(count: int) -> struct.Struct:
    return struct.Struct("8x56s" * count)


class _Headers:
    """Section headers of a 64-bit little-endian file, found by name without looking at each."""

    __slots__ = ("_ids", "_names", "_size", "_table")

    def __init__(self, read: Read, head: bytes, size: int) -> None:
        if len(head) != 64 or size <= 64:
            raise _Odd
        fields = _EHDR.unpack(head)
        offset, entry_size, count, names_at = fields[6], fields[11], fields[12], fields[13]
        end = offset + 64 * count
        if entry_size != 64 or end > size or not 0 < names_at < count or fields[2] in (2, 43):
            raise _Odd
        start = max(offset - _AHEAD, 0)
        table = read(end - start, start)
        names_off, names_size = _PLACE.unpack_from(table, offset - start + 64 * names_at + 24)
        if start <= names_off and names_off + names_size <= end:
            names = table[names_off - start : names_off - start + names_size]
        elif names_off + names_size <= size:
            names = read(names_size, names_off)
        else:
            raise _Odd
        if len(table) != end - start or names[-1:] != b"\0":
            raise _Odd
        self._names = names
        self._table = table[offset - start :]
        self._ids: list[int] = memoryview(self._table).cast("I")[0::16].tolist()
        self._size = size

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        """(offset, size, sh_info) of a section; ``name`` ends in NUL. None when there is surely none."""
        times = self._names.count(name)
        if not times:
            return None
        at = self._names.find(name)
        if times > 1 or at == 0 or self._names[at - 1] or at not in self._ids:
            raise _Odd
        entry = 64 * self._ids.index(at)
        offset, size = _PLACE.unpack_from(self._table, entry + 24)
        if offset + size > self._size:
            raise _Odd
        return offset, size, int.from_bytes(self._table[entry + 44 : entry + 48], "little")


class SectionReader:
    """Sections of an ordinary module by name, for those who want few of them."""

    __slots__ = ("_headers", "_read")

    def __init__(self, headers: _Headers, read: Read) -> None:
        self._headers, self._read = headers, read

    @classmethod
    def of_file(cls, fd: int) -> SectionReader | None:
        """Of an open file; None when it is for the plain reader."""
        head = os.pread(fd, 64, 0)
        try:
            return cls(*_opened(fd, head)) if head[:6] == _ELF64_LE else None
        except _Odd:
            return None

    @classmethod
    def of_bytes(cls, data: bytes) -> SectionReader | None:
        """Of a whole module; None when it is for the plain reader."""
        try:
            return cls(*_opened(data, data[:64])) if data[:6] == _ELF64_LE else None
        except _Odd:
            return None

    def read(self, name: bytes) -> bytes | None:
        """A section's bytes; ``name`` ends in NUL. None when it is missing or for the plain reader to judge."""
        try:
            found = self._headers.find(name)
            return None if found is None else _whole(self._read, *found[:2])
        except _Odd:
            return None


def _opened(source: int | bytes, head: bytes) -> tuple[_Headers, Read]:
    if isinstance(source, bytes):
        data = source

        def read(count: int, offset: int) -> bytes:
            return data[offset : offset + count]

        return _Headers(read, head, len(data)), read
    from_file: Read = partial(os.pread, source)
    return _Headers(from_file, head, os.fstat(source).st_size), from_file


def _quick(source: int | bytes, head: bytes) -> Facts:
    headers, read = _opened(source, head)
    table, strings = headers.find(b".symtab\0"), headers.find(b".strtab\0")
    if table is None or strings is None or table[1] % 24:
        raise _Odd
    info, versions = _info_and_versions(read, headers)
    symbols, texts = _symbols_and_texts(read, table, strings)
    exports = _exports(read, headers, symbols, texts)
    needs = _needs(symbols, texts, table[2])
    if versions:
        told = list(map(_PLAIN_NAMES.__getitem__, _version_names(len(versions) // 64).unpack(versions)))
        left = set(told).difference(needs)
        needs += left if len(left) == 1 else [name for name in told if name in left]
    if needs and min(needs) < b"/":  # only a name that is empty or begins with a dot (or odder) sorts so low
        needs = _looked_up(needs)
    return Facts(b"\0".join(exports), b"\0".join(needs), *_told(info_strings(info)))


def _info_and_versions(read: Read, headers: _Headers) -> tuple[bytes, bytes]:
    """The two sections, mostly neighbours, by one read if so; empty when missing or of no sound size."""
    info, versions = headers.find(b".modinfo\0"), headers.find(b"__versions\0")
    if versions is None or versions[1] % 64:
        return (b"" if info is None else _whole(read, *info[:2])), b""
    if info is None:
        data = _whole(read, *versions[:2])
        info_data = b""
    else:
        start = min(info[0], versions[0])
        end = max(info[0] + info[1], versions[0] + versions[1])
        if end - start > info[1] + versions[1] + _GAP:
            info_data, data = _whole(read, *info[:2]), _whole(read, *versions[:2])
        else:
            both = _whole(read, start, end - start)
            info_data = both[info[0] - start : info[0] - start + info[1]]
            data = both[versions[0] - start : versions[0] - start + versions[1]]
    if data[63::64].count(0) != len(data) // 64:
        raise _Odd
    return info_data, data


def _symbols_and_texts(
    read: Read, table: tuple[int, int, int], strings: tuple[int, int, int]
) -> tuple[memoryview, bytes]:
    """The symbol table, and its strings with a NUL at their end."""
    gap = strings[0] - table[0] - table[1]
    if 0 <= gap <= _GAP:
        both = _whole(read, table[0], table[1] + gap + strings[1])
        symbols, texts = memoryview(both)[: table[1]], both[table[1] + gap :]
    else:
        symbols, texts = memoryview(_whole(read, *table[:2])), _whole(read, *strings[:2])
    if texts[-1:] != b"\0":
        raise _Odd
    return symbols, texts


def _exports(read: Read, headers: _Headers, symbols: memoryview, texts: bytes) -> list[bytes]:
    """Names behind ``__crc_`` of symbols, else the strings of ``__ksymtab_strings``."""
    find = texts.find
    places: set[int] = set()
    at = find(b"__crc_")
    while at >= 0:
        places.add(at)
        at = find(b"__crc_", at + 6)
    if places:
        names = symbols.cast("I")[6::6].tolist()
        places.intersection_update(names)
        if places:
            if max(names) >= len(texts):
                raise _Odd
            return list(dict.fromkeys(texts[at + 6 : find(b"\0", at)] for at in sorted(places)))
    section = headers.find(b"__ksymtab_strings\0")
    return [] if section is None else list(dict.fromkeys(info_strings(_whole(read, *section[:2]))))


def _needs(symbols: memoryview, texts: bytes, first_global: int) -> list[bytes]:
    """Names of undefined symbols, in table order. They are never local; if one is, this is an odd file."""
    low, high = bytes(symbols[6::24]), bytes(symbols[7::24])
    if not 0 < first_global <= len(low):
        raise _Odd
    at = low.find(0, 1, first_global)
    while at >= 0:
        if not high[at]:
            raise _Odd
        at = low.find(0, at + 1, first_global)
    count = len(low) - first_global
    low_zero = int.from_bytes(low[first_global:].translate(_IS_ZERO), "little")
    high_zero = int.from_bytes(high[first_global:].translate(_IS_ZERO), "little")
    is_undefined = (low_zero & high_zero).to_bytes(count, "little")
    places = list(compress(symbols.cast("I")[6 * first_global :: 6].tolist(), is_undefined))
    if places and max(places) >= len(texts):
        raise _Odd
    find = texts.find
    return [texts[at : find(b"\0", at)] for at in places]


def _whole(read: Read, offset: int, size: int) -> bytes:
    data = read(size, offset)
    if len(data) != size:  # the file shrank while it was read
        raise _Odd
    return data
