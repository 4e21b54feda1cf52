"""Where each section of a module goes, and how large the module becomes.

Follows ``layout_sections`` and ``layout_symtab`` of kernel/module, in both shapes: one core and one init layout with
text, read-only and read-only-after-init parts, or the seven typed memories of later kernels. Sizes are the kernel's
``unsigned int``: they wrap as its do.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, MutableMapping
from enum import IntEnum
from itertools import compress, repeat
from typing import NamedTuple

from kobox.elf.constants import SHF, SHT
from kobox.link.findings import Refusal
from kobox.link.rules import PAGE_SIZE, Rules
from kobox.link.validity import SYM_SIZE, LoadView

SHF_RO_AFTER_INIT = 0x00200000
U32 = 0xFFFFFFFF


class Group(IntEnum):
    """The kernel's order within core and init: code, constants, constants after init, data."""

    TEXT, RODATA, RO_AFTER_INIT, DATA = range(4)


#: Names of the typed memories by group; in enum mod_mem_type's order they are CORE then INIT, data before rodata.
CORE_MEMORIES = {
    Group.TEXT: "text",
    Group.RODATA: "rodata",
    Group.RO_AFTER_INIT: "ro_after_init",
    Group.DATA: "data",
}
INIT_MEMORIES = {
    Group.TEXT: "init_text",
    Group.RODATA: "init_rodata",
    Group.RO_AFTER_INIT: "init_data",
    Group.DATA: "init_data",
}
MEMORIES = ("text", "data", "rodata", "ro_after_init", "init_text", "init_data", "init_rodata")
INIT_REGIONS = frozenset({"init", "init_text", "init_data", "init_rodata"})


class Region(NamedTuple):
    """One allocation. The part sizes count from its start and are only meant for the ``core`` and ``init`` regions."""

    name: str
    size: int
    text_size: int = 0
    ro_size: int = 0
    ro_after_init_size: int = 0


class Place(NamedTuple):
    """Where a section goes: region name and offset into it."""

    region: str
    offset: int


class KallsymsPlan(NamedTuple):
    """Offsets of the symbol tables that stay (``core_*``, in ``core_region``) and of the ones freed after init.

    ``kept`` are the symbol numbers that stay, ``strings`` the size of their string table.
    """

    core_region: str
    init_region: str
    init_symtab: int
    init_strtab: int
    core_symtab: int
    core_strtab: int
    core_typetab: int
    strings: int
    kept: tuple[int, ...]
    mod_kallsyms: int
    init_typetab: int


class Layout(NamedTuple):
    """The plan of a module in memory. ``flags``: section flags as the kernel has them after planning."""

    regions: Mapping[str, Region]
    places: tuple[Place | None, ...]
    flags: tuple[int, ...]
    percpu_size: int
    percpu_align: int
    kallsyms: KallsymsPlan

    @property
    def core_size(self) -> int:
        """What /proc/modules and ``coresize`` show once init memory is gone."""
        return sum(region.size for name, region in self.regions.items() if name not in INIT_REGIONS)

    @property
    def init_size(self) -> int:
        return sum(region.size for name, region in self.regions.items() if name in INIT_REGIONS)

    def addresses(self, bases: Mapping[str, int]) -> list[int]:
        """Address of each section (0 where it has no place) with the regions at ``bases``."""
        return [0 if place is None else bases[place.region] + place.offset for place in self.places]

    def windows(self, view: LoadView, memories: Mapping[str, memoryview | bytearray]) -> list[memoryview | None]:
        """For each placed section its bytes inside ``memories``, writable; None for the others."""
        whole = {name: memoryview(memory) for name, memory in memories.items()}
        return [
            None if place is None else whole[place.region][place.offset : place.offset + section.size]
            for place, section in zip(self.places, view.sections, strict=True)
        ]

    def image(self, view: LoadView) -> dict[str, bytearray]:
        """New zeroed memory for each region with the sections' bytes in place."""
        memories = {name: bytearray(region.size) for name, region in self.regions.items()}
        self.fill(view, memories)
        return memories

    def fill(self, view: LoadView, memories: Mapping[str, memoryview | bytearray]) -> None:
        """Copy the sections into memory that is already there (and zeroed)."""
        for place, section in zip(self.places, view.sections, strict=True):
            if place is None or section.type == SHT.NOBITS or not section.size:
                continue
            memory = memories[place.region]
            end = place.offset + section.size
            if end > len(memory):
                raise Refusal(
                    errno.ENOMEM, why=f"a section ends at {end:#x} of {len(memory):#x} bytes of memory", crash=True
                )
            memory[place.offset : end] = view.data[section.offset : section.offset + section.size]


