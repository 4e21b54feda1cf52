"""A module file's bytes and what kmod reads in them: exports, needed symbols, metadata. Any ELF class and byte order.

This is the reference that ``module_facts`` must agree with. It follows libkmod, quirks included, because depmod's
output depends on them: a section that doesn't fit the file is passed over, a symbol table that makes no sense means
"no symbols", and a string may run on behind the end of its section. Everything wrong with a file is an ``OSError``
with the number that kmod reports.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

_XZ, _ZSTD, _GZIP = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x1f\x8b"
_SHORTEST = 6
_LARGEST = 1 << 30
_STT_REGISTER = 13
_SPARC = (2, 43)
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STB_WEAK = 2
_VERSION_SIZE = 64


class Symbol(NamedTuple):
    """An exported or a needed symbol. ``crc`` is 0 when the module doesn't say; ``weak`` only of needed ones."""

    name: bytes
    crc: int
    weak: bool = False


def read_module_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole file, decompressed by its first bytes. ``OSError``: unreadable, too short, or a broken stream
    (EINVAL)."""
    with open(path, "rb", buffering=0) as file:
        data = file.read()
    return unpacked(data, os.fspath(path))


def unpacked(data: bytes, path: str) -> bytes:
    """As ``read_module_bytes``, from a file's bytes."""
    if len(data) < _SHORTEST:
        raise OSError(errno.EINVAL, "too short for a module", path)
    if data.startswith(_XZ):
        return _unxz(data, path)
    if data.startswith(_ZSTD):
        return _unzstd(data, path)
    if data.startswith(_GZIP):
        return _gunzip(data, path)
    return data


def is_compressed(start: bytes) -> bool:
    """Whether a file that begins with these bytes (6 or more) is one that ``unpacked`` changes."""
    return start.startswith((_XZ, _ZSTD, _GZIP))


