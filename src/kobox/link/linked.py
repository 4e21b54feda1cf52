"""Linking a module in one go, against whatever exports there are and without a kernel to run it in.

The loader drives the same steps one by one, because between them things happen that only a kernel can do. This is for
everybody else: proving that a whole distribution links, explaining a module, measuring.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from time import perf_counter
from typing import NamedTuple

from kobox.elf.gate import text
from kobox.link.code import Patch
from kobox.link.findings import Finding, Refusal
from kobox.link.layout import Layout, Region, lay_out
from kobox.link.orc import sort_orc
from kobox.link.patch import Cpu, finalize
from kobox.link.policy import Export, Exporter, Exports, Resolver
from kobox.link.relocate import Relocated, relocate
from kobox.link.resolve import Symbols, simplify
from kobox.link.rules import PAGE_SIZE, Rules, default_rules
from kobox.link.tables import Table, find_tables, sort_extable
from kobox.link.validity import LoadView, enforce_rwx, load_view

MODULE_AREA = 0xFFFFFFFFC0000000
"""Where x86-64 keeps modules, for addresses made up without a kernel."""
AREA_SIZE = 960 << 20
PERCPU_BASE = 0x20000
_S32 = Struct("<i")
_U32 = Struct("<I")


class LinkedModule(NamedTuple):
    """A module linked: its bytes at their addresses and everything learned on the way.

    ``memory`` and ``bases`` are by region, ``addresses`` by section number. ``symbols.bound`` tells what each undefined
    name was bound to and by whom. ``used`` are the modules it needs. ``seconds`` is the time each step took.
    """

    view: LoadView
    layout: Layout
    bases: Mapping[str, int]
    memory: Mapping[str, bytearray]
    addresses: Sequence[int]
    symbols: Symbols
    relocated: Relocated
    tables: Mapping[str, Table]
    exports: Exports
    used: tuple[str, ...]
    findings: tuple[Finding, ...]
    patches: tuple[Patch, ...]
    seconds: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.view.name


class _Clock:
    """Time by step: ``mark`` charges what passed since the last mark."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = perf_counter()

    def mark(self, step: str) -> None:
        now = perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self.last
        self.last = now


def link_module(
    data: memoryview | bytes,
    exporters: Collection[Exporter],
    *,
    rules: Rules | None = None,
    base: int = MODULE_AREA,
    percpu: int = PERCPU_BASE,
    cpu: Cpu | None = None,
) -> LinkedModule:
    """Link a module (without its signature) against ``exporters``: the kernel, then modules, newest first.

    Regions are laid out from ``base`` on. With ``cpu`` its code is fitted to that CPU too. Raises ``Refusal`` as the
    kernel would; a missing symbol names every missing one.
    """
    rules = rules or default_rules()
    return link_view(load_view(data, rules), exporters, rules=rules, base=base, percpu=percpu, cpu=cpu)


def link_view(
    view: LoadView,
    exporters: Collection[Exporter],
    *,
    rules: Rules,
    base: int = MODULE_AREA,
    percpu: int = PERCPU_BASE,
    cpu: Cpu | None = None,
) -> LinkedModule:
    """``link_module`` for a file that was checked already."""
    clock = _Clock()
    enforce_rwx(view, rules)
    layout = lay_out(view, rules)
    bases = dict(_bases(layout, base))
    addresses = layout.addresses(bases)
    clock.mark("layout")
    memory = layout.image(view)
    windows = layout.windows(view, memory)
    clock.mark("copy")
    resolver = Resolver(view, exporters, rules)
    symbols = simplify(view, addresses, percpu, resolver)
    clock.mark("resolve")
    if symbols.error:
        names = ", ".join(symbols.unresolved)
        raise Refusal(symbols.error, symbols.findings, why=f"unknown symbols: {names}" if names else "")
    relocated = relocate(view, layout, addresses, windows, symbols, memory=memory)
    clock.mark("relocate")
    _sort(view, windows, rules)
    tables = find_tables(view, addresses, rules)
    exports = Exports(view.name, read_exports(view, addresses, windows, tables), resolver.of_module)
    clock.mark("tables")
    patches: list[Patch] = []
    if cpu is not None:
        patches = finalize(view, addresses, memory, bases, rules, cpu)
        clock.mark("patch")
    return LinkedModule(
        view=view,
        layout=layout,
        bases=bases,
        memory=memory,
        addresses=addresses,
        symbols=symbols,
        relocated=relocated,
        tables=tables,
        exports=exports,
        used=tuple(exporter.name for exporter in resolver.used),
        findings=symbols.findings,
        patches=tuple(patches),
        seconds=clock.seconds,
    )


def _bases(layout: Layout, start: int) -> Iterator[tuple[str, int]]:
    for name, region in layout.regions.items():
        yield name, start
        start += _pages(region)


