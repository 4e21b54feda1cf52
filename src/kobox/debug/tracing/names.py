"""Names for code addresses while modules come and go: what an address meant when its record was made.

A module's own symbol table is read when the module is about to be initialised, so that functions of its init part keep
their names after that memory is gone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from kobox.debug.live import ELF_SYMBOL, GuestModule, LiveGuest
from kobox.debug.tracing.records import Place
from kobox.kernel.guest import Guest

_FUNCTION, _NOTYPE = 2, 0
_ALL_ONES = (1 << 64) - 1


class Region(NamedTuple):
    """Code of a module with the functions in it by address."""

    start: int
    end: int
    module: str
    starts: list[int]
    names: list[str]


class Names:
    """Answers for the kernel and for every module that was seen so far."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._regions: list[Region] = []
        self._known: dict[int, Place] = {}
        stubs = guest.machine.area
        self._own = range(stubs.mailbox_addr, stubs.end)

    def overlaps(self, module: GuestModule) -> bool:
        """Whether a module lies where another one's code was: what is recorded so far must be named first."""
        return any(
            part.start < region.end and region.start < part.end for part in module.code for region in self._regions
        )

    def learn(self, module: GuestModule) -> list[Region]:
        """Take up a module's symbols; what was known of its addresses is forgotten."""
        new = []
        for part in module.code:
            self._regions = [one for one in self._regions if part.end <= one.start or one.end <= part.start]
            starts, names = _functions(self._guest, module, part.start, part.end)
            new.append(Region(part.start, part.end, module.name, starts, names))
        self._regions += new
        self._known = {address: place for address, place in self._known.items() if not place.name.startswith("0x")}
        for address in [one for one in self._known if any(part.start <= one < part.end for part in new)]:
            del self._known[address]
        return new

    def learn_loaded(self) -> None:
        """Take up every module of the guest's list."""
        for module in LiveGuest(self._guest).modules:
            self.learn(module)

    def imports(self, module: GuestModule) -> set[int]:
        """Addresses of what a module uses of others: its undefined symbols, as they were resolved."""
        symbols = _symbols(self._guest, module)
        return {value for name, _info, _other, section, value, _size in symbols if name and not section and value}

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(self._regions)

    def has_module(self, name: str) -> bool:
        return any(region.module == name for region in self._regions)

    def module_with(self, function: str) -> str | None:
        """The module that has a function of this name, the one seen last first."""
        return next((one.module for one in reversed(self._regions) if function in one.names), None)

    def at(self, address: int) -> Place:
        """The function an address lies in."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = self._find(address)
        return found

    def _find(self, address: int) -> Place:
        for region in self._regions:
            if region.start <= address < region.end:
                index = bisect_right(region.starts, address) - 1
                if index >= 0:
                    return Place(region.names[index], region.module, address - region.starts[index])
        if address in self._own:
            return Place("kobox", "", 0)
        if self._guest.in_kernel_text(address):
            symbol = self._guest.symbols.at(address)
            if symbol is not None:
                return Place(symbol.name, "", symbol.offset)
        return Place(f"{address:#x}", "", 0)


def _functions(guest: Guest, module: GuestModule, start: int, end: int) -> tuple[list[int], list[str]]:
    """Addresses and names of the functions in [start, end), in order; of several at one address the first listed."""
    strings = guest.view("mod_kallsyms", module.view["kallsyms"] & _ALL_ONES)["strtab"] & _ALL_ONES
    found: dict[int, int] = {}
    for name, info, _other, section, value, _size in _symbols(guest, module):
        if section and name and info & 15 in (_FUNCTION, _NOTYPE) and start <= value < end:
            found.setdefault(value, name)
    starts = sorted(found)
    return starts, [guest.read_cstr(strings + found[at]).decode("utf-8", "surrogateescape") for at in starts]


def _symbols(guest: Guest, module: GuestModule) -> Iterator[tuple[int, ...]]:
    table = guest.view("mod_kallsyms", module.view["kallsyms"] & _ALL_ONES)
    return ELF_SYMBOL.iter_unpack(guest.read(table["symtab"] & _ALL_ONES, table["num_symtab"] * ELF_SYMBOL.size))
