"""Layouts of structures by name, from a module's debug data."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kobox.abi.layout import MemberPlace, StructLayout
from kobox.debug.dwarf.constants import AT, TAG
from kobox.debug.dwarf.module import ModuleDebug
from kobox.debug.dwarf.units import Die

_NESTED = frozenset({TAG.STRUCTURE_TYPE, TAG.UNION_TYPE})
_DEEPEST = 8


def read_structs(debug: ModuleDebug, names: Collection[str]) -> dict[str, StructLayout]:
    """The structures of these names that the data describes in full; of several with one name, the first."""
    found: dict[str, StructLayout] = {}
    for die in debug.top_entries():
        if len(found) == len(names):
            break
        size = die.get(AT.BYTE_SIZE)
        if die.tag != TAG.STRUCTURE_TYPE or not isinstance(size, int):
            continue
        name = die.unit.text(die.get(AT.NAME)) or ""
        if name in names and name not in found:
            found[name] = StructLayout(size, dict(_members(debug, die, 0, "", _DEEPEST)))
    return found


def _members(
    debug: ModuleDebug, structure: Die, start: int, prefix: str, depth: int
) -> Iterator[tuple[str, MemberPlace]]:
    for child in structure.unit.children(structure):
        if child.tag != TAG.MEMBER:
            continue
        offset, kind = child.get(AT.DATA_MEMBER_LOCATION) or 0, debug.type_of(child)
        name = child.unit.text(child.get(AT.NAME))
        if kind is None or not isinstance(offset, int):
            continue
        path = f"{prefix}{name}" if name else prefix.removesuffix(".")
        if name:
            yield path, MemberPlace(start + offset, debug.size_of(kind))
        if kind.tag in _NESTED and depth:
            yield from _members(debug, kind, start + offset, f"{path}." if path else "", depth - 1)
