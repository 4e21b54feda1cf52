"""From an image to a running kernel: power on, let the kernel boot itself, stop where it would start its first program.

The kernel's own ``start_kernel`` does everything. Python stands in for the boot loader (state of the CPU, memory map,
command line, ACPI tables), serves the instructions that must not read the host's clock or registers, and adopts the few
functions of ``kapi.tables``. What differs from hardware is exactly that list.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kobox.bringup import firmware
from kobox.bringup.efi import RuntimeServices
from kobox.bringup.initcalls import InitcallWatch
from kobox.errors import GuestError
from kobox.image import Image
from kobox.kapi.tables import IMAGE_TABLES
from kobox.kernel.dispatch import Dispatcher, body_of
from kobox.kernel.guest import Guest
from kobox.kernel.helpers import Helpers
from kobox.kernel.log import Log
from kobox.kernel.tasks import Tasks
from kobox.machine import traps
from kobox.machine.cpu_model import CpuModel, load_model
from kobox.machine.machine import RIP, Machine
from kobox.machine.pc import Pc
from kobox.machine.sites import find_sites
from kobox.machine.unicorn_abi import REG, Segment

RAM_SIZE = 512 << 20
OWN_BASE = 0xFFFF_FFFF_8010_0000
"""Guest address of kobox's own pages: in the kernel's 2 GiB, below where any kernel is linked."""
OWN_SIZE = 4 << 20
WINDOW_BASE, WINDOW_SIZE = 0x7000_0000_0000, 64 << 20
"""User addresses for the buffers of system calls that Python makes."""

_SEEDED_EPOCH = 1_767_225_600
"""2026-01-01 00:00 UTC: the date at power-on where the host's must not be told from the log."""
_SEEDED_SLICE_SECONDS = 2.0
"""How long code may run without a trap until the host's clock takes part; so long that only what never ends does."""
_SETTLE_NS = 1_500_000_000
"""Virtual time after the boot in which the kernel refines its clock and goes over to stopping the tick when idle."""
_CR0, _CR4, _EFER = 0x8005_0033, 0xA0, 0xD01
_KERNEL_CS, _KERNEL_DS = 0x10, 0x18
_STARTUP_SIZE, _CALL_INDIRECT, _FAR_RETURN = 1024, b"\xff\x15", b"\x48\xcb"
_MOUNTS = (
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("debugfs", "/sys/kernel/debug", "debugfs"),
    ("tracefs", "/sys/kernel/tracing", "tracefs"),
)


class BootOptions(NamedTuple):
    """What decides a boot: two boots with the same options and the same image are the same."""

    command_line: str = ""
    cpu: str = "qemu64"
    ram_size: int = RAM_SIZE
    seed: int | None = None
    """What would be random or the host's (seed of the kernel's random numbers, date, end of long runs) follows from
    it."""
    variables: Sequence[Sequence[Any]] | None = None
    """Firmware variables (``efi.variables.rows``) of a machine with UEFI; None: a machine with a BIOS."""


@dataclass(slots=True)
class Booted:
    """A kernel whose workers are ready, and what the boot said of itself."""

    guest: Guest
    log: Log
    dispatcher: Dispatcher
    sites: list[tuple[int, int, str]]
    firmware: RuntimeServices | None = None
    """The runtime services of a machine with UEFI."""
    report: dict[str, Any] = field(default_factory=dict)
    """What the boot did: results of the initcalls, what was adopted."""


Progress = Callable[[str], None]


def assemble(image: Image, options: BootOptions) -> Booted:
    """The machine with everything wired but nothing patched and nothing in memory: common to boot and restore."""
    model = load_model(options.cpu)
    machine = Machine(options.ram_size, OWN_SIZE, OWN_BASE, WINDOW_SIZE)
    pc = Pc(machine, model)
    guest = Guest(image, machine, pc)
    guest.tasks = Tasks(guest)
    guest.helpers = Helpers(guest)
    if options.seed is not None:
        pc.epoch = _SEEDED_EPOCH
        guest.tasks.slice_seconds = _SEEDED_SLICE_SECONDS
    machine.pages.ram_end = options.ram_size
    window = options.ram_size + OWN_SIZE
    machine.pages.window = (WINDOW_BASE, WINDOW_BASE + WINDOW_SIZE, window)
    machine.pages.linear_base = image.read_int(image.symbols["page_offset_base"], 8)
    machine.pages.linear_end = machine.pages.linear_base + options.ram_size
    machine.pages.stable = (image.layout.phys_base, image.layout.phys_base + image.layout.flat_size)
    services = RuntimeServices(guest, options.variables) if options.variables is not None else None
    return Booted(guest, Log(guest), Dispatcher(guest), [], services)


