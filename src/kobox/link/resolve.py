"""Giving every symbol of a module its address.

Follows ``simplify_symbols`` of kernel/module/main.c: undefined names are asked for one by one in the order of the
symbol table, everything defined here gets its section's address added, and every failure is noted before the step fails
with the last one. Who answers for a name is the caller's business (``policy`` holds the kernel's rules).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from operator import add
from typing import NamedTuple

from kobox.elf.constants import SHN, STB
from kobox.elf.gate import text
from kobox.elf.layouts import LAYOUTS
from kobox.elf.symbols import SymbolTable
from kobox.link.findings import Finding, Level, LogLine
from kobox.link.validity import SYM_SIZE, LoadView

U64 = (1 << 64) - 1
_SIGN = 1 << 63
_GOT = "_GLOBAL_OFFSET_TABLE_"
"""Left undefined by some assemblers without being used."""


class Resolution(NamedTuple):
    """The answer for one undefined name.

    ``error`` is 0 when found (then ``value`` is its address) and when there is no such symbol (``found`` false); else a
    positive errno. ``owner`` is the exporter's name. ``findings`` are what the kernel says while looking.
    """

    found: bool
    value: int = 0
    owner: str = ""
    error: int = 0
    findings: tuple[Finding, ...] = ()


MISSING = Resolution(False)
Resolve = Callable[[str], Resolution]


class Symbols(NamedTuple):
    """A module's symbols with their addresses.

    ``values`` holds one signed 64-bit number a symbol, kernel addresses being negative: arithmetic on them stays cheap
    and in range (``address`` gives the usual form). ``bound`` maps each undefined name to what it was bound to.
    ``error`` is 0 or the errno the kernel ends the load with; ``unresolved`` are the names it complained about.
    """

    values: Sequence[int]
    bound: Mapping[str, Resolution]
    unresolved: tuple[str, ...]
    error: int
    findings: tuple[Finding, ...]

    def address(self, number: int) -> int:
        """The unsigned address of a symbol by its number."""
        return self.values[number] & U64


def symbol_table(view: LoadView) -> SymbolTable:
    """The module's symbols as columns; a cut-off last entry is left out, as in the kernel."""
    rows = view.contents(view.index.sym)
    return SymbolTable(rows[: len(rows) // SYM_SIZE * SYM_SIZE], LAYOUTS[64, "<"], None)


def symbol_name(view: LoadView, table: SymbolTable, number: int) -> str:
    """The name of a symbol of ``table``."""
    return view.text_at(view.sections[view.index.str].offset + table.name_offsets[number])


def undefined(view: LoadView) -> list[str]:
    """The names that ``simplify`` will ask for, in its order."""
    table = symbol_table(view)
    return [symbol_name(view, table, n) for n, shndx in enumerate(table.shndxs) if n and shndx == SHN.UNDEF]


def simplify(view: LoadView, addresses: Sequence[int], percpu: int, resolve: Resolve) -> Symbols:
    """Address every symbol. ``addresses`` has one entry a section; ``percpu`` is the module's per-CPU base.

    ``resolve`` is called once for every undefined symbol.
    """
    table = symbol_table(view)
    shndxs = table.shndxs.tolist() if isinstance(table.shndxs, memoryview) else list(table.shndxs)
    bases = {number: address - (1 << 64) if address >= _SIGN else address for number, address in enumerate(addresses)}
    if view.index.pcpu:
        bases[view.index.pcpu] = percpu
    odd = set(shndxs).difference(bases)
    bases.update(dict.fromkeys((*odd, SHN.UNDEF, SHN.ABS, SHN.LIVEPATCH), 0))
    special = (odd | {SHN.UNDEF, SHN.COMMON}) - {SHN.ABS, SHN.LIVEPATCH}
    values = list(map(add, _signed_column(table.values), map(bases.__getitem__, shndxs)))
    work = _Work(view, table, values, resolve)
    for number in compress(range(len(shndxs)), map(special.__contains__, shndxs)):
        if number:
            work.one(number, shndxs[number])
    if values and not -_SIGN <= min(values) <= max(values) < _SIGN:
        values = [(value + _SIGN & U64) - _SIGN for value in values]
    return Symbols(values, work.bound, tuple(work.unresolved), work.error, tuple(work.findings))


class _Work:
    """The symbols that need more than an addition, one at a time."""

    def __init__(self, view: LoadView, table: SymbolTable, values: list[int], resolve: Resolve) -> None:
        self.view, self.table, self.values, self.resolve = view, table, values, resolve
        self.strings = bytes(view.contents(view.index.str))
        self.bound: dict[str, Resolution] = {}
        self.unresolved: list[str] = []
        self.findings: list[Finding] = []
        self.error = 0

    def one(self, number: int, shndx: int) -> None:
        name = self._name(number)
        if shndx == SHN.UNDEF:
            self._undefined(number, name)
        elif shndx == SHN.COMMON:
            if not name.startswith("__gnu_lto"):
                self._fail(errno.ENOEXEC, Level.WARNING, f"{self.view.mod_name}: please compile with -fno-common")
        else:
            last = self.view.header.e_shnum - 1
            line = f"{self.view.mod_name}: Symbol {name} has an invalid section index {shndx} (max {last})"
            self._fail(errno.ENOEXEC, Level.ERR, line)

    def _name(self, number: int) -> str:
        start = self.table.name_offsets[number]
        end = self.strings.find(b"\0", start)
        return text(self.strings[start:end]) if end >= 0 else symbol_name(self.view, self.table, number)

    def _undefined(self, number: int, name: str) -> None:
        answer = self.resolve(name)
        self.bound[name] = answer
        found, value, _, error, findings = answer
        if findings:
            self.findings += findings
        if found and not error:
            self.values[number] = value - (1 << 64) if value >= _SIGN else value
            return
        if not error and (self.table.infos[number] >> 4 == STB.WEAK or name == _GOT):
            return
        error = error or errno.ENOENT
        self.unresolved.append(name)
        self._fail(error, Level.WARNING, f"{self.view.mod_name}: Unknown symbol {name} (err -{error})")

    def _fail(self, error: int, level: Level, line: str) -> None:
        self.error = error
        self.findings.append(LogLine(level, line))


def _signed_column(column: Sequence[int]) -> Sequence[int]:
    if isinstance(column, memoryview):
        numbers = column.tolist()
    else:
        numbers = list(column)
    if numbers and max(numbers) >= _SIGN:
        numbers = [number - (1 << 64) if number >= _SIGN else number for number in numbers]
    return numbers
