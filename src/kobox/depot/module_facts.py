"""What depmod needs to know of one module, read with as few bytes and steps as can be.

An ordinary module takes a handful of ``pread`` calls (``sections``): section headers, ``.modinfo`` with
``__versions``, the symbol table with its strings. Work on symbols is done on whole columns. Whatever is out of the
ordinary is left to ``module_file``, the plain reader of all formats, with which this one must agree.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

from kobox.depot.module_file import ModuleElf, info_strings, is_compressed, unpacked
from kobox.depot.sections import ELF64_LE, HEAD_SIZE, Odd, Sections

_GAP = 4096
"""Bytes between two sections that are rather read than skipped by a second call."""
_IS_ZERO = bytes([1]) + bytes(255)

Row = tuple[bytes, bytes, bytes, bytes, bytes, int, str]
"""The fields of ``Facts``, for ``marshal``; the error is number 5."""


class Facts(NamedTuple):
    """Lists of texts, each text ended by NUL (``listed``). Symbol names are as depmod looks them up."""

    exports: bytes = b""
    needs: bytes = b""
    """Undefined symbols in table order, then what only ``__versions`` names."""
    aliases: bytes = b""
    softdeps: bytes = b""
    weakdeps: bytes = b""
    error: int = 0
    """Why the file could not be read as a module; 0 when it could."""
    reason: str = ""


def facts_of_file(path: str) -> Facts:
    """Read one module. Never raises for what is wrong with the file: that is in the record."""
    return Facts._make(facts_row(path))


def facts_row(path: str) -> Row:
    """As ``facts_of_file``, without the record's class."""
    row = facts_unless_same(path, b"")[1]
    assert row
    return row