def boot(image: Image, options: BootOptions, progress: Progress = lambda text: None) -> Booted:
    """Boot an image from nothing."""
    start = time.monotonic()
    booted = assemble(image, options)
    guest = booted.guest
    machine = guest.machine
    progress("loading the kernel")
    with open(image.flat_path, "rb", buffering=0) as flat:
        flat.readinto(machine.memory.bytes[image.layout.phys_base : image.layout.phys_base + image.layout.flat_size])
    services = booted.firmware
    variables = services.variables if services is not None else None
    board = guest.pc.model.board
    firmware.place(machine.memory, options.ram_size, options.command_line, board, options.seed, variables)
    if services is not None:
        services.place_code()
    _prepare_page_tables(guest)
    booted.sites = find_all_sites(guest)
    install_sites(booted, patch=True)
    _prefer_loops_to_string_instructions(guest)
    booted.dispatcher.adopt(IMAGE_TABLES, patch=True)
    boot_traps = _BootTraps(booted)
    boot_traps.install()
    watch = InitcallWatch(guest)
    watch.install()
    _power_on(guest, model=guest.pc.model)
    progress("booting")
    guest.tasks.bring_up()
    watch.remove()
    progress("settling")
    guest.tasks.sleep(_SETTLE_NS)
    _expedite_grace_periods(guest)
    guest.helpers.askers.watch()
    booted.log.read()
    booted.report = watch.report() | {
        "seconds": round(time.monotonic() - start, 3),
        "adopted": [
            {"name": name, "fidelity": declared.fidelity.value, "why": declared.why}
            for name, declared in booted.dispatcher.adopted.items()
        ],
        "sites": len(booted.sites),
    }
    return booted


def _expedite_grace_periods(guest: Guest) -> None:
    """A load and an unload wait for RCU; with one CPU nobody gains from the wait, which is three timer ticks long.

    The kernel's own switch, which it holds until its boot is over. ``rcupdate.rcu_normal=1`` overrides it.
    """
    if guest.has("rcu_expedite_gp"):
        guest.call("rcu_expedite_gp")


# -- before the first instruction -----------------------------------------------------------------------------------


def _prepare_page_tables(guest: Guest) -> None:
    """What head_64.S does: the early table maps the kernel's own 2 GiB through the image's static tables."""
    machine = guest.machine
    early, final = guest.symbol("early_top_pgt"), guest.symbol("init_top_pgt")
    virt = guest.image.layout.virt_base
    machine.pages.root = early - virt
    level3 = guest.symbol("level3_kernel_pgt") - virt
    _PAGE_TABLE = 0x67
    for table in (early, final):
        machine.memory.words[(table - virt >> 3) + 511] = level3 | _PAGE_TABLE


def _power_on(guest: Guest, model: CpuModel) -> None:
    machine, layout = guest.machine, guest.image.layout
    cpu = machine.cpu
    cpu.write(REG["cr4"], _CR4)
    cpu.write(REG["cr3"], guest.symbol("early_top_pgt") - layout.virt_base)
    cpu.write_msr(0xC000_0080, _EFER)
    cpu.write(REG["cr0"], _CR0)
    percpu = _first_percpu_base(guest)
    cpu.write_segment(REG["gdtr"], Segment(0, percpu + guest.symbol("gdt_page"), 0x7F, 0))
    cpu.write(REG["cs"], _KERNEL_CS)
    cpu.write(REG["ss"], _KERNEL_DS)
    for name in ("ds", "es", "fs", "gs"):
        cpu.write(REG[name], 0)
    cpu.write(REG["gs_base"], percpu)
    stack = guest.symbols.get("__top_init_kernel_stack") or guest.read_uint(guest.symbol("initial_stack"))
    guest.write_uint(stack - 8, _behind_first_call(guest))
    cpu.write(REG["rsp"], stack - 8)
    cpu.write(REG["eflags"], 2)
    cpu.write(REG["rdi"], firmware.PARAMS_ADDR)
    cpu.write(RIP, guest.symbol("x86_64_start_kernel"))


def _first_percpu_base(guest: Guest) -> int:
    """What GS holds until per-CPU areas are set up: where the first copy lies, if variables are linked from address 0
    on, or 0, if they are linked where they lie (arch/x86/kernel/vmlinux.lds.S)."""
    linked_from_zero = guest.symbol("__per_cpu_start") == 0
    return guest.symbol("__per_cpu_load") if linked_from_zero else 0


def _behind_first_call(guest: Guest) -> int:
    """Where C code seems to have been called from, so that unwinders of the idle task end as on a real machine.

    The startup code calls or far-returns to what ``initial_code`` says (arch/x86/kernel/head_64.S); 0 if it does not.
    """
    start = guest.symbol("secondary_startup_64")
    code, wanted = guest.image.read(start, _STARTUP_SIZE), guest.symbol("initial_code") - start
    for at in range(2, len(code) - 4):
        if at + 4 + int.from_bytes(code[at : at + 4], "little", signed=True) == wanted:
            far_return = code.find(_FAR_RETURN, at, at + 16)
            if code[at - 2 : at] == _CALL_INDIRECT:
                return start + at + 4
            if far_return > 0:
                return start + far_return + len(_FAR_RETURN)
    return 0


# -- instructions that become traps ---------------------------------------------------------------------------------


