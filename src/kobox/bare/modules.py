"""Modules of the bare kernel: the list, loading and unloading in the kernel's order with the rules of ``link``.

Follows kernel/module/main.c. Where an image's loader fills kernel books and calls the kernel's helpers, this one keeps
its own; of ``struct module`` it fills what modules themselves look at: state, list, reference count.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kobox import link
from kobox.bare.guest import MODULE_AREA
from kobox.errors import Errno, GuestError
from kobox.kernel import params
from kobox.kernel.guest import View
from kobox.kernel.heapcheck_records import ModuleCode
from kobox.link import Export, Exports, Finding, Layout, LoadView, Refusal, Rules, Taint
from kobox.link.linked import read_exports
from kobox.link.rules import default_rules
from kobox.link.tables import Table
from kobox.machine import unicorn_abi as abi
from kobox.machine.memory import PAGE_SIZE

if TYPE_CHECKING:
    from kobox.bare.guest import BareGuest
    from kobox.kernel.coverage import CodeCoverage

IGNORE_MODVERSIONS, IGNORE_VERMAGIC, COMPRESSED_FILE = 1, 2, 4
O_TRUNC = 0o1000
_SIGNATURE_MARK = b"~Module signature appended~\n"
_USER, _FORCED_RMMOD = 6, 3
_NOP5 = b"\x0f\x1f\x44\x00\x00"
_STATES = {"live": 0, "coming": 1, "going": 2, "unformed": 3}
_TARGET_PREFIX = "param_ops_"
_COPY_BASE = 0xFFFF_C900_0000_0000
"""Where a kernel has its copy of the file while it loads; nothing is mapped here."""
_MODULE_SPACE = 1 << 30


class Step(NamedTuple):
    """One step of a load: its real time in milliseconds."""

    name: str
    ms: float
    findings: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Operation:
    """A load or unload, done or about to be. ``result`` is the system call's."""

    data: bytes = b""
    arguments: bytes = b""
    flags: int = 0
    result: int = 0
    done: bool = False
    died: bool = False
    trace: list[Step] = field(default_factory=list)
    reason: str = ""


@dataclass(slots=True, eq=False)
class LoadedModule:
    """One module on the list. As ``link`` sees it, an exporter of symbols."""

    name: str
    view: LoadView
    layout: Layout
    bases: dict[str, int]
    addresses: list[int]
    address: int
    tables: dict[str, Table]
    table: Exports
    taints: int = 0
    state: str = "unformed"
    refcount: int = 1
    init: int = 0
    exit: int = 0
    uses: list[LoadedModule] = field(default_factory=list)
    parameters: tuple[params.Parameter, ...] = ()
    entries: tuple[int, ...] = ()
    code: ModuleCode | None = None

    @property
    def unavailable(self) -> int:
        if self.state == "coming":
            return errno.EBUSY
        return 0 if self.state == "live" else errno.ENOENT

    def export(self, name: str) -> Export | None:
        return self.table.export(name)

    @property
    def size(self) -> int:
        """As /proc/modules shows it: init memory counts while it is there."""
        layout = self.layout
        return layout.core_size + (layout.init_size if self.bases.get("init") else 0)

    @property
    def permanent(self) -> bool:
        return bool(self.init and not self.exit)


class _KernelExports:
    """What the bare kernel exports: names of the data file that it has."""

    name = link.KERNEL
    taints = 0
    unavailable = 0

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest

    def export(self, name: str) -> Export | None:
        row = self._guest.data.exports.get(name)
        if row is None:
            return None
        address = self._guest.symbols.get(name)
        if address is None:
            return None
        return Export(name, address, bool(row[1]), row[2] if len(row) > 2 else "", row[0])


