"""shim as a file: the certificates it was built with, which vouch for boot loaders and kernels beside db and MokList.

Its section ``.vendor_cert`` begins with two sizes and two offsets: what it allows, what it bans; each is one
certificate or a signature list. Follows shim's cert.S.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kobox.efi import siglist
from kobox.efi.authenticode import Image, read_image
from kobox.efi.siglist import Entry
from kobox.errors import BadFile

_SECTION_HEADER = struct.Struct("<8sIIII16x")
_TABLE = struct.Struct("<IIII")
_NAME = b".vendor_cert"


class Shim(NamedTuple):
    image: Image
    allowed: tuple[Entry, ...]
    banned: tuple[Entry, ...]


def read_shim(data: bytes, file: str) -> Shim:
    """A shim with what it carries; ``BadFile`` for a PE image that is none."""
    image = read_image(data, file)
    section = _section(data, file)
    if len(section) < _TABLE.size:
        raise BadFile(file, ".vendor_cert", "is too short", len(section))
    allowed_size, banned_size, allowed_at, banned_at = _TABLE.unpack_from(section)
    return Shim(
        image,
        tuple(_entries(section, allowed_at, allowed_size, file)),
        tuple(_entries(section, banned_at, banned_size, file)),
    )


def _section(data: bytes, file: str) -> bytes:
    """Names longer than eight bytes lie in the string table; shim's own is the only one that begins so."""
    header = int.from_bytes(data[0x3C:0x40], "little")
    count = int.from_bytes(data[header + 6 : header + 8], "little")
    symbols, symbol_count = struct.unpack_from("<II", data, header + 12)
    table = header + 24 + int.from_bytes(data[header + 20 : header + 22], "little")
    for number in range(count):
        at = table + number * _SECTION_HEADER.size
        if at + _SECTION_HEADER.size > len(data):
            break
        name, size, _, raw_size, start = _SECTION_HEADER.unpack_from(data, at)
        if name.startswith(b"/") and name[1:].rstrip(b"\0").isdigit():
            string = symbols + symbol_count * 18 + int(name[1:].rstrip(b"\0"))
            name = data[string : string + len(_NAME)]
        if name.rstrip(b"\0") in (_NAME, _NAME[:8]):
            return data[start : start + min(size or raw_size, raw_size)]
    raise BadFile(file, "", "is no shim: it has no section .vendor_cert")


def _entries(section: bytes, at: int, size: int, file: str) -> list[Entry]:
    if not size:
        return []
    if at + size > len(section):
        raise BadFile(file, ".vendor_cert", "list beyond the end of the section", at + size)
    data = section[at : at + size]
    if data[:1] == b"\x30" and data[1] & 0x80:
        return [siglist.certificate(data)]
    return siglist.decode(data, f"{file}: .vendor_cert")