def facts_unless_same(path: str, known: bytes) -> tuple[bytes, Row | tuple[()]]:
    """A digest of a compressed file's bytes (empty for others), and facts; no facts if the digest is the known
    one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(fd, HEAD_SIZE, 0)
            if head[:6] == ELF64_LE:
                try:
                    return b"", _quick(Sections.of_file(fd, head))
                except Odd:
                    pass
            with open(fd, "rb", buffering=0, closefd=False) as file:
                data = file.read()
        finally:
            os.close(fd)
        if not is_compressed(head):
            return b"", _row_of_bytes(unpacked(data, path), quick=False)
        digest = b"%x %x %x" % (len(data), zlib.crc32(data), zlib.adler32(data))
        return digest, (() if digest == known else _row_of_bytes(unpacked(data, path), quick=True))
    except OSError as error:
        return b"", (b"", b"", b"", b"", b"", error.errno or errno.EIO, error.strerror or "")


def facts_of_bytes(data: bytes, quick: bool = True) -> Facts:
    """As ``facts_of_file``, from a decompressed module; ``quick=False`` reads it the plain way."""
    return Facts._make(_row_of_bytes(data, quick))


def listed(ended: bytes) -> list[bytes]:
    """The texts of a field of ``Facts``."""
    return ended.split(b"\0")[:-1]


def ended(texts: Sequence[bytes]) -> bytes:
    """Texts as a field of ``Facts``."""
    return b"\0".join([*texts, b""])


def _row_of_bytes(data: bytes, quick: bool) -> Row:
    if quick and data[:6] == ELF64_LE:
        try:
            return _quick(Sections.of_bytes(data))
        except Odd:
            pass
    try:
        elf = ModuleElf(data)
    except OSError as error:
        return b"", b"", b"", b"", b"", error.errno or errno.EIO, error.strerror or ""
    exports = dict.fromkeys(symbol.name for symbol in elf.exports() or ())
    needs = _looked_up([symbol.name for symbol in elf.needs()])
    info = elf.info() or []
    told = [ended([text[len(key) :] for text in info if text.startswith(key)]) for key in _KEYS]
    return ended([*exports]), ended(needs), told[0], told[1], told[2], 0, ""


_KEYS = (b"alias=", b"softdep=", b"weakdep=")


def _looked_up(names: list[bytes]) -> list[bytes]:
    """Names as symbols are looked up by: on PowerPC64 ``.foo`` means ``foo``."""
    return [name for name in (name[1:] if name[:1] == b"." else name for name in names) if name]


class _PlainNames(dict[bytes, bytes]):
    """56 padded bytes to the name in them; the same few thousand names come up in every module."""

    def __missing__(self, padded: bytes) -> bytes:
        name = self[padded] = padded[: padded.index(0)]
        return name


_plain_name = _PlainNames().__getitem__


@lru_cache(maxsize=2048)
def _version_names(count: int) -> struct.Struct:
    return struct.Struct("8x56s" * count)


def _quick(sections: Sections) -> Row:
    table, strings = sections.find(b".symtab\0"), sections.find(b".strtab\0")
    if table is None or strings is None or table[1] % 24:
        raise Odd
    info, versions = _info_and_versions(sections)
    symbols, texts = _symbols_and_texts(sections, table, strings)
    exports = _exports(sections, symbols, table[1], texts)
    needs = _needs(symbols, table[1], texts, sections.info(table[2]))
    if versions:
        names = list(map(_plain_name, _version_names(len(versions) // 64).unpack(versions)))
        left = set(names).difference(needs)
        needs += left if len(left) == 1 else [name for name in names if name in left]
    if needs and min(needs) < b"/":  # only a name that is empty or begins with a dot (or odder) sorts so low
        needs = _looked_up(needs)
    needs.append(b"")
    softdeps = _told(info, b"\0softdep=") if b"softdep=" in info else b""
    weakdeps = _told(info, b"\0weakdep=") if b"weakdep=" in info else b""
    return ended(exports), b"\0".join(needs), _told(info, b"\0alias="), softdeps, weakdeps, 0, ""


def _told(info: bytes, key: bytes) -> bytes:
    """The values of a key; ``info`` begins with a NUL, as the key does."""
    values = [rest.partition(b"\0")[0] for rest in info.split(key)]
    values.append(b"")
    return b"\0".join(values[1:])


def _info_and_versions(sections: Sections) -> tuple[bytes, bytes]:
    """The two sections, mostly neighbours, by one read if so; empty when missing or of no sound size.

    A NUL is put before ``.modinfo``, so that all its strings have one before them.
    """
    info, versions = sections.find(b".modinfo\0"), sections.find(b"__versions\0")
    if versions is None or versions[1] % 64:
        return (b"" if info is None else b"\0" + sections.whole(info[0], info[1])), b""
    info_off, info_size, _ = info or (versions[0], 0, 0)
    off, size, _ = versions
    start = min(info_off, off)
    end = max(info_off + info_size, off + size)
    if end - start > info_size + size + _GAP:
        told, data = sections.whole(info_off, info_size), sections.whole(off, size)
    else:
        both = sections.whole(start, end - start)
        told, data = both[info_off - start : info_off - start + info_size], both[off - start : off - start + size]
    if data[63::64].count(0) != size // 64:
        raise Odd
    return b"\0" + told, data


def _symbols_and_texts(
    sections: Sections, table: tuple[int, int, int], strings: tuple[int, int, int]
) -> tuple[bytes, bytes]:
    """The symbol table (and more behind it), and its strings, which end in NUL."""
    gap = strings[0] - table[0] - table[1]
    if 0 <= gap <= _GAP:
        symbols = sections.whole(table[0], table[1] + gap + strings[1])
        texts = symbols[table[1] + gap :]
    else:
        symbols, texts = sections.whole(table[0], table[1]), sections.whole(strings[0], strings[1])
    if texts[-1:] != b"\0":
        raise Odd
    return symbols, texts


def _exports(sections: Sections, symbols: bytes, size: int, texts: bytes) -> list[bytes]:
    """Names behind ``__crc_`` of symbols, else the strings of ``__ksymtab_strings``."""
    find = texts.find
    at = find(b"__crc_")
    if at >= 0:
        places: set[int] = set()
        while at >= 0:
            places.add(at)
            at = find(b"__crc_", at + 6)
        names = memoryview(symbols)[:size].cast("I")[6::6].tolist()
        places.intersection_update(names)
        if places:
            if max(names) >= len(texts):
                raise Odd
            return list(dict.fromkeys([texts[at + 6 : find(b"\0", at)] for at in sorted(places)]))
    strings = sections.bytes_of(b"__ksymtab_strings\0")
    return [] if strings is None else list(dict.fromkeys(info_strings(strings)))


def _needs(symbols: bytes, size: int, texts: bytes, first_global: int) -> list[bytes]:
    """Names of undefined symbols, in table order. They are never local; if one is, this is an odd file."""
    low, high = symbols[6:size:24], symbols[7:size:24]
    count = len(low) - first_global
    if first_global <= 0 or count < 0:
        raise Odd
    at = low.find(0, 1, first_global)
    while at >= 0:
        if not high[at]:
            raise Odd
        at = low.find(0, at + 1, first_global)
    low_zero = int.from_bytes(low[first_global:].translate(_IS_ZERO), "little")
    high_zero = int.from_bytes(high[first_global:].translate(_IS_ZERO), "little")
    is_undefined = (low_zero & high_zero).to_bytes(count, "little")
    places = list(compress(memoryview(symbols)[:size].cast("I")[6 * first_global :: 6].tolist(), is_undefined))
    if places and max(places) >= len(texts):
        raise Odd
    find = texts.find
    return [texts[at : find(b"\0", at)] for at in places]
