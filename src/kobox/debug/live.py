"""A running guest as the stack walker sees it: its memory, stacks, code, tables and symbols, and those of its modules.

Everything about modules is read from the guest's own list, so it does not matter who loaded them. An instance is a
look at one moment: make a new one for each walk. Follows ``kernel/module/kallsyms.c`` and ``dumpstack_64.c``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from kobox.abi import taint
from kobox.abi.traps import GENERAL
from kobox.debug.fault import Scene
from kobox.debug.klog import Style
from kobox.debug.orc import OrcEntry, OrcLayout, OrcTable
from kobox.debug.records import Banner, ControlRegisters, LinkedIn, Registers, Symbol, TraceItem
from kobox.debug.unwind import Stack, walk
from kobox.errors import GuestError
from kobox.image import Image
from kobox.kernel.guest import Guest, View
from kobox.machine.unicorn_abi import REG

_KERNEL_BASE = 0xFFFF_8000_0000_0000
ELF_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True, slots=True)
class CodeRange:
    """Code of a module: its core part or its init part."""

    start: int
    end: int

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address < self.end


@dataclass(frozen=True, slots=True)
class GuestModule:
    """A module of the guest's list as far as a trace needs it."""

    name: str
    view: View
    code: tuple[CodeRange, ...]
    orc: OrcTable | None
    flags: str


