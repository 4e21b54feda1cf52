"""A module linked at made-up addresses, to see whether it can be; and the limits that only the kernel's build knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kobox import link
from kobox.image import Type
from kobox.link import LoadView
from kobox.link.linked import MODULE_AREA
from kobox.link.resolve import Resolution
from kobox.link.tables import Table

_LINKED = 0x0101_0101_0101_0101
"""Stands for addresses that only a running kernel knows."""
_FILLED_IN: Mapping[str, int] = {
    "state": 3, "refcnt": 2, "list.next": _LINKED, "list.prev": _LINKED, "source_list.next": _LINKED,
    "source_list.prev": _LINKED, "target_list.next": _LINKED, "target_list.prev": _LINKED,
}  # fmt: skip
_LAYOUTS = {"core": "core_layout", "init": "init_layout"} | {
    name: f"mem[{number}]" for number, name in enumerate(link.MEMORIES)
}


@dataclass(slots=True)
class Linking:
    """A module being linked at made-up addresses."""

    view: LoadView
    layout: link.Layout
    bases: dict[str, int]
    copy: int
    """Where the kernel keeps the file itself while it loads."""
    addresses: list[int] = field(init=False)
    memory: dict[str, bytearray] = field(init=False)
    windows: Sequence[memoryview | None] = field(init=False)
    bound: dict[int, str] = field(default_factory=dict)
    table: Table | None = None

    def __post_init__(self) -> None:
        self.addresses = self.layout.addresses(self.bases)
        for number in link.left_behind(self.view, self.layout):
            self.addresses[number] = self.copy + self.view.sections[number].offset
        self.memory = self.layout.image(self.view)
        self.windows = self.layout.windows(self.view, self.memory)

    def fill_in_module(self, struct: Type, tables: Mapping[str, Table]) -> None:
        """Mark what of ``struct module`` the kernel has filled in before it relocates: nothing may be relocated there.

        Only what is zero and what is not matters.
        """
        place = self.layout.places[self.view.index.mod]
        if place is None:
            return
        memory = self.memory[place.region]
        values = dict(_FILLED_IN)
        for name, region in self.layout.regions.items():
            values[f"{_LAYOUTS[name]}.base"] = self.bases[name] if region.size else 0
            values[f"{_LAYOUTS[name]}.size"] = region.size
        for table in tables.values():
            values[table.field] = table.address
            if table.count_field:
                values[table.count_field] = table.entries or 0
        for path, value in values.items():
            member = struct.find(path)
            if member is not None:
                at = place.offset + member.offset
                room = max(0, min(member.size, len(memory) - at))
                memory[at : at + room] = (value & (1 << 8 * member.size) - 1).to_bytes(member.size, "little")[:room]


class Lenient:
    """Gives every name an address, so that what follows the symbols can be judged too."""

    def __init__(self, bound: Mapping[str, Resolution]) -> None:
        self._bound = bound
        self._made_up = next((found.value for found in bound.values() if found.found and found.value), MODULE_AREA)

    def __call__(self, name: str) -> Resolution:
        found = self._bound[name]
        return found if found.found and not found.error else Resolution(True, self._made_up, link.KERNEL)


@cache
def limits() -> dict[str, int]:
    """Sizes that a kernel is built with and an image does not tell."""
    data = json.loads(Path(__file__).with_name("limits.json").read_text(encoding="utf-8"))
    return {key: value for key, value in data.items() if isinstance(value, int)}
