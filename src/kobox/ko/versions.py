"""Versions of the symbols a module was built against: ``__versions``, and since Linux 6.14 ``__version_ext_*``.

An entry of ``__versions`` is one machine word with the CRC and a name that fills the rest of 64 bytes; the extended
form is an array of 32-bit CRCs beside a run of NUL-ended names of any length.
"""

from __future__ import annotations

from struct import Struct

from kobox.elf import ElfFile, Section
from kobox.elf.gate import text

_ENTRY_SIZE = 64
_FORMS = {(bits, order): Struct(f"{order}{'Q56s' if bits == 64 else 'I60s'}") for bits in (64, 32) for order in "<>"}
_CRC_FORMS = {order: Struct(f"{order}I") for order in "<>"}


def read_version_entries(elf: ElfFile) -> tuple[tuple[str, int], ...]:
    """``(name, crc)`` of every entry of ``__versions``, doubles included; a last part of an entry is not read."""
    section = elf.alloc_section("__versions")
    if section is None:
        return ()
    rows = elf.bytes_of(section)
    form = _FORMS[elf.layout.bits, elf.layout.order]
    return tuple(
        (text(name.partition(b"\0")[0]), crc)
        for crc, name in form.iter_unpack(rows[: len(rows) - len(rows) % _ENTRY_SIZE])
    )


def read_extended_entries(elf: ElfFile) -> tuple[tuple[str, int], ...]:
    """``(name, crc)`` of the extended form; as many as both of its sections have."""
    crcs, names = elf.alloc_section("__version_ext_crcs"), elf.alloc_section("__version_ext_names")
    if crcs is None or names is None:
        return ()
    return tuple(zip(_names(elf, names), _crcs(elf, crcs), strict=False))


def read_versions(elf: ElfFile) -> dict[str, int]:
    """Name to CRC as the loader looks it up: the extended form first, and of doubles the first."""
    entries = (*read_extended_entries(elf), *read_version_entries(elf))
    return dict(reversed(entries))


def _names(elf: ElfFile, section: Section) -> list[str]:
    return text(elf.bytes_of(section)).split("\0")[:-1]


def _crcs(elf: ElfFile, section: Section) -> list[int]:
    rows = elf.bytes_of(section)
    return [crc for (crc,) in _CRC_FORMS[elf.layout.order].iter_unpack(rows[: len(rows) - len(rows) % 4])]