def _pages(region: Region) -> int:
    return -(-region.size // PAGE_SIZE) * PAGE_SIZE


def _sort(view: LoadView, windows: Sequence[memoryview | None], rules: Rules) -> None:
    extable = windows[view.find("__ex_table")]
    if extable is not None:
        sort_extable(extable, rules)
    ips, entries = windows[view.find_any(".orc_unwind_ip")], windows[view.find_any(".orc_unwind")]
    if ips is not None and entries is not None:
        sort_orc(ips, entries, rules)


def read_exports(
    view: LoadView,
    addresses: Sequence[int],
    windows: Sequence[memoryview | None],
    tables: Mapping[str, Table],
) -> dict[str, Export]:
    """What a relocated module exports, read from its tables as the kernel does."""
    found: dict[str, Export] = {}
    strings = _Strings(addresses, windows)
    for symbols, crcs, gpl in (("syms", "crcs", False), ("gpl_syms", "gpl_crcs", True)):
        table = tables.get(symbols)
        if table is None or not table.entries or (window := windows[table.section]) is None:
            continue
        crc_table = windows[tables[crcs].section] if crcs in tables else None
        entry = table.size // table.entries
        for number in range(table.entries):
            at = number * entry
            places = [table.address + at + 4 * part + _S32.unpack_from(window, at + 4 * part)[0] for part in range(3)]
            has_namespace = _S32.unpack_from(window, at + 8)[0] != 0
            name = strings.at(places[1])
            crc = _U32.unpack_from(crc_table, 4 * number)[0] if crc_table is not None else None
            namespace = strings.at(places[2]) if has_namespace else ""
            found[name] = Export(name, places[0], gpl, namespace, crc)
    return found


class _Strings:
    """NUL-ended strings in a module's memory by address."""

    def __init__(self, addresses: Sequence[int], windows: Sequence[memoryview | None]) -> None:
        self.sections = [(a, w) for a, w in zip(addresses, windows, strict=True) if w is not None and len(w)]
        self.copies: dict[int, bytes] = {}

    def at(self, address: int) -> str:
        for base, copy in self.copies.items():
            if 0 <= address - base < len(copy):
                return text(copy[address - base : copy.find(b"\0", address - base)])
        for base, window in self.sections:
            if 0 <= address - base < len(window):
                self.copies[base] = bytes(window)
                return self.at(address)
        raise Refusal(errno.ENOEXEC, why=f"an export's name at {address:#x} is outside the module", crash=True)


# A whole tree.


@dataclass(slots=True)
class TreeReport:
    """What linking many modules gave: how many, how much, how long by step, and who failed why."""

    modules: int = 0
    relocations: int = 0
    slow_sections: int = 0
    symbols_bound: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, Refusal] = field(default_factory=dict)

    @property
    def linked(self) -> int:
        return self.modules - len(self.failures)

    def add(self, module: LinkedModule) -> None:
        self.relocations += module.relocated.entries
        self.slow_sections += module.relocated.slow_sections
        self.symbols_bound += len(module.symbols.bound)
        self.bytes += sum(map(len, module.memory.values()))
        for step, seconds in module.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds


def mapped(path: Path) -> memoryview:
    """A file's bytes, mapped."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def link_tree(
    modules: Mapping[str, Callable[[], memoryview | bytes]],
    kernel: Exporter,
    *,
    rules: Rules | None = None,
    cpu: Cpu | None = None,
    each: Callable[[LinkedModule], None] | None = None,
) -> TreeReport:
    """Link every module against the kernel and the modules it depends on, those first.

    ``modules`` maps module names (with underscores) to what gives their bytes, without signature. ``each`` sees every
    result.
    """
    tree = _Tree(modules, kernel, rules or default_rules(), cpu)
    for name in modules:
        for module in tree.link(name):
            if each is not None:
                each(module)
    return tree.report


class _Tree:
    """A tree being linked: who was tried, and what those that linked export."""

    def __init__(
        self, modules: Mapping[str, Callable[[], memoryview | bytes]], kernel: Exporter, rules: Rules, cpu: Cpu | None
    ) -> None:
        self.modules, self.kernel, self.rules, self.cpu = modules, kernel, rules, cpu
        self.report = TreeReport()
        self.exporters: dict[str, Exporter] = {}
        self.seen: set[str] = set()
        self.base = MODULE_AREA

    def link(self, start: str) -> Iterator[LinkedModule]:
        """Link a module after those it needs; what was tried already is left out, so a cycle ends."""
        waiting: list[tuple[str, LoadView | None]] = [(start, None)]
        while waiting:
            name, view = waiting.pop()
            if view is None and name in self.seen:
                continue
            try:
                view = view or self._check(name)
                needed = [other for other in depends(view) if other in self.modules]
                missing = [(other, None) for other in needed if other not in self.seen]
                if missing:
                    waiting += [(name, view), *missing]
                    continue
                near = [self.exporters[other] for other in reversed(needed) if other in self.exporters]
                module = link_view(view, [self.kernel, *near], rules=self.rules, base=self.base, cpu=self.cpu)
            except Refusal as refusal:
                self.report.failures[name] = refusal
                continue
            self._note(name, module)
            yield module

    def _check(self, name: str) -> LoadView:
        self.seen.add(name)
        self.report.modules += 1
        start = perf_counter()
        view = load_view(self.modules[name](), self.rules)
        self.report.seconds["check"] = self.report.seconds.get("check", 0.0) + perf_counter() - start
        return view

    def _note(self, name: str, module: LinkedModule) -> None:
        self.exporters[name] = module.exports
        self.report.add(module)
        self.base += sum(map(_pages, module.layout.regions.values()))
        if self.base >= MODULE_AREA + AREA_SIZE:
            self.base = MODULE_AREA


def depends(view: LoadView) -> list[str]:
    """The modules that the file says it needs, as module names."""
    return [name.replace("-", "_") for name in (view.info("depends") or "").split(",") if name]


def exports_from_symvers(lines: Iterable[str], start: int, owner: str | None = None) -> Exports:
    """The kernel's exports from a ``Module.symvers``, at made-up addresses from ``start`` on.

    Takes the lines of vmlinux, or of the module ``owner``.
    """
    table: dict[str, Export] = {}
    for line in lines:
        crc, name, exporter, kind, *namespace = line.rstrip("\n").split("\t")
        if exporter == (owner or "vmlinux"):
            start += 16
            space = namespace[0] if namespace else ""
            table[name] = Export(name, start, kind.startswith("EXPORT_SYMBOL_GPL"), space, int(crc, 16))
    return Exports(owner or "kernel", table)
