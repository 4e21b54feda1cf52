"""kobox's own module loader: the steps of ``load_module``, in the kernel's order, on a booted image.

Policy and linking are pure functions of ``link`` and ``sign``; the guest keeps its own books: this room fills its
``struct module``, links it into the kernel's lists and calls the helpers that the kernel itself would call (notifier
chains, sysfs, ftrace, memory permissions). A load is a generator that yields guest calls, so that an init may sleep
and a second load may wait for the first. Follows kernel/module/main.c; a step is undone by the entry it leaves on the
undo list, in reverse order, as the kernel's goto labels do.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kobox import link, sign
from kobox.errors import Errno, GuestError
from kobox.kernel import params, trace_sites
from kobox.kernel.cpu_probe import probe_cpu
from kobox.kernel.demands import keyrings_of, rules_of
from kobox.kernel.env import Call, Env, Interruptible, Result, Steps
from kobox.kernel.exporters import ExporterList, ModuleExports
from kobox.kernel.guest import Guest, View, errno_of, signed64
from kobox.kernel.heapcheck_gate import HeapGate, Linked
from kobox.kernel.keyrings import GuestKeyrings
from kobox.kernel.kunit_gate import KunitGate
from kobox.kernel.linked_images import LinkedImage, LinkedImages, Site
from kobox.kernel.modules import module_views, state_of
from kobox.kernel.watcher import Watcher
from kobox.link import Finding, Layout, LoadView, LogLine, Refusal, Taint
from kobox.link.resolve import Resolution
from kobox.machine.sites import find_sites, has_candidates

if TYPE_CHECKING:
    from kobox.kernel.coverage import CodeCoverage

IGNORE_MODVERSIONS, IGNORE_VERMAGIC = 1, 2
LIVE, COMING, GOING, UNFORMED = (
    "MODULE_STATE_LIVE",
    "MODULE_STATE_COMING",
    "MODULE_STATE_GOING",
    "MODULE_STATE_UNFORMED",
)
_CAP_SYS_MODULE = 16
_REF_BASE = 1
_LENT_OFFSET = 1 << 20
_HEADER_OFFSET, _HEADERS_OFFSET = 0x1000, 0x2000
_ORC_TABLES = ("arch.orc_unwind_ip", "arch.orc_unwind")
_MEMORY_TYPES = {
    "text": "MOD_TEXT", "data": "MOD_DATA", "rodata": "MOD_RODATA", "ro_after_init": "MOD_RO_AFTER_INIT",
    "init_text": "MOD_INIT_TEXT", "init_data": "MOD_INIT_DATA", "init_rodata": "MOD_INIT_RODATA",
}  # fmt: skip
_TAINT_USER = 6
_SHF_EXECINSTR, _WORD = 4, 8
_ELF_HEADER, _SECTION_HEADER = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")


class Step(NamedTuple):
    """One step of a load, for whoever watches: its real time in milliseconds, and what it found."""

    name: str
    ms: float
    findings: tuple[str, ...] = ()


@dataclass(slots=True)
class Load:
    """One load in flight. ``steps`` grows; ``undo`` holds what must be done, last first, if a later step fails."""

    data: bytes
    arguments: bytes | None
    flags: int
    comm: str = ""
    """What the task that loads is called, for the kernel's lines about it."""
    steps: list[Step] = field(default_factory=list)
    undo: list[Callable[[], Steps]] = field(default_factory=list)
    from_file: bool = False
    """The bytes were read from a file of the guest, so that its security modules have been asked."""
    signed: bool = False
    taints: int = 0
    """The module's own taint bits."""
    bases: dict[str, int] = field(default_factory=dict)
    from_cache: dict[str, int] = field(default_factory=dict)
    """Of each region whether its memory is the kernel's cache of executable pages."""
    memory: dict[str, bytearray] = field(default_factory=dict)
    """The regions while they are linked; stored in the guest in one go."""
    view: LoadView = None  # type: ignore[assignment]  # set by the first step that has one
    layout: Layout = None  # type: ignore[assignment]
    module: View = None  # type: ignore[assignment]
    addresses: list[int] = field(default_factory=list)
    percpu: int = 0
    args: int = 0
    """The text of the parameters, in guest memory; a kernel whose modules do not keep it drops it when they are set."""
    symbols: link.Symbols | None = None
    kallsyms: link.Kallsyms | None = None
    copies: list[int] = field(default_factory=list)
    """Guest memory that holds parts of the file until the load ends."""
    copy: int = 0
    """The file as it is, in guest memory, for modules with symbols in sections that are not loaded."""

    @property
    def name(self) -> str:
        return self.view.mod_name


