"""The symbol tables a loaded module keeps: all of them until init is over, then only those of its core.

Follows ``add_kallsyms`` of kernel/module/kallsyms.c. Fills the room that ``layout`` planned; pointing ``struct module``
at it is the loader's.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kobox.elf.constants import SHF, SHN, SHT, STB, STT
from kobox.link.layout import Layout
from kobox.link.resolve import U64, Symbols, symbol_table
from kobox.link.validity import SYM_SIZE, LoadView


class SymbolTables(NamedTuple):
    """The members of one ``struct mod_kallsyms``: addresses of three tables and the number of symbols."""

    symtab: int
    num_symtab: int
    strtab: int
    typetab: int


class Kallsyms(NamedTuple):
    """``mod_kallsyms``: where the init-time tables' structure lies; the core tables' is in ``struct module``."""

    mod_kallsyms: int
    init: SymbolTables
    core: SymbolTables


def add_kallsyms(
    view: LoadView,
    layout: Layout,
    memory: Mapping[str, memoryview | bytearray],
    bases: Mapping[str, int],
    symbols: Symbols,
) -> Kallsyms:
    """Write resolved values, type letters and the cut-down tables into ``memory``, whose regions are at ``bases``."""
    plan = layout.kallsyms
    table = symbol_table(view)
    total = len(table)
    init, core = memoryview(memory[plan.init_region]), memoryview(memory[plan.core_region])
    rows = init[plan.init_symtab : plan.init_symtab + total * SYM_SIZE]
    rows.cast("Q")[1::3] = memoryview(array("Q", [value & U64 for value in symbols.values]))
    letters = symbol_letters(view, layout.flags, table.shndxs, table.infos)
    init[plan.init_typetab : plan.init_typetab + total] = letters
    kept = plan.kept
    strings = bytes(view.contents(view.index.str))
    names = [strings[start : strings.find(b"\0", start)] for start in map(table.name_offsets.__getitem__, kept)]
    joined = b"\0".join(names) + b"\0" if names else b""
    core[plan.core_strtab : plan.core_strtab + len(joined)] = joined
    offsets, at = [], 0
    for name in names:
        offsets.append(at)
        at += len(name) + 1
    copied = bytearray(b"".join([rows[number * SYM_SIZE : (number + 1) * SYM_SIZE] for number in kept]))
    if kept:
        memoryview(copied).cast("I")[0::6] = memoryview(array("I", offsets))
    core[plan.core_symtab : plan.core_symtab + len(copied)] = copied
    core[plan.core_typetab : plan.core_typetab + len(kept)] = bytes(letters[number] for number in kept)
    init_base, core_base = bases[plan.init_region], bases[plan.core_region]
    return Kallsyms(
        init_base + plan.mod_kallsyms,
        SymbolTables(init_base + plan.init_symtab, total, init_base + plan.init_strtab, init_base + plan.init_typetab),
        SymbolTables(
            core_base + plan.core_symtab, len(kept), core_base + plan.core_strtab, core_base + plan.core_typetab
        ),
    )


def symbol_letters(view: LoadView, flags: Sequence[int], shndxs: Sequence[int], infos: Sequence[int]) -> bytes:
    """The type letter of each symbol, as ``nm`` would say it but always small."""
    sections = {number: _section_letter(view, flags, number) for number in range(1, len(view.sections))}
    sections |= {SHN.UNDEF: ord("U"), SHN.ABS: ord("a")}
    if view.index.pcpu:
        sections[view.index.pcpu] = ord("a")
    odd = ord("?")
    letters = bytearray(sections.get(shndx, odd) for shndx in shndxs)
    for number, info in enumerate(infos):
        if info >> 4 == STB.WEAK:
            letters[number] = ord("v") if info & 0xF == STT.OBJECT else ord("w")
    return bytes(letters)


def _section_letter(view: LoadView, flags: Sequence[int], number: int) -> int:
    section = view.sections[number]
    if flags[number] & SHF.EXECINSTR:
        return ord("t")
    if section.type == SHT.NOBITS:
        return ord("b")
    if flags[number] & SHF.ALLOC:
        return ord("d") if flags[number] & SHF.WRITE else ord("r")
    return ord("n") if section.name.startswith(".debug") else ord("?")
