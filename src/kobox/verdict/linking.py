"""A module linked at made-up addresses, to see whether it can be; and the limits that only the kernel's build knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kobox import link
from kobox.link import LoadView
from kobox.link.linked import MODULE_AREA
from kobox.link.resolve import Resolution
from kobox.link.tables import Table


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
