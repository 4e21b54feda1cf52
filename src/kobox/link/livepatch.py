"""Symbols that a livepatch module names by object and position, because nobody exports them.

Follows ``klp_apply_section_relocs`` and ``klp_resolve_symbols`` of kernel/livepatch/core.c. Sections for the kernel
itself are applied at load; those for a module when both are there.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence

from kobox.elf.constants import SHN
from kobox.elf.layouts import LAYOUTS
from kobox.link.findings import Level, LogLine, Refusal
from kobox.link.resolve import Symbols, symbol_name, symbol_table
from kobox.link.validity import LoadView

VMLINUX = "vmlinux"
_SECTION = re.compile(r"\.klp\.rela\.([^.]{1,55})")
_SYMBOL = re.compile(r"\.klp\.sym\.([^.]{1,55})\.([^,]{1,511}),([0-9]+)")
_RELA = LAYOUTS[64, "<"].rela

Lookup = Callable[[str, str], Sequence[int]]
"""Addresses of every symbol of a name in an object (``vmlinux`` or a module), in kallsyms' order."""


def object_of(section: str) -> str:
    """The object a livepatch relocation section is for, from the section's name. Raises ``Refusal`` (EINVAL)."""
    found = _SECTION.match(section)
    if found is None:
        raise _refused(f"section {section} has an incorrectly formatted name")
    return found[1]


def livepatch_values(view: LoadView, symbols: Symbols, section: int, lookup: Lookup) -> list[int]:
    """The module's symbol values with those that ``section`` uses looked up. Raises ``Refusal`` (EINVAL)."""
    values = list(symbols.values)
    table = symbol_table(view)
    owner = object_of(view.sections[section].name)
    rows = view.contents(section)
    for _, _, number, _ in _RELA.iter_unpack(rows[: len(rows) // _RELA.size * _RELA.size]):
        name = symbol_name(view, table, number) if number < len(table) else ""
        if number >= len(table) or table.shndxs[number] != SHN.LIVEPATCH:
            raise _refused(f"symbol {name} is not marked as a livepatch symbol")
        found = _SYMBOL.match(name)
        if found is None:
            raise _refused(f"symbol {name} has an incorrectly formatted name")
        if owner != VMLINUX and found[1] == VMLINUX:
            raise _refused(
                f"invalid access to vmlinux symbol '{found[2]}' from module-specific livepatch relocation section"
            )
        address = _position(lookup(found[1], found[2]), found[1], found[2], int(found[3]))
        values[number] = address - (1 << 64) if address >= 1 << 63 else address
    return values


def _position(addresses: Sequence[int], owner: str, name: str, position: int) -> int:
    """The one that is meant: the only one for position 0, else counted from 1."""
    if not addresses:
        raise _refused(f"symbol '{name}' not found in symbol table")
    if position == 0 and len(addresses) > 1:
        shown = "(null)" if owner == VMLINUX else owner
        raise _refused(f"unresolvable ambiguity for symbol '{name}' in object '{shown}'")
    if position > len(addresses):
        raise _refused(f"symbol position {position} for symbol '{name}' in object '{owner}' not found")
    return addresses[max(position, 1) - 1]


def _refused(text: str) -> Refusal:
    return Refusal(errno.EINVAL, (LogLine(Level.ERR, f"livepatch: {text}"),))