class ModuleList:
    """The modules, newest first, and the system calls on them."""

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest
        self.rules: Rules = default_rules()
        self.kernel = _KernelExports(guest)
        self.loaded: list[LoadedModule] = []
        self.last_unloaded = ""
        self._said_once: set[str] = set()
        self._free_area = MODULE_AREA
        self.coverage: CodeCoverage | None = None
        """Notes which code of modules runs."""

    # -- asking ---------------------------------------------------------------------------------------------------

    def find(self, name: str) -> LoadedModule | None:
        return next((module for module in self.loaded if module.name == name), None)

    def at(self, address: int) -> LoadedModule | None:
        """Whose memory an address lies in."""
        for module in self.loaded:
            for name, base in module.bases.items():
                if base and base <= address < base + module.layout.regions[name].size:
                    return module
        return None

    def name_at(self, address: int) -> str:
        found = self.at(address)
        return found.name if found is not None else ""

    def users(self, module: LoadedModule) -> list[LoadedModule]:
        return [other for other in self.loaded if module in other.uses]

    # -- references -----------------------------------------------------------------------------------------------

    def get(self, address: int) -> bool:
        """``try_module_get``; the kernel itself (NULL) is always there."""
        module = next((module for module in self.loaded if module.address == address), None)
        if module is None:
            return address == 0
        if module.state == "going":
            return False
        module.refcount += 1
        return True

    def put(self, address: int) -> None:
        for module in self.loaded:
            if module.address == address:
                module.refcount -= 1

    def references(self, address: int) -> int:
        return next((module.refcount - 1 for module in self.loaded if module.address == address), 0)

    # -- loading --------------------------------------------------------------------------------------------------

    def load(self, operation: Operation) -> None:
        """Load now; the operation is done, or its task died."""
        loading = _Loading(self, self._guest, operation)
        operation.done = True
        try:
            if operation.flags & ~(IGNORE_MODVERSIONS | IGNORE_VERMAGIC | COMPRESSED_FILE):
                raise Errno(errno.EINVAL, f"unknown flags {operation.flags:#x}")
            if operation.flags & COMPRESSED_FILE:
                raise Errno(errno.EOPNOTSUPP, "this kernel does not decompress modules")
            for name, step in _STEPS:
                start = time.perf_counter()
                step(loading)
                operation.trace.append(Step(name, (time.perf_counter() - start) * 1000))
        except Refusal as refusal:
            self.say(refusal.findings, loading)
            operation.result, operation.reason = -refusal.number, loading.explain(refusal.why)
        except Errno as refusal:
            operation.result, operation.reason = -refusal.number, refusal.why
        except GuestError as death:
            operation.died, operation.reason = True, str(death)
            return
        if operation.result < 0:
            loading.undo()

    def unload(self, name: str, flags: int) -> int:
        """The system call's result."""
        try:
            return self._unload(name, flags)
        except Errno as refusal:
            return -refusal.number

    def _unload(self, name: str, flags: int) -> int:
        module = self.find(name)
        if module is None:
            raise Errno(errno.ENOENT, f"{name} is not loaded")
        if self.users(module):
            raise Errno(errno.EAGAIN, f"{name} is used by other modules")
        if module.state != "live":
            raise Errno(errno.EBUSY, f"{name} is {module.state}")
        if module.permanent and not self._force(flags):
            raise Errno(errno.EBUSY, f"{name} has no exit function: it is permanent")
        if module.refcount > 1 and not self._force(flags):
            raise Errno(errno.EAGAIN, f"{name} is in use")
        if module.refcount == 1:
            self.set_references(module, 0)
        self.set_state(module, "going")
        if module.exit:
            self._guest.call(module.exit)
        self._guest.settle()
        self.last_unloaded = f"{name}{self.flags_text(module, with_state=False)}"
        self._guest.uevent("remove", name)
        self.free(module)
        return 0

    def _force(self, flags: int) -> bool:
        if flags & O_TRUNC:
            self._guest.taint(_FORCED_RMMOD, lockdep_off=True)
        return bool(flags & O_TRUNC)

    def free(self, module: LoadedModule) -> None:
        """Take a module off the list and give back what it had."""
        guest = self._guest
        params.release_parameters(module.parameters, ParameterMemory(guest))
        for used in module.uses:
            used.refcount -= 1
        self.loaded.remove(module)
        guest.codes = tuple(code for code in guest.codes if code is not module.code)
        for name, base in module.bases.items():
            if base:
                guest.unmap(base, _pages(module.layout.regions[name].size))

    def set_state(self, module: LoadedModule, state: str) -> None:
        module.state = state
        self._guest.view("module", module.address)["state"] = _STATES[state]

    def set_references(self, module: LoadedModule, count: int) -> None:
        """One more than users have: the one that says "may stay"."""
        module.refcount = count

    def flags_text(self, module: LoadedModule, with_state: bool = True) -> str:
        """``(OE+)`` as lists of modules show it."""
        from kobox.abi.taint import letters

        mark = {"coming": "+", "going": "-"}.get(module.state, "") if with_state else ""
        text = letters(module.taints) + mark
        return f"({text})" if text else ""

    def say(self, findings: Iterable[Finding], loading: _Loading) -> None:
        """Print and taint what a step found, in its order."""
        guest = self._guest
        for finding in findings:
            if isinstance(finding, Taint):
                guest.taint(finding.bit, finding.lockdep_off)
                if finding.of_module:
                    loading.taint(1 << finding.bit)
            elif not finding.once or finding.text.partition(": ")[2] not in self._said_once:
                self._said_once.add(finding.text.partition(": ")[2])
                guest.log.write(finding.level, finding.text)

    def area(self, size: int) -> int:
        """Addresses for a region; one page stays unmapped behind it."""
        address = self._free_area
        self._free_area += _pages(size) + PAGE_SIZE
        return address


