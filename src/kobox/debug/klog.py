"""A crash record as the kernel's own log lines, level and text, as Linux on x86-64 prints them.

The structure follows ``arch/x86/kernel/dumpstack.c``, ``process_64.c``, ``traps.c``, ``arch/x86/mm/fault.c``,
``kernel/panic.c`` and ``lib/bug.c`` of 6.1. What newer kernels print differently is a field of ``Style``, which is
found by looking for the kernel's own format strings, never by its release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from kobox.abi import taint
from kobox.abi.traps import NO_SYSCALL, PF
from kobox.debug.records import (
    Banner,
    Code,
    ControlRegisters,
    Frame,
    Kind,
    LinkedIn,
    Oops,
    PageFault,
    Registers,
    RegsFrame,
    SourceLine,
    StackMark,
    Symbol,
    TraceItem,
)

EMERG, ALERT, CRIT, ERR, WARNING, NOTICE, INFO, DEBUG = range(8)
DEFAULT = WARNING
"""Level of lines printed with KERN_DEFAULT: ``CONFIG_MESSAGE_LOGLEVEL_DEFAULT``, 4 in every distribution."""
PAGE_SIZE = 4096


class Line(NamedTuple):
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Style:
    """Where releases differ in their text."""

    shows_uid: bool = False
    verbose_taint: bool = False
    oops_prefix: bool = False
    taint_flags: int = taint.FLAGS_IN_6_1

    @classmethod
    def probe(cls, has_text: Callable[[bytes], bool], taint_flags: int = taint.FLAGS_IN_6_1) -> Style:
        """From the image: ``has_text`` tells whether its read-only data contains these bytes."""
        return cls(
            shows_uid=has_text(b"PID: %d Comm:") and has_text(b" UID: %u PID: %d Comm:"),
            verbose_taint=has_text(b"OOT_MODULE\0"),
            oops_prefix=has_text(b"Oops: %s: %04lx"),
            taint_flags=taint_flags,
        )


def kernel_text(oops: Oops, style: Style | None = None, first: Oops | None = None) -> list[Line]:
    """The whole report, from its first line to the end marker and, for a crash, the register summary after it.

    That summary shows the registers of the ``first`` oops since boot, as the kernel does; by default this one is it.
    """
    style = style or Style()
    if oops.kind is Kind.WARNING:
        return _warning(oops, style)
    if oops.kind is Kind.SOFT_LOCKUP:
        return _soft_lockup(oops, style)
    if oops.kind is Kind.STACK_DUMP:
        return [*banner(oops.banner, style), *call_trace(oops.trace)]
    return _die(oops, style, first or oops)


def _die(oops: Oops, style: Style, first: Oops) -> list[Line]:
    lines = list(_before_die(oops))
    prefix = "Oops: " if style.oops_prefix else ""
    flags = f" {oops.die_flags}" if oops.die_flags else ""
    lines.append(
        Line(DEFAULT, f"{prefix}{oops.description}: {oops.error_code & 0xFFFF:04x} [#{oops.number}]{flags}"),
    )
    lines += banner(oops.banner, style)
    lines += _register_dump(oops)
    lines += call_trace(oops.trace)
    lines.append(modules_linked_in(oops.modules, oops.unloaded))
    if oops.fault and oops.kind is not Kind.STACK_OVERFLOW:
        lines.append(Line(DEFAULT, f"CR2: {oops.fault.address:016x}"))
    lines.append(Line(DEFAULT, END_OF_TRACE))
    lines += _register_dump(replace(first, control=oops.control))
    if oops.panic:
        lines.append(_panic(oops.panic))
    return lines


def _panic(why: str) -> Line:
    return Line(EMERG, f"Kernel panic - not syncing: {why}")


CUT_HERE = "------------[ cut here ]------------"
END_OF_TRACE = "---[ end trace 0000000000000000 ]---"


def _before_die(oops: Oops) -> Iterable[Line]:
    """The lines that say what happened, ahead of the oops line."""
    if oops.fault and oops.kind is not Kind.STACK_OVERFLOW:
        yield from fault_lines(oops.fault, oops.registers)
    elif oops.kind is Kind.BUG:
        if oops.cut_here:
            yield Line(DEFAULT, CUT_HERE)
        yield Line(CRIT, oops.title)
    elif oops.kind in (Kind.STACK_OVERFLOW, Kind.DOUBLE_FAULT) and oops.title:
        yield Line(EMERG, oops.title)


def fault_title(fault: PageFault, user_mode: bool = False) -> str:
    """The first line of a page-fault oops; an address in the first page counts as a NULL pointer."""
    null = fault.address < PAGE_SIZE and not user_mode
    what = "kernel NULL pointer dereference, address" if null else "unable to handle page fault for address"
    return f"BUG: {what}: {fault.address:016x}"


def fault_lines(fault: PageFault, registers: Registers | None) -> Iterable[Line]:
    user_mode = bool(registers and registers.user_mode)
    code = PF(fault.error_code)
    if fault.nx_page and code & PF.INSTR:
        tried = "kernel tried to execute NX-protected page - exploit attempt?"
        yield Line(CRIT, f"{tried} (uid: {fault.uid})")
    yield Line(ALERT, fault_title(fault, user_mode))
    who = "user" if code & PF.USER else "supervisor"
    yield Line(ALERT, f"#PF: {who} {access_name(code)} in {'user' if user_mode else 'kernel'} mode")
    yield Line(ALERT, f"#PF: error_code({fault.error_code:#06x}) - {_why_refused(code)}")
    walk = fault.walk or (("PGD", 0), ("P4D", 0))
    yield Line(INFO, " ".join(f"{level} {entry:x}" for level, entry in walk) + (" " if walk[-1][0] != "PTE" else ""))


def access_name(code: PF) -> str:
    """``read access``, ``write access`` or ``instruction fetch``."""
    if code & PF.INSTR:
        return "instruction fetch"
    return "write access" if code & PF.WRITE else "read access"


def _why_refused(code: PF) -> str:
    if not code & PF.PROT:
        return "not-present page"
    if code & PF.RSVD:
        return "reserved bit violation"
    return "protection keys violation" if code & PF.PK else "permissions violation"


def _warning(oops: Oops, style: Style) -> list[Line]:
    lines = [Line(DEFAULT, CUT_HERE)] if oops.cut_here else []
    if oops.message:
        lines += [Line(WARNING, part) for part in oops.message.rstrip("\n").split("\n")]
    lines.append(Line(WARNING, oops.title))
    lines.append(modules_linked_in(oops.modules, oops.unloaded))
    lines += banner(oops.banner, style)
    lines += _register_dump(oops)
    lines += call_trace(oops.trace)
    lines.append(_panic(oops.panic) if oops.panic else Line(WARNING, END_OF_TRACE))
    return lines


def warning_title(banner: Banner, caller: str, where: SourceLine | None) -> str:
    """``WARNING: CPU: 0 PID: 99 at FILE:LINE function+0x…``."""
    place = f"{where} " if where else ""
    return f"WARNING: CPU: {banner.cpu or 0} PID: {banner.pid or 0} at {place}{caller}"


def _soft_lockup(oops: Oops, style: Style) -> list[Line]:
    lines = [Line(EMERG, oops.title), modules_linked_in(oops.modules, oops.unloaded)]
    lines += banner(oops.banner, style)
    lines += _register_dump(oops)
    lines += call_trace(oops.trace)
    return lines


def soft_lockup_title(banner: Banner, seconds: int) -> str:
    cpu, pid = banner.cpu or 0, banner.pid or 0
    return f"watchdog: BUG: soft lockup - CPU#{cpu} stuck for {seconds}s! [{banner.comm or ''}:{pid}]"


def stack_guard_title(stack: str, address: int, begin: int, end: int) -> str:
    """``BUG: TASK stack guard page was hit at …``. The kernel prints hashed pointers here; these are the real ones."""
    return f"BUG: {stack} stack guard page was hit at {address:016x} (stack is {begin:016x}..{end:016x})"


def banner(who: Banner, style: Style) -> list[Line]:
    """CPU, task, taint, kernel and hardware."""
    uid = f" UID: {who.uid or 0}" if style.shows_uid else ""
    state = taint.tainted_text(who.taint or 0, style.taint_flags)
    version = f" {who.version}" if who.version else ""
    lines = [
        Line(
            DEFAULT,
            f"CPU: {who.cpu or 0}{uid} PID: {who.pid or 0} Comm: {(who.comm or '')[:20]} {state} "
            f"{who.release or ''}{version}",
        )
    ]
    if style.verbose_taint and who.taint:
        lines.append(Line(DEFAULT, taint.verbose_text(who.taint)))
    if who.hardware:
        lines.append(Line(DEFAULT, f"Hardware name: {who.hardware}"))
    if who.workqueue:
        lines.append(Line(DEFAULT, f"Workqueue: {who.workqueue}"))
    return lines


def modules_linked_in(modules: Iterable[LinkedIn], unloaded: str = "") -> Line:
    listed = "".join(f" {module}" for module in modules)
    last = f" [last unloaded: {unloaded}]" if unloaded else ""
    return Line(DEFAULT, f"Modules linked in:{listed}{last}")


def _register_dump(oops: Oops) -> list[Line]:
    if oops.registers is None:
        return []
    lines = registers(oops.registers, oops.symbol, oops.code)
    if oops.control:
        lines += _control(oops.registers, oops.control)
    return lines


def registers(regs: Registers, symbol: Symbol | None, code: Code | None, partial: bool = False) -> list[Line]:
    """RIP, code, RSP and (unless only the interrupt frame is known) the general registers."""
    lines = [Line(DEFAULT, f"RIP: {regs.cs:04x}:{symbol if symbol else f'{regs.ip:#x}'}")]
    if code is not None:
        lines.append(Line(DEFAULT, code_line(code)))
    call = f" ORIG_RAX: {regs.orig_ax:016x}" if regs.orig_ax != NO_SYSCALL and not partial else ""
    lines.append(Line(DEFAULT, f"RSP: {regs.ss:04x}:{regs.sp:016x} EFLAGS: {regs.flags:08x}{call}"))
    if partial:
        return lines
    named = [f"{name}: {value:016x}" for name, value in regs.general().items()]
    lines += [Line(DEFAULT, " ".join(named[at : at + 3])) for at in range(0, len(named), 3)]
    return lines


def _control(regs: Registers, ctl: ControlRegisters) -> list[Line]:
    return [
        Line(
            DEFAULT,
            f"FS:  {ctl.fs:016x}({ctl.fs_index:04x}) GS:{ctl.gs:016x}({ctl.gs_index:04x}) knlGS:{ctl.kernel_gs:016x}",
        ),
        Line(DEFAULT, f"CS:  {regs.cs:04x} DS: {ctl.ds:04x} ES: {ctl.es:04x} CR0: {ctl.cr0:016x}"),
        Line(DEFAULT, f"CR2: {ctl.cr2:016x} CR3: {ctl.cr3:016x} CR4: {ctl.cr4:016x}"),
    ]


def code_line(code: Code) -> str:
    """``Code: 48 89 <c7> 00``, or that the bytes could not be read."""
    if code.data is None:
        return f"Code: Unable to access opcode bytes at {code.start:#x}."
    shown = [f"{byte:02x}" for byte in code.data]
    if code.ip_offset < len(shown):
        shown[code.ip_offset] = f"<{shown[code.ip_offset]}>"
    return "Code: " + " ".join(shown)


def call_trace(trace: Iterable[TraceItem]) -> list[Line]:
    lines = [Line(DEFAULT, "Call Trace:")]
    for item in trace:
        if isinstance(item, StackMark):
            lines.append(Line(DEFAULT, f" <{'/' if item.end else ''}{item.name}>"))
        elif isinstance(item, RegsFrame):
            lines += registers(item.registers, item.symbol, item.code, item.partial)
        else:
            lines.append(Line(DEFAULT, f" {frame_text(item)}"))
    return lines


def frame_text(frame: Frame) -> str:
    where = str(frame.symbol) if frame.symbol else f"{frame.address or 0:#x}"
    return where if frame.reliable else f"? {where}"
