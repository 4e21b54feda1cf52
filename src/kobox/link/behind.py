"""Sections that get no memory of their own although something points there.

The kernel gives every section of a file an address: where it is loaded, or else where it lies in the kernel's copy of
the file, which is gone when the load ends (``rewrite_section_headers`` of kernel/module/main.c). A relocation may take
the address of such a section, and ``module_finalize`` takes the tables that it finds by name. No compiler makes such a
module; a livepatch keeps all its symbols.
"""

from __future__ import annotations

from kobox.elf.constants import SHF, SHT
from kobox.link.layout import Layout
from kobox.link.patch import FINALIZED
from kobox.link.resolve import symbol_table
from kobox.link.validity import LoadView

_RELA_SIZE = 24
_CONTENTS = frozenset({SHT.PROGBITS, SHT.NOBITS, SHT.INIT_ARRAY, SHT.FINI_ARRAY, SHT.PREINIT_ARRAY})


def left_behind(view: LoadView, layout: Layout) -> list[int]:
    """Numbers of the sections that the copy of the file must hold while this module loads."""
    unplaced = {number for number, place in enumerate(layout.places) if place is None and number}
    if view.info("livepatch") is not None:
        return [number for number in sorted(unplaced) if view.sections[number].type in _CONTENTS]
    tables = {number for number in unplaced if view.sections[number].size and view.sections[number].name in FINALIZED}
    # symbols of per-CPU data count from the memory that the module gets for it
    return sorted(tables | _related(view, layout, unplaced - {view.index.pcpu}))


def _related(view: LoadView, layout: Layout, unplaced: set[int]) -> set[int]:
    """Those of ``unplaced`` in which a symbol lies that a relocation of loaded memory takes."""
    shndxs = symbol_table(view).shndxs
    there = {number for number, shndx in enumerate(shndxs) if shndx in unplaced}
    found: set[int] = set()
    for section in view.sections[1:] if there else ():
        target = section.info
        if section.type != SHT.RELA or target >= len(view.sections) or not layout.flags[target] & SHF.ALLOC:
            continue
        rows = view.contents(section.index)
        numbers = rows[: len(rows) // _RELA_SIZE * _RELA_SIZE].cast("I")[3::6].tolist()
        if not there.isdisjoint(numbers):
            found |= {shndxs[number] for number in there.intersection(numbers)}
    return found