def find_all_sites(guest: Guest) -> list[tuple[int, int, str]]:
    """(address, length, kind) of every sensitive instruction in kernel text and in its alternatives' replacements."""
    image = guest.image
    found: list[tuple[int, int, str]] = []
    for section_start, section_end in (("_stext", "_etext"), ("_sinittext", "_einittext")):
        start, end = guest.symbol(section_start), guest.symbol(section_end)
        starts = sorted({r.address - start for r in image.symbols.records() if start <= r.address < end})
        found += [(start + s.offset, s.length, s.kind) for s in find_sites(image.read(start, end - start), starts)]
    for target, replacement, length in alternatives(guest):
        for site in find_sites(guest.read(replacement, length), [0]) if length else ():
            # the copy at the target traps under its own address; the replacement itself is only bytes to copy
            found.append((target + site.offset, -site.length, f"{site.kind}@{replacement + site.offset:#x}"))
    return found


def alternatives(guest: Guest) -> list[tuple[int, int, int]]:
    """(address, address of the replacement, its length) of each alternative of the kernel."""
    return [(target, repl, length) for _, target, repl, length in _alternative_entries(guest)]


def _alternative_entries(guest: Guest) -> list[tuple[int, int, int, int]]:
    layouts = guest.layouts
    start, end = guest.symbol("__alt_instructions"), guest.symbol("__alt_instructions_end")
    size = layouts.size("alt_instr")
    target_at, repl_at = layouts.offset("alt_instr", "instr_offset"), layouts.offset("alt_instr", "repl_offset")
    length_at = layouts.offset("alt_instr", "replacementlen")
    data = guest.read(start, end - start)
    entries = []
    for off in range(0, len(data), size):
        (target,) = struct.unpack_from("<i", data, off + target_at)
        (repl,) = struct.unpack_from("<i", data, off + repl_at)
        address = start + off
        entries.append((address, address + target_at + target, address + repl_at + repl, data[off + length_at]))
    return entries


def install_sites(booted: Booted, patch: bool) -> None:
    """Register every site's trap; ``patch``: also store the ``hlt`` (a restored snapshot has it already)."""
    machine, pc = booted.guest.machine, booted.guest.pc
    for address, length, kind in booted.sites:
        name, _, copied_from = kind.partition("@")
        code = machine.area.site(address, abs(length), name, pc.instruction_handler(name))
        if patch:
            booted.guest.write(int(copied_from, 16) if copied_from else address, code)


def _prefer_loops_to_string_instructions(guest: Guest) -> None:
    """``rep stos`` and ``rep movs`` are slow in emulation: choose the kernel's loop variants wherever it has both.

    The feature that selects them is the one of the first alternative of ``memset``; each entry that tests it is
    inverted.
    """
    memset = guest.first_symbol("__memset", "memset")
    feature_path = "cpuid" if guest.layouts.has("alt_instr", "cpuid") else "ft_flags"
    entries = [address for address, *_ in _alternative_entries(guest)]
    targets = {address: target for address, target, *_ in _alternative_entries(guest)}
    features = [guest.view("alt_instr", a)[feature_path] for a in entries if targets[a] == memset]
    if not features:
        return
    width = guest.layouts.field("alt_instr", feature_path).size
    inverted = 1 << (width * 8 - 1) if width == 2 else 1 << 16
    for address in entries:
        view = guest.view("alt_instr", address)
        if view[feature_path] == features[0]:
            view[feature_path] = features[0] | inverted


# -- while it boots -------------------------------------------------------------------------------------------------


class _BootTraps:
    """Takes part in the boot at three points: initcalls are noted, file systems mounted, the first program replaced."""

    def __init__(self, booted: Booted) -> None:
        self._booted = booted
        self._guest = booted.guest

    def install(self) -> None:
        area = self._guest.machine.area
        self._hook("init_eaccess", area.stub("boot: look for init", self._on_look_for_init))
        self._hook("run_init_process", area.stub("boot: run init", self._on_run_init))

    def _hook(self, name: str, stub: int) -> None:
        entry = body_of(self._guest, self._guest.symbol(name))
        self._guest.machine.patch(entry, traps.jump(entry, stub))

    def _on_look_for_init(self) -> None:
        """The kernel asks whether there is an init: yes. Mount what a system has mounted by then."""
        guest = self._guest
        guest.machine.cpu.write(REG["rax"], 0)
        texts = _Texts(guest)
        calls: list[tuple[int, ...]] = []
        for source, folder, kind in _MOUNTS:
            target = texts.put(folder)
            calls.append((guest.symbol("init_mkdir"), target, 0o755))
            calls.append((guest.symbol("init_mount"), texts.put(source), target, texts.put(kind), 0, 0))
        guest.tasks.call_in_place(*calls)

    def _on_run_init(self) -> None:
        self._guest.tasks.take_over_first_process()


class _Texts:
    """Small strings in kobox's own memory, for the arguments of calls."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._next = OWN_BASE + 1024

    def put(self, text: str) -> int:
        data = text.encode() + b"\0"
        address, self._next = self._next, self._next + len(data)
        if self._next > OWN_BASE + 4096:
            raise GuestError("no room for another string")
        self._guest.write(address, data)
        return address
