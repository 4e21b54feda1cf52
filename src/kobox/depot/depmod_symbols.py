"""Symbol by symbol: what ``depmod -v``, ``-e`` and ``-P`` ask for, and the files that name the kernel's own symbols.

The plain run (``depmod_graph``) only asks which module owns a symbol. Here every needed symbol is looked at, its
version compared, and kmod's lines are said about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kobox.depot.depmod_config import Report
from kobox.depot.depmod_search import DepmodError, Module
from kobox.depot.module_file import ModuleElf, read_module_bytes
from kobox.depot.parallel import parallel_map


class Known(NamedTuple):
    """Where a symbol is from: a module's number, or None for the kernel itself."""

    owner: int | None
    crc: int


Details = tuple[list[tuple[bytes, int]], list[tuple[bytes, int, bool]]]
"""(name, crc) of exports; (name, crc, weak) of needed symbols."""


class SymbolCheck(NamedTuple):
    """Which questions are asked."""

    unknown: bool
    """Report symbols that nobody exports, and with ``versions`` those of another version."""
    versions: bool
    prefix: bytes = b""
    """A character that may stand before symbol names and doesn't count."""


def read_details(path: str) -> Details:
    """Exports and needs of a module with their versions; none of an unreadable one."""
    try:
        elf = ModuleElf(read_module_bytes(path), path)
    except OSError:
        return [], []
    exports = [(symbol.name, symbol.crc) for symbol in elf.exports() or ()]
    return exports, [(symbol.name, symbol.crc, symbol.weak) for symbol in elf.needs()]


def checked_needs(
    modules: Sequence[Module],
    kernel: dict[bytes, int],
    check: SymbolCheck,
    report: Report,
    show: Callable[[str], None],
    processes: int,
) -> tuple[list[list[int]], dict[bytes, int]]:
    """What each module needs directly, and the owner of each symbol that a module exports."""
    details: list[Details] = parallel_map(read_details, [module.path for module in modules], processes)
    known = {name: Known(None, crc) for name, crc in kernel.items()}
    for module, (exports, _) in zip(modules, details, strict=True):
        for name, crc in exports:
            known[_unprefixed(name, check.prefix)] = Known(module.index, crc)
    needs: list[list[int]] = []
    for module, (_, symbols) in zip(modules, details, strict=True):
        found: dict[int, None] = {}
        for name, crc, weak in symbols:
            symbol = known.get(_unprefixed(name.removeprefix(b".") if name[:1] == b"." else name, check.prefix))
            if symbol is None:
                if check.unknown and not weak:
                    report("WARNING", f"{module.path} needs unknown symbol {os.fsdecode(name)}")
                continue
            if check.unknown and check.versions and symbol.crc != crc and not weak:
                report("WARNING", f"{module.path} disagrees about version of symbol {os.fsdecode(name)}")
            if symbol.owner is not None and symbol.owner not in found:
                found[symbol.owner] = None
                shown = _unprefixed(name.removeprefix(b"."), check.prefix)
                show(f'{module.path} needs "{os.fsdecode(shown)}": {modules[symbol.owner].path}\n')
        needs.append(list(found))
    return needs, {name: symbol.owner for name, symbol in known.items() if symbol.owner is not None}


def read_symvers(path: str, prefix: bytes, report: Report) -> dict[bytes, int]:
    """The kernel's own symbols and versions of a ``Module.symvers`` file, with those the loader makes up."""
    symbols: dict[bytes, int] = {}
    for number, line in enumerate(_lines(path), 1):
        words = [word for word in re.split(rb"[ \t]+", line) if word]
        if len(words) < 3 or words[2] != b"vmlinux":
            continue
        try:
            crc = int(words[0], 16)
        except ValueError:
            report("ERROR", f"{path}:{number} Invalid symbol version {os.fsdecode(words[0])}")
            continue
        symbols[_unprefixed(words[1], prefix)] = crc
    return _with_made_up(symbols)


def read_system_map(path: str, prefix: bytes, report: Report) -> dict[bytes, int]:
    """The exported symbols of a ``System.map`` file (versions unknown: 0), with those the loader makes up."""
    symbols: dict[bytes, int] = {}
    for number, line in enumerate(_lines(path), 1):
        words = line.split(b" ", 2)
        if len(words) < 3:
            report("ERROR", f"{path}:{number}: invalid line: {os.fsdecode(line)}")
            continue
        name = _unprefixed(words[2], prefix).rstrip(b"\n")
        if name.startswith(b"__ksymtab_"):
            symbols[name[len(b"__ksymtab_") :]] = 0
    return _with_made_up(symbols)


def _with_made_up(symbols: dict[bytes, int]) -> dict[bytes, int]:
    return {**symbols, b"__this_module": 0, b"_GLOBAL_OFFSET_TABLE_": 0, b"TOC.": symbols.get(b"TOC.", 0)}


def _unprefixed(name: bytes, prefix: bytes) -> bytes:
    return name[1:] if prefix and name[:1] == prefix else name


def _lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return re.findall(rb"[^\n]*\n|[^\n]+", file.read())
    except OSError as error:
        raise DepmodError(f"could not load {path}: {error.strerror}") from error
