"""Linking a built module step by step, for the tests of ``link``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from builders import KoBuilder
from kobox.link.layout import Layout, lay_out
from kobox.link.relocate import Relocated, relocate
from kobox.link.resolve import MISSING, Resolution, Symbols, simplify
from kobox.link.rules import Rules, default_rules
from kobox.link.validity import LoadView, load_view

CORE, INIT, PERCPU = 0xFFFFFFFFC0000000, 0xFFFFFFFFC0100000, 0x23000


@dataclass
class Chain:
    """A module taken through every step up to its symbols; ``relocate`` does the last one."""

    view: LoadView
    layout: Layout
    memory: dict[str, bytearray]
    addresses: list[int]
    symbols: Symbols

    def relocate(self) -> Relocated:
        windows = self.layout.windows(self.view, self.memory)
        return relocate(
            self.view, self.layout, self.addresses, windows, self.symbols, memory=self.memory, count_types=True
        )

    def bytes_of(self, section: str) -> bytes:
        number = self.view.find(section)
        window = self.layout.windows(self.view, self.memory)[number]
        assert window is not None
        return bytes(window)

    def address_of(self, section: str) -> int:
        return self.addresses[self.view.find(section)]


def chain(
    module: KoBuilder,
    known: Mapping[str, int] | None = None,
    *,
    resolve: Callable[[str], Resolution] | None = None,
    rules: Rules | None = None,
) -> Chain:
    """Check, lay out, copy and simplify ``module`` against the addresses of ``known`` symbols."""
    rules = rules or default_rules()
    table = known or {}
    view = load_view(module.build(), rules)
    layout = lay_out(view, rules)
    bases = {name: CORE + 0x20000 * number for number, name in enumerate(layout.regions)}
    if "init" in bases:
        bases["init"] = INIT
    addresses = layout.addresses(bases)

    def answer(name: str) -> Resolution:
        return Resolution(True, table[name], "kernel") if name in table else MISSING

    symbols = simplify(view, addresses, PERCPU, resolve or answer)
    return Chain(view, layout, layout.image(view), addresses, symbols)