def lay_out(view: LoadView, rules: Rules) -> Layout:
    """Plan memory for a module that passed the checks."""
    flags = list(view.flags)
    pcpu = view.index.pcpu
    flags[pcpu] &= ~SHF.ALLOC
    for name in (".data..ro_after_init", "__jump_table"):
        if number := view.find(name):
            flags[number] |= SHF_RO_AFTER_INIT
    planner = _Memories(view, flags, rules) if rules.memories else _CoreAndInit(view, flags, rules)
    planner.sections()
    kallsyms = planner.symbols()
    percpu = view.sections[pcpu]
    return Layout(
        regions=planner.regions(),
        places=tuple(planner.places),
        flags=tuple(flags),
        percpu_size=percpu.size,
        percpu_align=min(percpu.addralign, PAGE_SIZE),
        kallsyms=kallsyms,
    )


class _Planner:
    """Sizes that grow section by section, as the kernel's do."""

    def __init__(self, view: LoadView, flags: list[int], rules: Rules) -> None:
        self.view = view
        self.flags = flags
        self.rules = rules
        self.places: list[Place | None] = [None] * len(view.sections)
        self.sizes: MutableMapping[str, int] = {name: self._brought(at) for name, at in rules.size_offsets.items()}
        self.groups = self._grouped()

    def _grouped(self) -> dict[tuple[bool, Group], list[int]]:
        """Allocated sections by (is init, group), each list in file order."""
        starts = (".init",) if self.rules.module_unload else (".init", ".exit")
        groups: dict[tuple[bool, Group], list[int]] = {(init, group): [] for init in (False, True) for group in Group}
        for number, flags in enumerate(self.flags):
            if not flags & SHF.ALLOC:
                continue
            if flags & SHF.EXECINSTR:
                group = Group.TEXT
            elif not flags & SHF.WRITE:
                group = Group.RODATA
            elif flags & SHF_RO_AFTER_INIT:
                group = Group.RO_AFTER_INIT
            else:
                group = Group.DATA
            groups[self.view.names[number].startswith(starts), group].append(number)
        return groups

    def _brought(self, at: int) -> int:
        """A size in the file's ``struct module``: zero in a sane one, and what the kernel begins with in any."""
        start = self.view.sections[self.view.index.mod].offset + at
        return int.from_bytes(self.view.data[start : start + 4], "little")

    def place(self, region: str, number: int) -> int:
        """Give a section the next aligned offset of a region."""
        section = self.view.sections[number]
        offset = _align(self.sizes[region], section.addralign or 1)
        self.sizes[region] = (offset + section.size) & U32
        self.places[number] = Place(region, offset)
        return offset

    def sections(self) -> None:
        raise NotImplementedError

    def symbols(self) -> KallsymsPlan:
        raise NotImplementedError

    def regions(self) -> dict[str, Region]:
        raise NotImplementedError

    def plan_symbols(self, core: str, init: str) -> KallsymsPlan:
        """Room for the symbols that stay at the end of ``core``, for all of them at the end of ``init``."""
        view, sizes = self.view, self.sizes
        symtab, strtab = view.index.sym, view.index.str
        align = view.sections[symtab].addralign or 1
        self.flags[symtab] |= SHF.ALLOC
        init_symtab = self.place(init, symtab)
        kept, strings = self._kept_symbols()
        core_symtab = _align(sizes[core], align)
        core_strtab = (core_symtab + len(kept) * SYM_SIZE) & U32
        core_typetab = (core_strtab + strings) & U32
        sizes[core] = (core_typetab + len(kept)) & U32
        self.end_of(core)
        self.flags[strtab] |= SHF.ALLOC
        init_strtab = self.place(init, strtab)
        sizes[init] = mod_kallsyms = _align(sizes[init], 8)
        init_typetab = mod_kallsyms + self.rules.sizes["mod_kallsyms"]
        sizes[init] = (init_typetab + view.sections[symtab].size // SYM_SIZE) & U32
        self.end_of(init)
        return KallsymsPlan(
            core_region=core,
            init_region=init,
            init_symtab=init_symtab,
            init_strtab=init_strtab,
            core_symtab=core_symtab,
            core_strtab=core_strtab,
            core_typetab=core_typetab,
            strings=strings,
            kept=kept,
            mod_kallsyms=mod_kallsyms,
            init_typetab=init_typetab,
        )

    def end_of(self, region: str) -> None:
        """A region is complete; the shape with one core separates it from what follows."""

    def _kept_symbols(self) -> tuple[tuple[int, ...], int]:
        """Symbols that kallsyms keeps after init, and the size of their names with NULs."""
        view = self.view
        table = view.contents(view.index.sym)
        table = table[: len(table) // SYM_SIZE * SYM_SIZE]
        names = table.cast("I")[0::6].tolist()
        if view.info("livepatch") is not None:
            kept = list(range(len(names)))
        else:
            core = self._core_sections()
            in_core = map(core.__contains__, table.cast("H")[3::12].tolist())
            kept = [number for number in compress(range(len(names)), in_core) if names[number] and number]
            kept = [0, *kept] if names else []
        strtab = view.sections[view.index.str]
        strings = bytes(view.contents(view.index.str))
        starts = [names[number] for number in kept]
        ends = list(map(strings.find, repeat(b"\0"), starts))
        if -1 in ends or (starts and max(starts) >= len(strings)):
            return tuple(kept), sum(len(view.text_at(strtab.offset + start)) + 1 for start in starts)
        return tuple(kept), sum(ends) - sum(starts) + len(kept)

    def _core_sections(self) -> frozenset[int]:
        needed = SHF.ALLOC if self.rules.kallsyms_all else SHF.ALLOC | SHF.EXECINSTR
        core = {
            number
            for number, place in enumerate(self.places)
            if place is not None and place.region not in INIT_REGIONS and self.flags[number] & needed == needed
        }
        if self.rules.kallsyms_all and self.view.index.pcpu:
            core.add(self.view.index.pcpu)
        return frozenset(core - {0})


class _CoreAndInit(_Planner):
    """One core and one init layout, each text, read-only data, read-only after init, data."""

    def sections(self) -> None:
        self.marks: dict[str, list[int]] = {}
        for region, init in (("core", False), ("init", True)):
            self.sizes.setdefault(region, 0)
            marks = self.marks[region] = []
            for group in Group:
                for number in self.groups[init, group]:
                    self.place(region, number)
                if group is Group.RO_AFTER_INIT and init:
                    marks.append(marks[-1])
                    continue
                self.end_of(region)
                marks.append(self.sizes[region])

    def symbols(self) -> KallsymsPlan:
        return self.plan_symbols("core", "init")

    def end_of(self, region: str) -> None:
        self.sizes[region] = self.rules.page_align(self.sizes[region])

    def regions(self) -> dict[str, Region]:
        return {name: Region(name, self.sizes[name], *self.marks[name][:3]) for name in ("core", "init")}


class _Memories(_Planner):
    """Seven typed memories, each rounded up to pages when allocated."""

    def sections(self) -> None:
        for memory in MEMORIES:
            self.sizes.setdefault(memory, 0)
        for init, memories in ((False, CORE_MEMORIES), (True, INIT_MEMORIES)):
            for group in Group:
                if init and group is Group.RO_AFTER_INIT:
                    # The kernel warns and leaves such a section without a place; its writable flag puts it in data.
                    self.groups[init, Group.DATA] = sorted(self.groups[init, group] + self.groups[init, Group.DATA])
                    continue
                for number in self.groups[init, group]:
                    self.place(memories[group], number)

    def symbols(self) -> KallsymsPlan:
        return self.plan_symbols("data", "init_data")

    def regions(self) -> dict[str, Region]:
        return {
            name: Region(name, (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1) & U32) for name, size in self.sizes.items()
        }


def _align(size: int, alignment: int) -> int:
    """The kernel's ALIGN on an unsigned int, also for an alignment that is no power of two."""
    mask = (alignment - 1) & U32
    return (size + mask) & ~mask & U32