class LiveGuest:
    """Implements ``unwind.Guest`` and, by ``symbolize``, the ``Symbolizer``."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._image = guest.image

    # -- what the walker asks ----------------------------------------------------------------------------------

    def read(self, addr: int, size: int) -> bytes | None:
        if addr < _KERNEL_BASE:
            return None
        try:
            return self._guest.read(addr, size)
        except GuestError:
            return None

    def stack_at(self, addr: int) -> Stack | None:
        return next((stack for stack in self._stacks if stack.holds(addr, 1)), None)

    def is_text(self, addr: int) -> bool:
        return any(addr in part for part in self._kernel_code) or self._module_of(addr) is not None

    def find_orc(self, ip: int) -> OrcEntry | None:
        if any(ip in part for part in self._kernel_code):
            return self._kernel_orc.find(ip) if self._kernel_orc else None
        module = self._module_of(ip)
        return module.orc.find(ip) if module and module.orc else None

    def symbolize(self, address: int) -> Symbol | None:
        module = self._module_of(address)
        if module is not None:
            return self._module_symbol(module, address)
        if not any(address in part for part in self._kernel_code):
            return None
        found = self._image.symbols.at(address)
        return Symbol(found.name, found.offset, found.size) if found else None

    # -- the kernel itself -------------------------------------------------------------------------------------

    @cached_property
    def _kernel_code(self) -> tuple[CodeRange, ...]:
        pairs = (("_stext", "_etext"), ("_sinittext", "_einittext"))
        return tuple(CodeRange(self._guest.symbol(start), self._guest.symbol(end)) for start, end in pairs)

    @cached_property
    def _layout(self) -> OrcLayout | None:
        entry = self._image.btf.find_struct("orc_entry")
        if entry is None:
            return None
        places = {one.name: (one.bit_offset, one.bit_size or 8 * one.size) for one in entry.members}
        return OrcLayout.from_members(entry.size, places)

    @cached_property
    def _kernel_orc(self) -> OrcTable | None:
        start, stop = (self._image.symbols.get(f"__{end}_orc_unwind_ip") for end in ("start", "stop"))
        entries = self._image.symbols.get("__start_orc_unwind")
        if self._layout is None or start is None or stop is None or entries is None:
            return None
        return OrcTable(self._layout, start, entries, (stop - start) // 4, self._image.read)

    @cached_property
    def _stacks(self) -> tuple[Stack, ...]:
        """The current task's stack and the interrupt stack of the one CPU."""
        size = self._stack_size
        base = self._guest.view("task_struct", self._guest.current)["stack"]
        base &= (1 << 64) - 1
        stacks = [Stack("TASK", base, base + size)]
        top_at = self._irq_stack_pointer
        if top_at is not None:
            last = self._guest.read_uint(top_at)
            if last:
                end = last + 8
                stacks.append(Stack("IRQ", end - size, end, self._guest.read_uint(last)))
        return tuple(stacks)

    @cached_property
    def _stack_size(self) -> int:
        """The first task's stack is linked into the kernel: its length is every task's (and interrupt stack's)."""
        names = ("__start_init_task", "__end_init_task"), ("__start_init_stack", "__end_init_stack")
        start, end = next(pair for pair in names if self._guest.has(pair[1]))
        return self._guest.symbol(end) - self._guest.symbol(start)

    @property
    def _irq_stack_pointer(self) -> int | None:
        """Where the kernel keeps the address of the interrupt stack's last word."""
        if self._guest.has("hardirq_stack_ptr"):
            return self._guest.percpu("hardirq_stack_ptr")
        if self._guest.has("pcpu_hot") and self._guest.layouts.has("pcpu_hot", "hardirq_stack_ptr"):
            return self._guest.percpu("pcpu_hot") + self._guest.layouts.offset("pcpu_hot", "hardirq_stack_ptr")
        return None

    # -- modules -----------------------------------------------------------------------------------------------

    @cached_property
    def modules(self) -> tuple[GuestModule, ...]:
        """In the order of the guest's list, newest first; without those that are not formed yet."""
        states = self._guest.layouts.enum("module_state")
        return tuple(
            self._module(view, states) for view in self._listed() if view["state"] != states["MODULE_STATE_UNFORMED"]
        )

    def _listed(self) -> Iterator[View]:
        head = self._guest.symbol("modules")
        offset = self._guest.layouts.offset("module", "list")
        at = self._guest.read_uint(head)
        while at != head:
            yield self._guest.view("module", at - offset)
            at = self._guest.read_uint(at)

    def _module(self, view: View, states: Mapping[str, int]) -> GuestModule:
        orc = None
        if self._layout is not None and self._guest.layouts.has("module", "arch.num_orcs"):
            ips, entries = (view[f"arch.{name}"] & (1 << 64) - 1 for name in ("orc_unwind_ip", "orc_unwind"))
            if ips and entries:
                orc = OrcTable(self._layout, ips, entries, view["arch.num_orcs"], self._guest.read)
        marks = {states["MODULE_STATE_COMING"]: "+", states["MODULE_STATE_GOING"]: "-"}
        flags = taint.letters(view["taints"]) + marks.get(view["state"], "")
        return GuestModule(view.text("name"), view, tuple(self._code_of(view)), orc, flags)

    def _code_of(self, view: View) -> Iterator[CodeRange]:
        """Up to 6.3 a module has two layouts, later one memory for each type (ac3b43283923)."""
        if self._guest.layouts.has("module", "core_layout"):
            parts = [(f"{name}.base", f"{name}.text_size") for name in ("core_layout", "init_layout")]
        else:
            types = self._guest.layouts.enum("mod_mem_type")
            numbers = (types["MOD_TEXT"], types["MOD_INIT_TEXT"])
            parts = [(f"mem[{number}].base", f"mem[{number}].size") for number in numbers]
        for base, size in parts:
            start = view[base] & (1 << 64) - 1
            if start and view[size]:
                yield CodeRange(start, start + view[size])

    def _module_of(self, address: int) -> GuestModule | None:
        return next((one for one in self.modules if any(address in part for part in one.code)), None)

    def _module_symbol(self, module: GuestModule, address: int) -> Symbol | None:
        """The nearest symbol at or below; it reaches to the next one or to the end of the module's code."""
        table = self._guest.view("mod_kallsyms", module.view["kallsyms"] & (1 << 64) - 1)
        raw = self.read(table["symtab"] & (1 << 64) - 1, table["num_symtab"] * ELF_SYMBOL.size)
        if raw is None:
            return None
        strings = table["strtab"] & (1 << 64) - 1
        best, best_name = 0, 0
        following = next(part.end for part in module.code if address in part)
        for name, _info, _other, section, value, _size in ELF_SYMBOL.iter_unpack(raw):
            if not section or not name:
                continue
            if best < value <= address:
                best, best_name = value, name
            elif address < value < following:
                following = value
        if not best:
            return None
        text = self._guest.read_cstr(strings + best_name).decode("utf-8", "surrogateescape")
        return Symbol(text, address - best, following - best, module.name) if text else None

    # -- what a report shows -----------------------------------------------------------------------------------

    def registers(self) -> Registers:
        """Of the CPU as it stands."""
        cpu = self._guest.machine.cpu
        named = {member: cpu.read(REG[name.lower().replace("r0", "r")]) for name, member in GENERAL.items()}
        rest = {"ip": "rip", "sp": "rsp", "flags": "eflags", "cs": "cs", "ss": "ss"}
        return Registers(**named, **{member: cpu.read(REG[name]) for member, name in rest.items()})

    def control(self, fault_address: int | None = None) -> ControlRegisters:
        cpu = self._guest.machine.cpu
        cr2 = cpu.read(REG["cr2"]) if fault_address is None else fault_address
        return ControlRegisters(
            gs=cpu.read(REG["gs_base"]),
            cr0=cpu.read(REG["cr0"]),
            cr2=cr2,
            cr3=cpu.read(REG["cr3"]),
            cr4=cpu.read(REG["cr4"]),
        )

    def banner(self) -> Banner:
        task = self._guest.view("task_struct", self._guest.current)
        return Banner(
            cpu=0,
            pid=task["pid"],
            comm=task.text("comm"),
            taint=self._guest.read_uint(self._guest.symbol("tainted_mask")),
            release=self._image.release,
            version=build_text(self._image.banner),
            hardware=self._hardware(),
        )

    def _hardware(self) -> str | None:
        """The board's name as the kernel noted it for its reports (lib/dump_stack.c)."""
        place = self._guest.symbols.get("dump_stack_arch_desc_str")
        text = self._guest.read_cstr(place) if place is not None else b""
        return text.decode("latin-1") or None

    def scene(self, number: int = 1, die_flags: str = "", fault_address: int | None = None) -> Scene:
        """Everything that ``fault`` needs to make a record at this moment."""
        modules = tuple(LinkedIn(one.name, one.flags) for one in self.modules)
        return Scene(self, self.symbolize, self.banner(), self.control(fault_address), modules, "", number, die_flags)

    def trace(self) -> tuple[TraceItem, ...]:
        """The call trace of where the CPU stands now."""
        return walk(self, self.registers(), self.symbolize)


def style_of(image: Image) -> Style:
    """How this kernel words its reports, told by the format strings in it (20 ms)."""
    content = image.section(".rodata") or bytes(image.flat)
    return Style.probe(lambda text: text in content, _count_taint_flags(image))


def _count_taint_flags(image: Image) -> int:
    """Length of the kernel's own table: entries as long as they begin with a capital letter."""
    start, entry = image.symbols.get("taint_flags"), image.btf.find_struct("taint_flag")
    if start is None or entry is None:
        return taint.FLAGS_IN_6_1
    letter, size = entry.offset_of("c_true"), entry.size
    letters = (image.read(start + number * size + letter, 1) for number in range(len(taint.FLAGS)))
    return sum(1 for _ in takewhile(bytes.isupper, letters))


def build_text(banner: str) -> str:
    """What a report shows of the build: its number, and the package if the distribution put one into the banner."""
    _, _, build = banner.partition("#")
    number, package = build.partition(" ")[0], re.search(r"Debian \d\S*", build)
    return " ".join(filter(None, (f"#{number}" if number else "", package and f" {package[0]}")))