class _Loading:
    """One load: what its steps hand on."""

    view: LoadView
    layout: Layout
    module: LoadedModule

    def __init__(self, modules: ModuleList, guest: BareGuest, operation: Operation) -> None:
        self._modules, self._guest, self._operation = modules, guest, operation
        self._data = memoryview(operation.data)
        self._taints = 0
        self._missing: tuple[str, ...] = ()
        self._listed = False
        self._bases: dict[str, int] = {}

    def taint(self, mask: int) -> None:
        self._taints |= mask
        if hasattr(self, "module"):
            self.module.taints = self._taints

    def explain(self, why: str) -> str:
        if not self._missing:
            return why
        return f"the bare kernel does not have: {', '.join(self._missing)}"

    def _say(self, findings: Iterable[Finding]) -> None:
        self._modules.say(findings, self)

    # -- steps, in order ------------------------------------------------------------------------------------------

    def signature(self) -> None:
        """The bare kernel trusts no key: a signature is cut off and does not count."""
        if bytes(self._data[-len(_SIGNATURE_MARK) :]) == _SIGNATURE_MARK:
            from kobox.ko import split_signature

            module, _ = split_signature(bytes(self._data))
            self._data = memoryview(module)

    def check(self) -> None:
        rules, flags, taints = self._modules.rules, self._operation.flags, self._guest.tainted
        self.view = view = link.load_view(self._data, rules, ignore_modversions=bool(flags & IGNORE_MODVERSIONS))
        exporters: list[link.Exporter] = [self._modules.kernel, *self._modules.loaded]
        self._say(link.check_modstruct_version(view, exporters, rules, taints))
        self._say(
            link.check_modinfo(
                view, self._guest.data.vermagic, rules, self._guest.tainted,
                ignore_vermagic=bool(flags & IGNORE_VERMAGIC), spectre_v2=True,
            )
        )  # fmt: skip
        link.enforce_rwx(view, rules)

    def name(self) -> None:
        """Unless its name is taken; a module that never finished keeps its name for ever."""
        other = self._modules.find(self.view.mod_name)
        if other is not None:
            number = errno.EEXIST if other.state == "live" else errno.EBUSY
            raise Errno(number, f"{other.name} is {'loaded' if other.state == 'live' else other.state}")

    def unsigned(self) -> None:
        self._say(link.unsigned_taint(self.view))

    def allocate(self) -> None:
        """Lay out; a module that no memory can hold ends here."""
        self.layout = link.lay_out(self.view, self._modules.rules)
        if sum(region.size for region in self.layout.regions.values()) > _MODULE_SPACE:
            raise Errno(errno.ENOMEM, "no memory for a module of this size")

    def link(self) -> None:
        """Bind, relocate; the regions are still Python's."""
        view, rules, guest, modules = self.view, self._modules.rules, self._guest, self._modules
        if view.sections[view.index.pcpu].size and view.index.pcpu:
            raise Errno(errno.ENOMEM, "the bare kernel has no per-CPU memory for modules")
        layout = self.layout
        for name, region in layout.regions.items():
            self._bases[name] = modules.area(region.size) if region.size else 0
        memory = layout.image(view)
        self._note(memory, self._facts())
        addresses = layout.addresses(self._bases)
        for number in link.left_behind(view, layout):
            addresses[number] = _COPY_BASE + view.sections[number].offset
        exporters: list[link.Exporter] = [modules.kernel, *modules.loaded]
        unversioned = link.has_unversioned_exports(view, rules)
        self._say(
            link.check_module_license_and_versions(view, rules, guest.tainted, has_unversioned_exports=unversioned)
        )
        resolver = link.Resolver(view, exporters, rules, guest.tainted, self._taints)
        symbols = link.simplify(view, addresses, 0, resolver)
        self._say(symbols.findings)
        guest.tainted |= resolver.of_module & ~self._taints
        self.taint(resolver.of_module)
        if symbols.error:
            self._missing = tuple(n for n in symbols.unresolved if not symbols.bound[n].found)
            raise Refusal(symbols.error, why=f"unknown symbols: {', '.join(symbols.unresolved)}")
        windows = layout.windows(view, memory)
        link.relocate(view, layout, addresses, windows, symbols, memory=memory)
        tables = link.find_tables(view, addresses, rules)
        rows = [(table.field, table.address, table.count_field, table.entries) for table in tables.values()]
        self._note(
            memory, {path: value for path, value, _, _ in rows} | {path: n for _, _, path, n in rows if path and n}
        )
        exports = Exports(view.mod_name, read_exports(view, addresses, windows, tables))
        link.verify_exported_symbols(view, exports.table, exporters)
        self._fit(windows, tables, memory)
        self.module = LoadedModule(
            view.mod_name, view, layout, self._bases, addresses, addresses[view.index.mod], tables, exports,
            self._taints, uses=[owner for owner in resolver.used if isinstance(owner, LoadedModule)],
        )  # fmt: skip
        self._memory = memory

    def _facts(self) -> dict[str, int]:
        """What the kernel notes in ``struct module`` before it moves sections."""
        facts = {"taints": self._taints}
        for name, region in self.layout.regions.items():
            facts |= {
                f"{name}_layout.base": self._bases[name],
                f"{name}_layout.size": region.size,
                f"{name}_layout.text_size": region.text_size,
                f"{name}_layout.ro_size": region.ro_size,
                f"{name}_layout.ro_after_init_size": region.ro_after_init_size,
            }
        return facts

    def _note(self, memory: dict[str, bytearray], facts: Mapping[str, int]) -> None:
        """Write members of the module's own structure; what lies behind the end of its section stays as it is."""
        view, layouts = self.view, self._guest.layouts
        place, size = self.layout.places[view.index.mod], view.sections[view.index.mod].size
        for path, value in facts.items():
            if place is None or not layouts.has("module", path):
                continue
            member = layouts.field("module", path)
            if member.offset + member.size <= size:
                at = place.offset + member.offset
                memory[place.region][at : at + member.size] = value.to_bytes(member.size, "little")

    def _fit(self, windows: list[memoryview | None], tables: dict[str, Table], memory: dict[str, bytearray]) -> None:
        """Sorted tables, and calls for tracing made no-ops, as a kernel leaves them while nobody traces."""
        rules = self._modules.rules
        if "extable" in tables and (window := windows[tables["extable"].section]) is not None:
            link.sort_extable(window, rules)
        ips, entries = (windows[tables[n].section] if n in tables else None for n in _ORC)
        if ips is not None and entries is not None:
            link.sort_orc(ips, entries, rules)
        sites = tables.get("ftrace_callsites")
        if sites is None or (window := windows[sites.section]) is None:
            return
        for place in window.cast("Q") if len(window) % 8 == 0 else ():
            for name, base in self._bases.items():
                offset = place - base
                if base and 0 <= offset <= len(memory[name]) - len(_NOP5):
                    memory[name][offset : offset + len(_NOP5)] = _NOP5

    def store(self) -> None:
        """Into guest memory, under the protections that its sections ask for."""
        guest, module = self._guest, self.module
        for name, base in self._bases.items():
            if not base:
                continue
            region = self.layout.regions[name]
            guest.map(base, _pages(region.size), abi.PROT_RW)
            guest.write(base, self._memory[name])
            guest.protect(base, _pages(region.text_size), abi.PROT_RX)
            if region.ro_size > region.text_size:
                start = _pages(region.text_size)
                guest.protect(base + start, _pages(region.ro_size) - start, abi.PROT_READ)
        view = guest.view("module", module.address)
        module.init, module.exit = view["init"], view["exit"]
        module.code = ModuleCode(module.name, module.view, self.layout, self._bases, module.addresses)
        module.code.memory = self._memory
        guest.codes = (module.code, *guest.codes)
        if self._modules.coverage is not None:
            self._modules.coverage.module_linked(module.name, module.view, module.addresses)
        for used in module.uses:
            used.refcount += 1
        self._modules.loaded.insert(0, module)
        self._listed = True
        module.refcount = 2
        self._modules.set_state(module, "coming")

    def parameters(self) -> None:
        guest, module = self._guest, self.module
        try:
            module.parameters, module.entries = read_parameters(guest, module)
        except GuestError as crash:
            raise Errno(errno.EFAULT, f"the kernel would crash on this module: {crash}") from None
        memory = ParameterMemory(guest)
        args = bytearray(self._operation.arguments + b"\0")
        parsing = params.parse_args(module.name, args, module.parameters, memory)
        answer: int | None = None
        while True:
            try:
                request = parsing.send(answer)  # type: ignore[arg-type]  # a fresh generator takes None
            except StopIteration as done:
                parsed = done.value
                break
            answer = self._set(request, memory, args)
        if parsed.rest is not None:
            guest.log.write(4, params.rest_line(module.name, parsed.rest))
        if parsed.error:
            raise Errno(-parsed.error, "a parameter was refused")

    def _set(self, request: params.Request, memory: ParameterMemory, args: bytearray) -> int:
        parameter, argument = request
        if parameter is None:
            if argument.name not in (b"async_probe", b"dyndbg"):
                self._guest.log.write(4, params.ignored_line(self.module.name, params.without_owner(argument)))
            return 0
        if parameter.type:
            result = params.set_parameter(parameter, argument.value, memory)
            if parameter.type == "array" and argument.at >= 0:
                params.cut_array(args, argument.at)
            return result
        return set_by_module(self._guest, self.module, parameter, argument.value)

    def init(self) -> None:
        """``do_init_module``."""
        guest, module, modules = self._guest, self.module, self._modules
        result = 0
        if module.init:
            low = guest.call(module.init) & 0xFFFF_FFFF
            result = low - (1 << 32) if low >> 31 else low
        if result < 0:
            self._operation.result = result
            modules.set_state(module, "going")
            return
        if result > 0:
            what = f"'{module.name}'->init suspiciously returned {result}, it should follow 0/-E convention"
            guest.log.write(4, f"do_init_module: {what}\ndo_init_module: loading module anyway...")
        modules.set_state(module, "live")
        module.refcount -= 1
        guest.uevent("add", module.name)
        base = self._bases.get("init")
        if base:
            guest.unmap(base, _pages(self.layout.regions["init"].size))
            module.bases["init"] = 0
        guest.settle()

    def undo(self) -> None:
        if self._listed:
            self._modules.free(self.module)


