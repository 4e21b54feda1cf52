"""The symbol versions in a module's file, in the order of ``modprobe --show-modversions`` and ``--show-exports``.

Of the symbols it needs as ``__versions`` has them, of those it exports as its symbol table has their CRCs.
"""

from __future__ import annotations

from kobox.ko import KernelModule
from kobox.ko.versions import read_extended_entries, read_version_entries

_CRC = "__crc_"


def needed_versions(module: KernelModule) -> list[tuple[str, int]]:
    """(symbol, CRC); empty for a module built without versions."""
    entries = read_extended_entries(module.elf) or read_version_entries(module.elf)
    return [(name.removeprefix("."), crc) for name, crc in entries]


def exported_versions(module: KernelModule) -> list[tuple[str, int]] | None:
    """(symbol, CRC or 0); None for a module that has no exports at all."""
    crcs = {export.name: export.crc or 0 for export in module.exports}
    names = (name.removeprefix(_CRC) for name in module.elf.symbols.names if name.startswith(_CRC))
    listed = [(name, crcs[name]) for name in names if name in crcs]
    if listed:
        return listed
    strings = module.elf.section("__ksymtab_strings")
    if strings is None:
        return None
    words = bytes(module.elf.bytes_of(strings)).split(b"\0")
    return [(word.decode("utf-8", "surrogateescape"), 0) for word in words if word]