class Loader:
    """Loads modules into one guest."""

    def __init__(self, guest: Guest, exporters: ExporterList | None = None) -> None:
        self.guest = guest
        self.env = Env(guest)
        self.exporters = exporters or ExporterList(guest)
        self.rules = rules_of(guest.image)
        self.heap: HeapGate | None = None
        """Sees what modules allocate and free; None: they get the kernel's own functions."""
        self.kunit: KunitGate | None = None
        """Runs the tests of modules on kernels that were built without KUnit."""
        self.coverage: CodeCoverage | None = None
        """Notes which code of modules runs."""
        self.comm = "insmod"
        self._cpu: link.Cpu | None = None
        self._built: sign.Keyrings | None = None
        self.keyrings = GuestKeyrings(guest)
        self._said_once: set[str] = set()
        self._linked = LinkedImages()
        self.watcher: Watcher | None = None

    @property
    def said_once(self) -> frozenset[str]:
        """The lines that this kernel has said and will not say again: part of its state."""
        return frozenset(self._said_once)

    def forget(self, said_once: frozenset[str]) -> None:
        """After a reset: only these lines were said, no module is known."""
        self._said_once = set(said_once)
        self.exporters.forget()
        if self.kunit is not None:
            self.kunit.forget()
        if self.watcher is not None:
            self.watcher.guest_was_reset()

    def load(
        self,
        data: bytes,
        arguments: bytes | None = b"",
        flags: int = 0,
        steps: list[Step] | None = None,
        refused: Callable[[str], None] = lambda why: None,
        comm: str = "",
        from_file: bool = False,
    ) -> Result:
        """Load a module; the generator's value is 0 or a negative number as the system call returns it.

        ``arguments`` None is a NULL pointer. ``steps`` is filled as the load goes on; ``refused`` is told why a load
        ends, for people. ``comm`` is who loads; empty: the loader's own. ``from_file``: the guest's kernel has read the
        bytes from a file of its own.
        """
        load = Load(bytes(data), arguments, flags, comm or self.comm, steps if steps is not None else [])
        load.from_file = from_file
        try:
            for name, step in _STEPS:
                start = time.perf_counter()
                yield from step(self, load)
                load.steps.append(Step(name, (time.perf_counter() - start) * 1000))
        except Refusal as refusal:
            yield from self._say(load, refusal.findings)
            refused(refusal.why)
            result = -refusal.number
        except Errno as refusal:
            refused(refusal.why)
            result = -refusal.number
        except GuestError as crash:
            # a pointer of the module that leads nowhere, where the kernel would follow it and oops
            refused(f"the kernel would crash on this module: {crash}")
            result = -errno.EFAULT
        else:
            start = time.perf_counter()
            result = yield from self._init(load)
            load.steps.append(Step("init", (time.perf_counter() - start) * 1000))
            return result
        while load.undo:
            yield from load.undo.pop()()
        return result

    # -- before memory is allocated -------------------------------------------------------------------------------

    def _permission(self, load: Load) -> Steps:
        """Whether the task that loads may, and what the security modules (IMA, LoadPin, BPF) say to a module without a
        file."""
        guest = self.guest
        if not (yield (guest.symbol("capable"), _CAP_SYS_MODULE)) & 0xFF:
            raise Errno(errno.EPERM, "the task lacks CAP_SYS_MODULE in the first user namespace")
        if guest.read_uint(guest.symbol("modules_disabled"), 4):
            raise Errno(errno.EPERM, "modules are disabled")
        if not load.from_file and guest.has("security_kernel_load_data"):
            what = guest.layouts.enum("kernel_load_data_id")["LOADING_MODULE"]
            answer = signed32((yield (guest.symbol("security_kernel_load_data"), what, 1)))
            if answer < 0:
                raise Errno(-answer, "a security module of the kernel refuses modules that come without a file")

    def _signature(self, load: Load) -> Steps:
        check = sign.check(
            load.data, self._verify, flags=load.flags, enforced=self._signatures_enforced(),
            lockdown=self._lockdown(), comm=load.comm,
        )  # fmt: skip
        for line in check.lines:
            yield from self.env.printk(line.level, line.text)
        if check.number:
            raise Errno(check.number, check.verdict.why)
        load.data = load.data[: check.verdict.length]
        load.signed = check.ok

    def _check_file(self, load: Load) -> Steps:
        load.view = view = link.load_view(
            load.data, self.rules, ignore_modversions=bool(load.flags & IGNORE_MODVERSIONS)
        )
        kernel = self._against(load.flags)
        for gate in link.FILE_GATES:
            yield from self._say(load, gate.check(view, kernel._replace(taints=self.env.taints)))

    def _against(self, flags: int) -> link.Against:
        """This kernel, now."""
        blacklist = self.guest.read_uint(self.guest.symbol("module_blacklist"))
        return link.Against(
            self.rules,
            self.exporters.all(),
            self._vermagic(),
            blacklist=self.guest.read_cstr(blacklist).decode("latin-1") if blacklist else "",
            ignore_vermagic=bool(flags & IGNORE_VERMAGIC),
            spectre_v2=self._mitigates_spectre_v2(),
        )

    # -- memory and name ------------------------------------------------------------------------------------------

    def _allocate(self, load: Load) -> Steps:
        view = load.view
        load.layout = layout = link.lay_out(view, self.rules)
        load.undo.append(lambda: self._free_memory(load))
        for name, region in layout.regions.items():
            load.bases[name] = 0
            if region.size:
                load.bases[name] = yield self._allocation(name, region.size)
                load.from_cache[name] = yield from self._is_from_cache(name)
                if not load.bases[name]:
                    raise Errno(errno.ENOMEM, f"no memory for {region.size} bytes of {name}")
        load.memory = layout.image(view)
        load.addresses = layout.addresses(load.bases)
        yield from self._copy_what_stays_behind(load)
        self._place_module(load)
        load.module = module = self.guest.view("module", load.addresses[view.index.mod])
        noted = {"taints": module["taints"] | load.taints}
        if view.info("livepatch") is not None and self.guest.layouts.has("module", "klp"):
            noted["klp"] = 1
        for name, region in layout.regions.items():
            noted |= self._region_facts(load, name, region)
        self._note_in_section(load, noted)
        load.taints = module["taints"]

    def _place_module(self, load: Load) -> None:
        """``struct module`` into guest memory; all else follows when it is linked.

        Where the section of a broken module is shorter than the structure, with what lies behind it.
        """
        place = load.layout.places[load.view.index.mod]
        if place is not None:
            size = max(load.view.sections[load.view.index.mod].size, self.guest.layouts.size("module"))
            memory = memoryview(load.memory[place.region])[place.offset : place.offset + size]
            self.guest.write(load.bases[place.region] + place.offset, memory)

    def _note_in_section(self, load: Load, noted: Mapping[str, int]) -> None:
        """What the kernel writes into its copy of the file before sections move: a member beyond the end of a section
        that is too short stays behind."""
        size, layouts = load.view.sections[load.view.index.mod].size, self.guest.layouts
        is_whole = size >= layouts.size("module")
        for path, value in noted.items():
            if is_whole or (member := layouts.field("module", path)).offset + member.size <= size:
                load.module[path] = value

    def _clear_tables(self, load: Load) -> None:
        """Tables that the file does not have, for a file that brings something else than a name in its ``struct
        module``: zero, as every load sets them."""
        layouts, view = self.guest.layouts, load.view
        name = layouts.field("module", "name")
        brought = bytes(view.contents(view.index.mod))
        if brought[: name.offset].strip(b"\0") or brought[name.offset + name.size :].strip(b"\0"):
            for path in link.table_fields():
                if layouts.has("module", path):
                    load.module[path] = 0

    def _copy_what_stays_behind(self, load: Load) -> Steps:
        """Symbols of a section that is not loaded point into the kernel's copy of the file, until the load ends.

        No sane module has such symbols, so the copy is made for odd ones only.
        """
        left = link.left_behind(load.view, load.layout)
        if not left:
            return
        yield from self._copy_file(load)
        for number in left:
            load.addresses[number] = load.copy + load.view.sections[number].offset

    def _copy_file(self, load: Load) -> Steps:
        """The kernel's copy of the file, which is there until the load ends."""
        if not load.copy:
            load.copy = yield from self._guest_copy(load, bytes(load.view.data))

    def _guest_copy(self, load: Load, data: bytes) -> Result:
        """Bytes in guest memory until the load ends; their address."""
        copy = yield (self.guest.first_symbol("vmalloc", "vmalloc_noprof"), len(data))
        if not copy:
            raise Errno(errno.ENOMEM, f"no memory for a copy of {len(data)} bytes of the file")
        if not load.copies:
            load.undo.append(lambda: self._free_copies(load))
        load.copies.append(copy)
        self.guest.write(copy, data)
        return copy

    def _free_copies(self, load: Load) -> Steps:
        while load.copies:
            yield (self.guest.symbol("vfree"), load.copies.pop())

    def _allocation(self, region: str, size: int) -> tuple[int, ...]:
        guest = self.guest
        if not guest.has("execmem_alloc"):
            return (guest.symbol("module_alloc"), size)
        return (guest.first_symbol("execmem_alloc_rw", "execmem_alloc"), self._memory_kind(region), size)

    def _memory_kind(self, region: str) -> int:
        kind = "EXECMEM_MODULE_TEXT" if region in ("text", "init_text") else "EXECMEM_MODULE_DATA"
        return self.guest.layouts.enum("execmem_type")[kind]

    def _is_from_cache(self, region: str) -> Result:
        """Whether the memory comes from a cache of read-only executable pages, which it must become again."""
        if not self.guest.has("execmem_is_rox"):
            return 0
        return (yield (self.guest.symbol("execmem_is_rox"), self._memory_kind(region))) & 0xFF

    def _free_memory(self, load: Load) -> Steps:
        for base in reversed(list(load.bases.values())):
            yield from self._free_region(base)

    def _free_region(self, base: int) -> Steps:
        if base:
            yield (self.guest.first_symbol("execmem_free", "module_memfree"), base)

    def _region_facts(self, load: Load, name: str, region: link.Region) -> dict[str, int]:
        prefix = self._region_path(name)
        facts = {f"{prefix}.base": load.bases[name], f"{prefix}.size": region.size}
        if self.rules.memories and self.guest.layouts.has("module_memory", "is_rox"):
            facts[f"{prefix}.is_rox"] = load.from_cache.get(name, 0)
        if not self.rules.memories:
            facts[f"{prefix}.text_size"] = region.text_size
            facts[f"{prefix}.ro_size"] = region.ro_size
            facts[f"{prefix}.ro_after_init_size"] = region.ro_after_init_size
        return facts

    def _region_path(self, name: str) -> str:
        if not self.rules.memories:
            return f"{name}_layout"
        return f"mem[{self.guest.layouts.enum('mod_mem_type')[_MEMORY_TYPES[name]]}]"

    def _reserve_name(self, load: Load) -> Steps:
        """Put the module on the list as unformed, unless its name is taken; wait for a load of that name to end."""
        guest, module = self.guest, load.module
        room = guest.layouts.field("module", "name")
        if b"\0" not in guest.read(module.address + room.offset, room.size):
            if guest.has("fortify_panic"):
                yield (guest.symbol("fortify_panic"), self.env.scratch(b"__fortify_strlen\0"))
            raise Errno(errno.EINVAL, "the module's name has no end (the kernel stops with a BUG here)")
        self._set_state(module, UNFORMED)
        other = self._find(load.name)
        if other is not None and state_of(other) in ("coming", "unformed"):
            while other is not None and state_of(other) in ("coming", "unformed"):
                yield Interruptible((guest.symbol("msleep"), 1))
                other = self._find(load.name)
            raise Errno(errno.EEXIST if other is not None and state_of(other) == "live" else errno.EBUSY)
        if other is not None:
            raise Errno(errno.EEXIST if state_of(other) == "live" else errno.EBUSY, f"{load.name} is loaded")
        self._widen_bounds(load)
        self.env.list_add(module.at("list"), guest.symbol("modules"))
        yield (guest.symbol("mod_tree_insert"), module.address)
        load.undo.append(lambda: self._unlink(load.module))

    def _find(self, name: str) -> View | None:
        return next((view for view in module_views(self.guest) if view.text("name") == name), None)

    def _widen_bounds(self, load: Load) -> None:
        """``__module_address`` looks only between the lowest and the highest address that any module had."""
        bounds = self.guest.view("mod_tree_root", self.guest.symbol("mod_tree"))
        for name, base in load.bases.items():
            if base:
                bounds["addr_min"] = min(bounds["addr_min"], base)
                bounds["addr_max"] = max(bounds["addr_max"], base + load.layout.regions[name].size)

    def _unlink(self, module: View) -> Steps:
        guest = self.guest
        self.env.list_del(module.at("list"))
        yield (guest.symbol("mod_tree_remove"), module.address)
        yield from self._wake_waiters()
        yield (guest.symbol("synchronize_rcu"),)

    def _wake_waiters(self) -> Steps:
        """``wake_up_all(&module_wq)``."""
        yield (self.guest.symbol("__wake_up"), self.guest.symbol("module_wq"), 3, 0, 0)

    def _taint_unsigned(self, load: Load) -> Steps:
        load.module["sig_ok"] = int(load.signed)
        if not load.signed:
            yield from self._say(load, link.unsigned_taint(load.view))

    # -- contents -------------------------------------------------------------------------------------------------

    def _tables(self, load: Load) -> Steps:
        guest, module, view, layout = self.guest, load.module, load.view, load.layout
        if layout.percpu_size:
            allocate = guest.first_symbol("__alloc_reserved_percpu", "pcpu_alloc_noprof")
            load.percpu = yield (allocate, layout.percpu_size, layout.percpu_align)
            if not load.percpu:
                line = f"{load.name}: Could not allocate {layout.percpu_size} bytes percpu data"
                raise Refusal(errno.ENOMEM, (LogLine(4, line),))
            module["percpu"], module["percpu_size"] = load.percpu, layout.percpu_size
        load.undo.append(lambda: _one((guest.symbol("free_percpu"), load.percpu)))  # NULL is nothing to free
        for head in ("source_list", "target_list"):
            self.env.list_init(module.at(head))
        module["refcnt"] = _REF_BASE + 1
        load.undo.append(lambda: _one((guest.symbol("module_unload_free"), module.address)))
        lock = module.at("param_lock")
        mutex_init = guest.first_symbol("__mutex_init", "mutex_init_generic", "__rt_mutex_init")
        yield (mutex_init, lock, self.env.scratch(b"&mod->param_lock\0"), lock)
        self._clear_tables(load)
        for table in link.find_tables(view, load.addresses, self.rules).values():
            if guest.layouts.has("module", table.field):
                module[table.field] = table.address or (yield from self._lend(load, table.section))
                if table.count_field and table.entries is not None:
                    module[table.count_field] = table.entries
        found = link.check_module_license_and_versions(
            view, self.rules, self.env.taints, has_unversioned_exports=link.has_unversioned_exports(view, self.rules)
        )
        yield from self._say(load, found)
        for tag in ("version", "srcversion"):
            value = view.info(tag)
            module[tag] = 0
            if value is not None:
                module[tag] = yield from self.env.kstrdup(value.encode("utf-8", "surrogateescape"))
        load.undo.append(lambda: self._free_modinfo(module))

    def _lend(self, load: Load, section: int) -> Result:
        """A section that is not part of the module in memory (its BTF): the guest reads it from the file, here a
        copy of the section."""
        contents = bytes(load.view.contents(section))
        if self.env.fits(len(contents), _LENT_OFFSET):
            return self.env.scratch(contents, _LENT_OFFSET)
        return (yield from self._guest_copy(load, contents))

    def _free_modinfo(self, module: View) -> Steps:
        for tag in ("version", "srcversion"):
            yield from self.env.kfree(module[tag])

    def _resolve(self, load: Load) -> Steps:
        """Bind symbols, take references on the modules that export them, relocate, fit to the CPU."""
        guest, view = self.guest, load.view
        yield from self._wait_for_exporters(load)
        exporters: list[link.Exporter] = [*self.exporters.all(), *([self.kunit] if self.kunit is not None else [])]
        resolver = link.Resolver(view, exporters, self.rules, self.env.taints, load.taints)
        symbols = link.simplify(view, load.addresses, load.percpu, self._through_checker(load.name, resolver))
        load.symbols = symbols
        yield from self._say(load, symbols.findings)
        before = load.taints
        load.taints |= resolver.of_module
        for bit in range(64):
            if load.taints >> bit & 1 and not before >> bit & 1:
                yield from self._taint(load, bit, lockdep_off=True)
        if resolver.using_gplonly and guest.layouts.has("module", "using_gplonly_symbols"):
            load.module["using_gplonly_symbols"] = 1
        for owner in resolver.used:
            if isinstance(owner, ModuleExports):
                yield from self._use(load.module, owner.view)
        if symbols.error:
            raise Errno(symbols.error, f"unknown symbols: {', '.join(symbols.unresolved)}")
        if self.kunit is not None:
            yield from self.kunit.check(view, symbols.bound)
        key = load.data, tuple(load.addresses), load.percpu, tuple(symbols.values)
        known = self._linked.find(key)
        if known is None or not self._link_as_before(load, known):
            yield from self._link(load, symbols, key)
        self._copy_percpu(load)
        self._store(load)
        assert load.kallsyms is not None
        self._point_to_symbols(load.module, load.kallsyms)
        if self.heap is not None:
            heap, name = self.heap, load.name
            load.undo.append(lambda: heap.module_gone(name))
            heap.module_linked(Linked(name, view, load.layout, load.bases, load.addresses, load.memory))
        if self.coverage is not None:
            self.coverage.module_linked(load.name, view, load.addresses)

    def _through_checker(self, module: str, resolver: link.Resolver) -> Callable[[str], Resolution]:
        """Functions of the kernel's allocator family are bound to the memory checker's stubs."""
        heap = self.heap
        if heap is None:
            return resolver

        def resolve(name: str) -> Resolution:
            found = resolver(name)
            stub = heap.stub_for(name, module) if found.found and found.owner == link.KERNEL else None
            return found if stub is None else found._replace(value=stub)

        return resolve

    def _wait_for_exporters(self, load: Load) -> Steps:
        """The kernel waits up to 30 s for an exporting module whose init has not ended."""
        wanted = set(link.undefined(load.view))
        deadline = self.guest.machine.clock.now + 30_000_000_000
        while busy := self._busy(wanted):
            if self.guest.machine.clock.now >= deadline:
                yield from self.env.printk(4, f"{load.name}: gave up waiting for init of module {busy}.")
                return
            yield Interruptible((self.guest.symbol("msleep"), 1))

    def _busy(self, wanted: set[str]) -> str:
        """The name of a module that is being loaded and exports one of these symbols."""
        for exporter in self.exporters.all():
            if exporter.unavailable == errno.EBUSY and any(exporter.export(name) for name in wanted):
                return exporter.name
        return ""

    def _use(self, user: View, used: View) -> Steps:
        """``add_module_usage``: a reference, and a link on both modules' lists."""
        layouts = self.guest.layouts
        used["refcnt"] = used["refcnt"] + 1
        address = yield from self.env.kmalloc(layouts.size("module_use"))
        use = self.guest.view("module_use", address)
        use["source"], use["target"] = user.address, used.address
        self.env.list_add(use.at("source_list"), used.at("source_list"))
        self.env.list_add(use.at("target_list"), user.at("target_list"))

    def _link(self, load: Load, symbols: link.Symbols, key: Hashable) -> Steps:
        """Relocate and fit the module; keep what came of it, unless it depends on more than ``key``."""
        view = load.view
        self._take_back_module(load)
        before = self._module_bytes(load)
        windows = load.layout.windows(view, load.memory)
        link.relocate(
            view, load.layout, load.addresses, windows, symbols, memory=load.memory, livepatch=self._livepatch_symbols
        )
        is_plain = yield from self._fit(load, windows, symbols)
        sites = self._trap_sensitive_instructions(load, windows)
        whole = view.sections[view.index.mod].size >= self.guest.layouts.size("module")
        if is_plain and whole and view.info("livepatch") is None and load.kallsyms is not None:
            after = self._module_bytes(load)
            words = range(0, len(after), _WORD)
            stored = [(at, after[at : at + _WORD]) for at in words if after[at : at + _WORD] != before[at : at + _WORD]]
            memory = {name: bytes(region) for name, region in load.memory.items()}
            self._linked.keep(key, LinkedImage(memory, stored, load.kallsyms, sites))

    def _link_as_before(self, load: Load, known: LinkedImage) -> bool:
        """Take the module as it was linked the last time; ``struct module`` is the guest's as it is now. False, with
        nothing done, where a relocation of it would not find zeros."""
        module = bytearray(self.guest.read(load.module.address, self.guest.layouts.size("module")))
        if any(module[at : at + len(raw)].strip(b"\0") for at, raw in known.pointers):
            return False
        for name, region in known.memory.items():
            load.memory[name][:] = region
        for at, raw in known.pointers:
            module[at : at + len(raw)] = raw
        place = load.layout.places[load.view.index.mod]
        assert place is not None
        load.memory[place.region][place.offset : place.offset + len(module)] = module
        load.kallsyms = known.kallsyms
        for site in known.sites:
            self._trap(site)
        return True

    def _module_bytes(self, load: Load) -> bytes:
        """``struct module`` in the image that is linked."""
        place = load.layout.places[load.view.index.mod]
        if place is None:
            return b""
        return bytes(load.memory[place.region][place.offset : place.offset + self.guest.layouts.size("module")])

    def _copy_percpu(self, load: Load) -> None:
        """Per-CPU data as the file has it, for the one CPU."""
        view, guest = load.view, self.guest
        if load.percpu:
            offset = guest.read_uint(guest.symbol("__per_cpu_offset"))
            data = bytes(view.contents(view.index.pcpu)).ljust(view.sections[view.index.pcpu].size, b"\0")
            guest.write(load.percpu + offset & (1 << 64) - 1, data)

    def _fit(
        self, load: Load, windows: Sequence[memoryview | None], symbols: link.Symbols
    ) -> Generator[Call, int, bool]:
        """``post_relocation``: sort tables, keep symbols, patch for the CPU. False: the guest had to do it, for its
        warnings."""
        view, guest = load.view, self.guest
        tables = link.find_tables(view, load.addresses, self.rules)
        if "extable" in tables and (window := windows[tables["extable"].section]) is not None:
            link.sort_extable(window, self.rules)
        load.kallsyms = link.add_kallsyms(view, load.layout, load.memory, load.bases, symbols)
        if self._cpu is None:
            self._cpu = probe_cpu(guest)
        before = {name: bytes(memory) for name, memory in load.memory.items()}
        doubts: list[str] = []
        link.finalize(view, load.addresses, load.memory, load.bases, self.rules, self._cpu, doubts)
        if doubts or self._orc_tables_differ(view):
            yield from self._finalize_in_guest(load, before)
            return False
        ips, entries = (windows[tables[n].section] if n in tables else None for n in _ORC_TABLES)
        if ips is not None and entries is not None:
            link.sort_orc(ips, entries, self.rules)
        return True

    def _orc_tables_differ(self, view: LoadView) -> bool:
        """Whether the unwinder's two tables have different numbers of entries, which the kernel warns about."""
        ips, entries = view.find_any(".orc_unwind_ip"), view.find_any(".orc_unwind")
        if not ips or not entries:
            return False
        size = self.rules.sizes["orc_entry"]
        ip_size, entry_size = view.sections[ips].size, view.sections[entries].size
        return bool(ip_size % 4 or entry_size % size or ip_size // 4 != entry_size // size)

    def _finalize_in_guest(self, load: Load, before: Mapping[str, bytes]) -> Steps:
        """The kernel's own ``module_finalize``, for its warnings about a module that no compiler made."""
        guest = self.guest
        for name, base in load.bases.items():
            if base:
                guest.write(base, before[name])
        _, hdr, sechdrs = self._headers_in_guest(load)
        yield (guest.symbol("module_finalize"), hdr, sechdrs, load.module.address)
        for name, base in load.bases.items():
            if base:
                load.memory[name][:] = guest.read(base, len(load.memory[name]))

    def _trap_sensitive_instructions(self, load: Load, windows: Sequence[memoryview | None]) -> list[Site]:
        found = []
        for section, window in zip(load.view.sections, windows, strict=True):
            if window is None or not section.flags & _SHF_EXECINSTR:
                continue
            code = bytes(window)
            if not has_candidates(code):
                continue
            starts = sorted({0, *self._function_starts(load, section.index)})
            for site in find_sites(code, starts):
                found.append(Site(load.addresses[section.index] + site.offset, site.length, site.kind))
                window[site.offset : site.offset + site.length] = self._trap(found[-1])
        return found

    def _trap(self, site: Site) -> bytes:
        """Have an instruction trap; the bytes to put in its place."""
        handler = self.guest.pc.instruction_handler(site.kind)
        return self.guest.machine.area.site(site.address, site.length, site.kind, handler)

    def _function_starts(self, load: Load, section: int) -> Iterator[int]:
        table = link.symbol_table(load.view)
        for value, shndx in zip(table.values, table.shndxs, strict=True):
            if shndx == section:
                yield value

    def _take_back_module(self, load: Load) -> None:
        """``struct module`` as the guest has it now, into the image that is linked: there is only one in the kernel.

        Its size is the kernel's own: in a broken module it may lie over the sections that follow.
        """
        place = load.layout.places[load.view.index.mod]
        if place is not None:
            memory = load.memory[place.region]
            end = min(place.offset + self.guest.layouts.size("module"), len(memory))
            memory[place.offset : end] = self.guest.read(load.module.address, end - place.offset)

    def _store(self, load: Load) -> None:
        """The linked regions into guest memory."""
        for name, base in load.bases.items():
            if base:
                self.guest.write(base, load.memory[name])

    def _point_to_symbols(self, module: View, kallsyms: link.Kallsyms) -> None:
        guest = self.guest
        init = guest.view("mod_kallsyms", kallsyms.mod_kallsyms)
        init["symtab"], init["num_symtab"] = kallsyms.init.symtab, kallsyms.init.num_symtab
        init["strtab"], init["typetab"] = kallsyms.init.strtab, kallsyms.init.typetab
        core = kallsyms.core
        module["core_kallsyms.symtab"], module["core_kallsyms.num_symtab"] = core.symtab, core.num_symtab
        module["core_kallsyms.strtab"], module["core_kallsyms.typetab"] = core.strtab, core.typetab
        module["kallsyms"] = kallsyms.mod_kallsyms

    # -- making it known ------------------------------------------------------------------------------------------

    def _announce(self, load: Load) -> Steps:
        """Arguments, build id, dynamic debug, trace sites: what comes before the module is formed."""
        guest, module = self.guest, load.module
        if load.arguments is None:
            raise Errno(errno.EFAULT, "the arguments cannot be read")
        load.args = yield from self.env.kstrdup(load.arguments)
        if guest.layouts.has("module", "args"):
            module["args"] = load.args
        load.undo.append(lambda: self.env.kfree(load.args))
        load.undo.append(lambda: _one((guest.symbol("synchronize_rcu"),)))
        yield from self._dynamic_debug(load)
        load.undo.append(lambda: _one((guest.symbol("ftrace_release_mod"), module.address)))
        yield (guest.symbol("ftrace_module_init"), module.address)

    def _dynamic_debug(self, load: Load) -> Steps:
        """Kernels that keep the table in ``struct module`` do this in a notifier of their own."""
        guest = self.guest
        if guest.layouts.has("module", "dyndbg_info") or not guest.has("ddebug_add_module"):
            return
        tables = link.find_tables(load.view, load.addresses, self.rules)
        descs, classes = tables.get("dyndbg_info.descs"), tables.get("dyndbg_info.classes")
        if descs is None or not descs.entries:
            return
        info = bytearray(guest.layouts.size("_ddebug_info"))
        for table, pointer, count in ((descs, "descs", "num_descs"), (classes, "classes", "num_classes")):
            if table is not None and table.entries:
                struct.pack_into("<Q", info, guest.layouts.offset("_ddebug_info", pointer), table.address)
                struct.pack_into("<I", info, guest.layouts.offset("_ddebug_info", count), table.entries)
        yield (guest.symbol("ddebug_add_module"), self.env.scratch(info), load.module.at("name"))
        load.undo.append(lambda: _one((guest.symbol("ddebug_remove_module"), load.module.at("name"))))

    def _form(self, load: Load) -> Steps:
        guest, module = self.guest, load.module
        own = ModuleExports(guest, module)
        others = [exporter for exporter in self.exporters.all() if getattr(exporter, "name", "") != load.name]
        link.verify_exported_symbols(load.view, own.names(), others)
        bugs = link.find_tables(load.view, load.addresses, self.rules).get("bug_table")
        if bugs is not None:
            module["bug_table"], module["num_bugs"] = bugs.address, bugs.entries or 0
        self.env.list_add(module.at("bug_list"), guest.symbol("module_bug_list"))
        yield from self._protect(module)
        self._set_state(module, COMING)
        load.undo.append(lambda: _one((guest.symbol("module_bug_cleanup"), module.address)))
        load.undo.append(lambda: self._go(module))

    def _go(self, module: View) -> Steps:
        self._set_state(module, GOING)
        yield from ()

    def _protect(self, module: View) -> Steps:
        guest = self.guest
        for name in ("module_enable_ro", "module_enable_rodata_ro", "module_enable_nx", "module_enable_data_nx",
                     "module_enable_x", "module_enable_text_rox"):  # fmt: skip
            if guest.has(name):
                yield (guest.symbol(name), module.address, 0)

    def _coming(self, load: Load) -> Steps:
        guest, module = self.guest, load.module
        if load.symbols is not None and module["num_ftrace_callsites"]:
            regions = [(base, load.layout.regions[name].size) for name, base in load.bases.items() if base]
            yield trace_sites.enable_call(guest, self.env, module, regions, load.view, load.symbols)
        else:
            yield (guest.symbol("ftrace_module_enable"), module.address)
        error = yield (guest.symbol("klp_module_coming"), module.address)
        if errno_of(error) or error & 0x8000_0000:
            raise Errno(-signed32(error))
        chain, states = guest.symbol("module_notify_list"), guest.layouts.enum("module_state")
        load.undo.append(lambda: _one((guest.symbol("klp_module_going"), module.address)))
        answer = yield (
            guest.symbol("blocking_notifier_call_chain_robust"), chain, states[COMING], states[GOING], module.address
        )  # fmt: skip
        refused = notifier_error(answer)
        if refused:
            raise Errno(refused, "a notifier refused the module")
        load.undo.append(lambda: self._notify(module, GOING))
        load.undo.append(lambda: _one((guest.symbol("module_destroy_params"), module["kp"], module["num_kp"])))

    def _notify(self, module: View, state: str) -> Steps:
        guest = self.guest
        self._set_state(module, state)
        value = guest.layouts.enum("module_state")[state]
        yield (guest.symbol("blocking_notifier_call_chain"), guest.symbol("module_notify_list"), value, module.address)

    # -- parameters -----------------------------------------------------------------------------------------------

    def _parameters(self, load: Load) -> Steps:
        guest, module = self.guest, load.module
        module["async_probe_requested"] = guest.read_uint(guest.symbol("async_probe"), 1)
        table = list(self._parameter_table(module))
        environment = _ParameterEnvironment(self, load.comm)
        arguments = bytearray((load.arguments or b"") + b"\0")
        parsing = params.parse_args(load.name, arguments, [entry for entry, _, _ in table], environment)
        try:
            request = next(parsing)
            while True:
                yield from self._flush(load, environment)
                guest.write(load.args, arguments)
                answer = yield from self._answer(load, request, table)
                arguments[:] = guest.read(load.args, len(arguments))
                request = parsing.send(answer)
        except StopIteration as done:
            parsed = done.value
        yield from self._flush(load, environment)
        if parsed.rest is not None:
            yield from self.env.printk(4, params.rest_line(load.name, parsed.rest))
        if parsed.error:
            raise Errno(-parsed.error, "a parameter was refused")
        if not guest.layouts.has("module", "args"):
            yield from self.env.kfree(load.args)
            load.args = 0

    def _parameter_table(self, module: View) -> Iterator[tuple[params.Parameter, int, int]]:
        """(parameter, address of its entry, address of its ``set``) of every entry of ``__param``."""
        guest = self.guest
        size = guest.layouts.size("kernel_param")
        for index in range(module["num_kp"]):
            entry = guest.view("kernel_param", module["kp"] + index * size)
            has_ops = guest.mapped(entry["ops"])
            ops = guest.view("kernel_param_ops", entry["ops"])
            yield (
                params.Parameter(
                    guest.read_cstr(entry["name"]).decode("latin-1") if guest.mapped(entry["name"]) else "",
                    entry["arg"], "", entry["perm"], entry["level"], entry["flags"], has_ops and bool(ops["flags"] & 1),
                ),
                entry.address,
                ops["set"] if has_ops else 0,
            )  # fmt: skip

    def _answer(self, load: Load, request: params.Request, table: list[tuple[params.Parameter, int, int]]) -> Result:
        argument = request.argument
        value = load.args + argument.at if argument.value is not None else 0
        if request.parameter is None:
            return (yield from self._unknown(load, argument, value))
        entry, function = next((e, f) for parameter, e, f in table if parameter is request.parameter)
        guest, module = self.guest, load.module.address
        yield (guest.symbol("kernel_param_lock"), module)
        answer = yield (function, value, entry)
        yield (guest.symbol("kernel_param_unlock"), module)
        return signed32(answer)

    def _unknown(self, load: Load, argument: params.Argument, value: int) -> Result:
        guest = self.guest
        if argument.name == b"async_probe":
            text = (argument.value or b"").lower()
            load.module["async_probe_requested"] = int(text[:1] not in (b"n", b"0", b"f") and text[:2] != b"of")
            return 0
        callback = guest.symbols.get("ddebug_dyndbg_module_param_cb")
        if callback is not None:
            if argument.name.partition(b".")[2] == b"dyndbg" or argument.name == b"dyndbg":
                name = self.env.scratch(argument.name + b"\0")
                answer = yield (callback, name, value, load.module.at("name"))
                if not signed32(answer):
                    return 0
            argument = params.without_owner(argument)
        yield from self.env.printk(4, params.ignored_line(load.name, argument))
        return 0

    def _flush(self, load: Load, environment: _ParameterEnvironment) -> Steps:
        for line in environment.take():
            if isinstance(line, LogLine):
                yield from self.env.printk(line.level, line.text)
            else:
                yield from self._taint(None, line, lockdep_off=False)

    def _headers_in_guest(self, load: Load) -> tuple[int, int, int]:
        """Section names, ELF header and section headers (with the sections' addresses) in the guest, for one call.

        From the header, the names lie where their section header says.
        """
        view, headers, names_index = load.view, bytearray(), load.view.header.e_shstrndx
        names_at = _HEADERS_OFFSET + len(view.sections) * _SECTION_HEADER.size
        for section, flags, address in zip(view.sections, load.layout.flags, load.addresses, strict=True):
            offset = names_at - _HEADER_OFFSET if section.index == names_index else section.offset
            headers += _SECTION_HEADER.pack(
                section.name_off, section.type, flags, address, offset, section.size, section.link,
                section.info, section.addralign, section.entsize,
            )  # fmt: skip
        hdr = self.env.scratch(bytes(view.data[: _ELF_HEADER.size]), _HEADER_OFFSET)
        sechdrs = self.env.scratch(headers, _HEADERS_OFFSET)
        return self.env.scratch(bytes(view.contents(names_index)), names_at), hdr, sechdrs

    # -- sysfs and init -------------------------------------------------------------------------------------------

    def _sysfs(self, load: Load) -> Steps:
        """The kernel's ``mod_sysfs_setup`` reads section headers: give it the module's own, with their addresses."""
        guest, view = self.guest, load.view
        info = bytearray(guest.layouts.size("load_info"))
        at = self.env.scratch(info)
        secstrings, hdr, sechdrs = self._headers_in_guest(load)
        for member, value in (
            ("hdr", hdr),
            ("sechdrs", sechdrs),
            ("secstrings", secstrings),
            ("mod", load.module.address),
        ):
            struct.pack_into("<Q", info, guest.layouts.offset("load_info", member), value)
        struct.pack_into("<I", info, guest.layouts.offset("load_info", "index.sym"), view.index.sym)
        self.env.scratch(info)
        if guest.has("init_build_id"):
            yield (guest.symbol("init_build_id"), load.module.address, at)
        answer = yield (
            guest.symbol("mod_sysfs_setup"),
            load.module.address,
            at,
            load.module["kp"],
            load.module["num_kp"],
        )
        if signed32(answer) < 0:
            raise Errno(-signed32(answer), "sysfs refused the module")
        load.undo.append(lambda: _one((guest.symbol("mod_sysfs_teardown"), load.module.address)))
        if self._is_livepatch(load.module):
            answer = yield (guest.symbol("copy_module_elf"), load.module.address, at)
            if signed32(answer) < 0:
                raise Errno(-signed32(answer), "no memory for a copy of the livepatch module's headers")
        yield from self._free_copies(load)

    def _init(self, load: Load) -> Result:
        """``do_init_module``: from here on a failure unloads the module as a whole."""
        guest, module = self.guest, load.module
        if self.watcher is not None:
            self.watcher.module_coming(module.text("name"))
        result = 0
        for index in range(module["num_ctors"] if guest.layouts.has("module", "num_ctors") else 0):
            yield (guest.read_uint(module["ctors"] + 8 * index),)
        if module["init"]:
            result = signed32((yield (guest.symbol("do_one_initcall"), module["init"])))
        if result < 0:
            self.tell_exited()
            self._set_state(module, GOING)
            yield (guest.symbol("synchronize_rcu"),)
            yield (guest.symbol("module_put"), module.address)
            yield from self.bury(module)
            yield from self._wake_waiters()
            return result
        if result > 0:
            yield from self._suspicious(load, result)
        yield from self._notify(module, LIVE)
        if self.kunit is not None:
            served = any(exporter.export("kunit_run_tests") for exporter in self.exporters.all())
            module["refcnt"] = module["refcnt"] + (yield from self.kunit.run(load.view, load.addresses, served))
        add = guest.layouts.enum("kobject_action")["KOBJ_ADD"]
        yield (guest.symbol("kobject_uevent"), module.at("mkobj.kobj"), add)
        if not module["async_probe_requested"]:
            yield (guest.symbol("async_synchronize_full"),)
        yield from self._drop_init(load)
        yield from self._wake_waiters()
        return 0

    def tell_exited(self) -> None:
        """To the watcher: a module's last code has run, its memory and its events are still there."""
        if self.watcher is not None:
            self.watcher.module_exited()

    def _suspicious(self, load: Load, result: int) -> Steps:
        name = load.name
        text = (
            f"do_init_module: '{name}'->init suspiciously returned {result}, it should follow 0/-E convention\n"
            "do_init_module: loading module anyway..."
        )
        yield from self.env.printk(4, text)
        yield (self.guest.symbol("dump_stack"),)

    def _drop_init(self, load: Load) -> Steps:
        """Init memory goes back; symbols, exception table and protection are those of the core from now on."""
        guest, module = self.guest, load.module
        inits = {name: base for name, base in load.bases.items() if base and name.startswith("init")}
        for name, base in inits.items():
            end = base + load.layout.regions[name].size
            yield (guest.symbol("ftrace_free_mem"), module.address, base, end)
        yield (guest.symbol("module_put"), module.address)
        self._trim_extable(module, load, inits)
        module["kallsyms"] = module.at("core_kallsyms")
        for name in ("module_enable_ro", "module_enable_rodata_ro"):
            if guest.has(name):
                yield (guest.symbol(name), module.address, 1)
        yield (guest.symbol("mod_tree_remove_init"), module.address)
        for name in inits:
            prefix = self._region_path(name)
            members = (
                ("base", "size")
                if self.rules.memories
                else ("base", "size", "ro_size", "ro_after_init_size", "text_size")
            )
            for member in members:
                module[f"{prefix}.{member}"] = 0
        if guest.layouts.has("module", "btf_data"):
            module["btf_data"] = 0
        yield from self._free_later(inits)

    def _free_later(self, inits: dict[str, int]) -> Steps:
        """Symbol look-ups may still walk init memory: the kernel's own work item gives it back after a grace period."""
        guest = self.guest
        address = yield from self.env.kmalloc(guest.layouts.size("mod_initfree"))
        item = guest.view("mod_initfree", address)
        for name, base in inits.items():
            item["module_init" if name == "init" else name] = base
        head = guest.symbol("init_free_list")
        before = guest.read_uint(head)
        guest.write_uint(item.at("node"), before)
        guest.write_uint(head, address)
        if not before:
            unbound = int(guest.image.config["CONFIG_NR_CPUS"])
            queue = guest.read_uint(guest.first_symbol("system_percpu_wq", "system_wq"))
            yield (guest.symbol("queue_work_on"), unbound, queue, guest.symbol("init_free_wq"))

    def _trim_extable(self, module: View, load: Load, inits: dict[str, int]) -> None:
        """Entries that stand for init code go: the table is sorted, so they are at one of its ends."""
        size = self.guest.layouts.size("exception_table_entry")

        def is_init(index: int) -> bool:
            place = module["extable"] + index * size
            instruction = place + self.guest.read_int(place, 4, True) & (1 << 64) - 1
            return any(base <= instruction < base + load.layout.regions[name].size for name, base in inits.items())

        while module["num_exentries"] and is_init(0):
            module["extable"] = module["extable"] + size
            module["num_exentries"] = module["num_exentries"] - 1
        while module["num_exentries"] and is_init(module["num_exentries"] - 1):
            module["num_exentries"] = module["num_exentries"] - 1

    def bury(self, module: View) -> Steps:
        """The common end of a failed init and of an unload: notify, take apart, give memory back."""
        guest = self.guest
        yield from self._notify(module, GOING)
        yield (guest.symbol("klp_module_going"), module.address)
        yield (guest.symbol("ftrace_release_mod"), module.address)
        yield from self.free(module)

    def free(self, module: View) -> Steps:
        """``free_module``: everything of it is gone afterwards."""
        guest = self.guest
        yield (guest.symbol("mod_sysfs_teardown"), module.address)
        self._set_state(module, UNFORMED)
        if not guest.layouts.has("module", "dyndbg_info") and guest.has("ddebug_remove_module"):
            yield (guest.symbol("ddebug_remove_module"), module.at("name"))
        yield (guest.symbol("module_unload_free"), module.address)
        yield (guest.symbol("module_destroy_params"), module["kp"], module["num_kp"])
        if self._is_livepatch(module):
            yield (guest.symbol("free_module_elf"), module.address)
        self.env.list_del(module.at("list"))
        yield (guest.symbol("mod_tree_remove"), module.address)
        yield (guest.symbol("module_bug_cleanup"), module.address)
        yield (guest.symbol("synchronize_rcu"),)
        if self.heap is not None:
            yield from self.heap.module_gone(module.text("name"))
        if guest.layouts.has("module", "args"):
            yield from self.env.kfree(module["args"])
        if module["percpu"]:
            yield (guest.symbol("free_percpu"), module["percpu"])
        bases = [module[f"{self._region_path(name)}.base"] for name in self._region_names()]
        for base in reversed(bases):  # the module structure itself lies in the first
            yield from self._free_region(base)

    def _region_names(self) -> tuple[str, ...]:
        return tuple(_MEMORY_TYPES) if self.rules.memories else ("core", "init")

    # -- facts of the running kernel ------------------------------------------------------------------------------

    def _set_state(self, module: View, state: str) -> None:
        module["state"] = self.guest.layouts.enum("module_state")[state]

    def _say(self, load: Load, findings: Sequence[Finding]) -> Steps:
        """Print and taint what a step found, in its order."""
        for finding in findings:
            if isinstance(finding, Taint):
                yield from self._taint(load if finding.of_module else None, finding.bit, finding.lockdep_off)
            elif not finding.once:
                yield from self.env.printk(finding.level, finding.text)
            else:
                said = finding.text.partition(": ")[2]
                if said not in self._said_once:
                    self._said_once.add(said)
                    yield from self.env.printk(finding.level, finding.text)

    def _taint(self, load: Load | None, bit: int, lockdep_off: bool) -> Steps:
        yield from self.env.taint(bit, lockdep_off)
        if load is not None:
            load.taints |= 1 << bit
            if load.module is not None:
                load.module["taints"] = load.taints = load.module["taints"] | load.taints

    def _livepatch_symbols(self, owner: str, name: str) -> tuple[int, ...]:
        """Addresses of a symbol of the kernel that a livepatch names; other objects are applied when both are there."""
        return tuple(self.guest.symbols.all(name)) if owner == link.VMLINUX else ()

    def _is_livepatch(self, module: View) -> bool:
        return self.guest.layouts.has("module", "klp") and bool(module["klp"])

    def _vermagic(self) -> str:
        return self.guest.read_cstr(self.guest.symbol("vermagic")).decode("latin-1")

    def _mitigates_spectre_v2(self) -> bool:
        """``retpoline_module_ok`` speaks up only where the kernel relies on a mitigation."""
        enabled = self.guest.symbols.get("spectre_v2_enabled")
        return enabled is not None and self.guest.read_uint(enabled, 4) != 0

    def _signatures_enforced(self) -> bool:
        return any(self.guest.read_uint(address, 1) for address in self.guest.symbols.all("sig_enforce")[:1])

    def _lockdown(self) -> sign.Lockdown:
        found = self.guest.symbols.get("kernel_locked_down")
        level = self.guest.read_uint(found, 4) if found is not None else 0
        reasons = self.guest.layouts.enum("lockdown_reason")
        if level >= reasons["LOCKDOWN_CONFIDENTIALITY_MAX"]:
            return sign.Lockdown.CONFIDENTIALITY
        return sign.Lockdown.INTEGRITY if level >= reasons["LOCKDOWN_INTEGRITY_MAX"] else sign.Lockdown.NONE

    def _verify(self, data: bytes | memoryview) -> sign.Verdict:
        return sign.verify_signature(data, self.trusted())

    def trusted(self) -> sign.Keyrings:
        """The keys that the kernel trusts now, as its own rings hold them."""
        if self._built is None:
            self._built = keyrings_of(self.guest.image)
        return self.keyrings.trusted(self._built)


class _ParameterEnvironment:
    """Collects what the rules for parameters say; the loader prints it when it can make guest calls."""

    def __init__(self, loader: Loader, comm: str) -> None:
        self._loader, self._comm = loader, comm
        self._pending: list[LogLine | int] = []

    def take(self) -> list[LogLine | int]:
        taken, self._pending = self._pending, []
        return taken

    def log(self, level: int, text: str) -> None:
        self._pending.append(LogLine(level, text))

    def taint_unsafe(self) -> None:
        self._pending.append(_TAINT_USER)

    def locked_down(self) -> bool:
        if self._loader._lockdown() is sign.Lockdown.NONE:
            return False
        line = sign.lockdown_line(self._comm, "unsafe module parameters")
        self._pending.append(LogLine(line.level, line.text))
        return True


_STEPS: tuple[tuple[str, Callable[[Loader, Load], Steps]], ...] = (
    ("permission", Loader._permission),
    ("signature", Loader._signature),
    ("check", Loader._check_file),
    ("allocate", Loader._allocate),
    ("name", Loader._reserve_name),
    ("unsigned", Loader._taint_unsigned),
    ("tables", Loader._tables),
    ("link", Loader._resolve),
    ("announce", Loader._announce),
    ("form", Loader._form),
    ("coming", Loader._coming),
    ("parameters", Loader._parameters),
    ("sysfs", Loader._sysfs),
)


def signed32(value: int) -> int:
    """The ``int`` in a 64-bit result register."""
    low = value & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


def notifier_error(answer: int) -> int:
    """The positive errno in a notifier chain's answer (``notifier_to_errno``), or 0."""
    value = signed32(answer) & ~0x8000
    return value - 1 if value > 1 else 0


def _one(call: tuple[int, ...]) -> Steps:
    yield call


__all__ = ["Loader", "Step", "notifier_error", "signed32", "signed64"]