_ORC = ("arch.orc_unwind_ip", "arch.orc_unwind")
_STEPS: tuple[tuple[str, Callable[[_Loading], None]], ...] = (
    ("signature", _Loading.signature),
    ("check", _Loading.check),
    ("allocate", _Loading.allocate),
    ("name", _Loading.name),
    ("unsigned", _Loading.unsigned),
    ("link", _Loading.link),
    ("store", _Loading.store),
    ("parameters", _Loading.parameters),
    ("init", _Loading.init),
)


def read_parameters(guest: BareGuest, module: LoadedModule) -> tuple[tuple[params.Parameter, ...], tuple[int, ...]]:
    """A module's parameters, and the addresses of their ``kernel_param``."""
    table = module.tables.get("kp")
    if table is None or not table.entries:
        return (), ()
    size = guest.layouts.size("kernel_param")
    entries = tuple(table.address + index * size for index in range(table.entries))
    return tuple(_parameter(guest, guest.view("kernel_param", entry)) for entry in entries), entries


def _parameter(guest: BareGuest, entry: View) -> params.Parameter:
    kind = type_of(guest, entry["ops"])
    takes_none = None if kind else bool(guest.view("kernel_param_ops", entry["ops"])["flags"] & 1)
    name = guest.read_cstr(entry["name"]).decode("latin-1")
    return params.Parameter(name, entry["arg"], kind, entry["perm"], entry["level"], entry["flags"], takes_none)