class ModuleElf:
    """Sections of an ELF file by name. ``OSError`` ENOEXEC when it is none, EINVAL when its tables don't fit."""

    __slots__ = ("_by_index", "_sections", "data", "is_64", "machine", "order")

    def __init__(self, data: bytes, path: str = "") -> None:
        self.data = data
        if len(data) <= 16 or data[:4] != b"\x7fELF":
            raise OSError(errno.ENOEXEC, "not an ELF file", path)
        broken = OSError(errno.EINVAL, "not an ELF file that can be read", path)
        if data[4] not in (1, 2) or data[5] not in (1, 2):
            raise broken
        self.is_64 = data[4] == 2
        self.order = "<" if data[5] == 1 else ">"
        header = struct.Struct(self.order + ("16sHHIQQQIHHHHHH" if self.is_64 else "16sHHIIIIIHHHHHH"))
        if len(data) <= header.size:
            raise broken
        fields = header.unpack_from(data)
        self.machine = fields[2]
        offset, entry_size, count, names_at = fields[6], fields[11], fields[12], fields[13]
        entry = struct.Struct(self.order + ("IIQQQQIIQQ" if self.is_64 else "IIIIIIIIII"))
        if entry_size != entry.size or offset + entry.size * count > len(data) or not 0 < names_at < count:
            raise broken
        headers = list(entry.iter_unpack(data[offset : offset + entry.size * count]))
        names_off, names_size = headers[names_at][4:6]
        if not names_size or names_off + names_size > len(data) or data[names_off + names_size - 1]:
            raise broken
        self._sections: dict[bytes, tuple[int, int]] = {}
        for fields in headers[1:]:
            if fields[4] + fields[5] <= len(data) and fields[0] < names_size:
                name = self.text(names_off + fields[0])
                self._sections.setdefault(name, (fields[4], fields[5]))
        self._by_index = [(fields[4], fields[5]) for fields in headers]

    def section(self, name: bytes) -> tuple[int, int] | None:
        """(offset, size) of the first section of that name that lies inside the file."""
        return self._sections.get(name)

    def bytes_of(self, name: bytes) -> bytes | None:
        """A section's bytes; None when there is none."""
        found = self._sections.get(name)
        return None if found is None else self.data[found[0] : found[0] + found[1]]

    def text(self, at: int) -> bytes:
        """The NUL-terminated text at an offset, wherever it ends."""
        end = self.data.find(b"\0", at)
        return self.data[at:] if end < 0 else self.data[at:end]

    def info(self) -> list[bytes] | None:
        """The strings of ``.modinfo`` as they stand (``key=value``); None without that section."""
        data = self.bytes_of(b".modinfo")
        return None if data is None else info_strings(data)

    def exports(self) -> list[Symbol] | None:
        """What the module exports: its ``__crc_`` symbols, else the strings of ``__ksymtab_strings``; None
        without."""
        symbols, strings_off, strings_size = self._symbols() or ([], 0, 0)
        found: list[Symbol] = []
        if all(name < strings_size for name, _, _, _ in symbols):
            for name, value, _, section in symbols:
                if self.data.startswith(b"__crc_", strings_off + name):
                    found.append(Symbol(self.text(strings_off + name)[6:], self._crc(value, section)))
        if found:
            return found
        strings = self.bytes_of(b"__ksymtab_strings")
        return None if strings is None else [Symbol(name, 0) for name in info_strings(strings)]

    def needs(self) -> list[Symbol]:
        """Undefined symbols in table order, then entries of ``__versions`` that name none of them."""
        table = self._symbols()
        if table is None:
            return []
        symbols, strings_off, strings_size = table
        versions = self._versions()
        crcs: dict[bytes, int] = {}
        for name, crc in versions:
            crcs.setdefault(name, crc)
        found: list[Symbol] = []
        for name_at, _, info, section in symbols:
            if section != _SHN_UNDEF or (self.machine in _SPARC and info & 15 == _STT_REGISTER):
                continue
            if name_at >= strings_size:
                return []
            name = self.text(strings_off + name_at)
            if name:
                found.append(Symbol(name, crcs.get(name, 0), info >> 4 == _STB_WEAK))
        told = {symbol.name for symbol in found}
        for name, crc in versions:
            if name in told:
                told.discard(name)
            else:
                found.append(Symbol(name, crc))
        return found

    def _symbols(self) -> tuple[list[tuple[int, int, int, int]], int, int] | None:
        """(name, value, info, section) of each symbol but the first, and where their strings are; None if unsound."""
        table, strings = self.section(b".symtab"), self.section(b".strtab")
        entry = struct.Struct(self.order + ("IBBHQQ" if self.is_64 else "IIIBBH"))
        if table is None or strings is None or table[1] % entry.size:
            return None
        place = (0, 4, 1, 3) if self.is_64 else (0, 1, 3, 5)
        rows = entry.iter_unpack(self.data[table[0] : table[0] + table[1]])
        found = [(row[place[0]], row[place[1]], row[place[2]], row[place[3]]) for row in rows]
        return found[1:], *strings

    def _crc(self, value: int, section: int) -> int:
        """A CRC that is the symbol's value, or 4 bytes at that offset of its section."""
        if section in (_SHN_UNDEF, _SHN_ABS):
            return value
        missing = 0xFFFFFFFFFFFFFFFF
        if section >= len(self._by_index):
            return missing
        offset, size = self._by_index[section]
        if offset + size > len(self.data) or value + 4 > size:
            return missing
        (crc,) = struct.unpack_from(self.order + "I", self.data, offset + value)
        return int(crc)

    def _versions(self) -> list[tuple[bytes, int]]:
        found = self.section(b"__versions")
        if found is None or found[1] % _VERSION_SIZE:
            return []
        crc = struct.Struct(self.order + ("Q" if self.is_64 else "I"))
        places = range(found[0], found[0] + found[1], _VERSION_SIZE)
        return [(self.text(at + crc.size), crc.unpack_from(self.data, at)[0]) for at in places]


def info_strings(data: bytes) -> list[bytes]:
    """The strings of a section of NUL-separated text; padding between them doesn't count, one byte alone is none."""
    return [text for text in data.split(b"\0") if text] if len(data.lstrip(b"\0")) > 1 else []


def _unxz(data: bytes, path: str) -> bytes:
    import lzma

    pieces: list[bytes] = []
    size = 0
    while data:
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        try:
            pieces.append(stream.decompress(data, _LARGEST - size))
        except lzma.LZMAError as error:
            raise OSError(errno.EINVAL, f"xz: {error}", path) from error
        if not stream.eof:
            raise OSError(errno.EINVAL, "xz: the stream is cut off or unpacks to too much", path)
        size += len(pieces[-1])
        data = stream.unused_data.lstrip(b"\0")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _gunzip(data: bytes, path: str) -> bytes:
    import zlib

    pieces: list[bytes] = []
    size = 0
    while data:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            pieces.append(stream.decompress(data, _LARGEST - size))
        except zlib.error as error:
            raise OSError(errno.EINVAL, f"gzip: {error}", path) from error
        if not stream.eof:
            raise OSError(errno.EINVAL, "gzip: the stream is cut off or unpacks to too much", path)
        size += len(pieces[-1])
        data = stream.unused_data.lstrip(b"\0")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _unzstd(data: bytes, path: str) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise OSError(errno.ENOSYS, "zstd needs the package zstandard (pip install zstandard)", path) from error
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
            unpacked_data = stream.read(_LARGEST)
    except zstandard.ZstdError as error:
        raise OSError(errno.EINVAL, f"zstd: {error}", path) from error
    return unpacked_data