def type_of(guest: BareGuest, operations: int) -> str:
    """The standard type that operations stand for; empty where they are the module's own."""
    for name, address in guest.symbols.made.items():
        if address == operations:
            return "array" if name == "param_array_ops" else name.removeprefix(_TARGET_PREFIX)
    return ""


def set_by_module(guest: BareGuest, module: LoadedModule, parameter: params.Parameter, value: bytes | None) -> int:
    """Have a module's own operations take a value: 0 or a negative errno."""
    entry = module.entries[module.parameters.index(parameter)]
    function = guest.view("kernel_param_ops", guest.view("kernel_param", entry)["ops"])["set"]
    if not function:
        return -errno.EPERM
    text = 0
    if value is not None:
        text = guest.heap.allocate(len(value) + 1, internal=True)
        guest.write(text, value + b"\0")
    low = guest.call(function, text, entry) & 0xFFFF_FFFF
    guest.heap.release(text)
    return low - (1 << 32) if low >> 31 else low


class ParameterMemory:
    """What the standard parameter types ask of the kernel around them."""

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest

    def log(self, level: int, text: str) -> None:
        self._guest.log.write(level, text)

    def taint_unsafe(self) -> None:
        self._guest.tainted |= 1 << _USER

    def locked_down(self) -> bool:
        return False

    def read(self, address: int, size: int) -> bytes:
        return self._guest.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._guest.write(address, data)

    def duplicate(self, text: bytes) -> int:
        address = self._guest.heap.allocate(len(text) + 1, internal=True)
        if address:
            self._guest.write(address, text + b"\0")
        return address

    def release(self, address: int) -> None:
        if self._guest.heap.size_of(address):
            self._guest.heap.release(address)

    def string_at(self, address: int) -> params.StringArg:
        view = self._guest.view("kparam_string", address)
        return params.StringArg(view["maxlen"], view["string"])

    def array_at(self, address: int) -> params.ArrayArg:
        view = self._guest.view("kparam_array", address)
        return params.ArrayArg(
            view["max"], view["elemsize"], view["num"], type_of(self._guest, view["ops"]), view["elem"]
        )


def _pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def modules_text(modules: ModuleList) -> Iterator[str]:
    """The lines of /proc/modules."""
    words = {"live": "Live", "coming": "Loading", "going": "Unloading"}
    for module in modules.loaded:
        users = "".join(f"{user.name}," for user in modules.users(module))
        users += "[permanent]," if module.permanent else ""
        taint = modules.flags_text(module)
        line = f"{module.name} {module.size} {module.refcount - 1} {users or '-'} {words[module.state]}"
        yield f"{line} 0x{module.bases['core']:016x}{' ' + taint if taint else ''}"
