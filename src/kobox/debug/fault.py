"""From what the CPU reported to a crash record: the guest's fault path calls one of these and logs the result.

Says what a trap means (NULL pointer, stack guard, non-canonical address, BUG or WARN) and collects registers, code and
trace. What then happens to the task is the kernel room's business; ``signal_of`` says what the kernel would send it.
Follows ``arch/x86/kernel/traps.c`` and ``arch/x86/mm/fault.c``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kobox.abi.traps import PF, SIGKILL, SIGSEGV, TRAP_TEXT, Trap
from kobox.debug import klog
from kobox.debug.disasm import instruction_at
from kobox.debug.records import (
    Banner,
    ControlRegisters,
    Kind,
    LinkedIn,
    Oops,
    PageFault,
    Registers,
    SourceLine,
    Symbolizer,
)
from kobox.debug.unwind import Guest, Stack, read_code, walk

_CANONICAL_BITS = 47
_LONGEST_INSTRUCTION = 15


@dataclass(frozen=True, slots=True)
class Scene:
    """What surrounds a fault: the guest's memory and symbols, who ran, and what the dump shows beside registers."""

    guest: Guest
    symbolize: Symbolizer
    banner: Banner
    control: ControlRegisters = field(default_factory=ControlRegisters)
    modules: tuple[LinkedIn, ...] = ()
    unloaded: str = ""
    number: int = 1
    die_flags: str = ""


def page_fault(
    scene: Scene,
    registers: Registers,
    address: int,
    error_code: int,
    *,
    walked: tuple[tuple[str, int], ...] = (),
    nx_page: bool = False,
    guard_of: Stack | None = None,
) -> Oops:
    """A page fault that no exception table entry covers.

    ``walked``: the page-table entries met, for the PGD line. ``nx_page``: the page is there, but not executable.
    ``guard_of``: the stack whose guard page ``address`` lies in, when it does.
    """
    fault = PageFault(address, error_code, walked, nx_page, scene.banner.uid or 0)
    if guard_of is not None:
        title = klog.stack_guard_title(guard_of.name, address, guard_of.begin, guard_of.end)
        return _collect(scene, registers, Kind.STACK_OVERFLOW, title, "stack guard page", 0, fault)
    if error_code & PF.INSTR:
        kind = Kind.BAD_EXECUTE
    else:
        kind = Kind.NULL_DEREFERENCE if address < klog.PAGE_SIZE else Kind.PAGE_FAULT
    title = klog.fault_title(fault, registers.user_mode)
    return _collect(scene, registers, kind, title, TRAP_TEXT[Trap.PF], error_code, fault)


_TRAP_KINDS: dict[Trap, Kind] = {
    Trap.DE: Kind.DIVIDE_ERROR,
    Trap.BP: Kind.INT3,
    Trap.UD: Kind.INVALID_OPCODE,
    Trap.DF: Kind.DOUBLE_FAULT,
}


def trap(scene: Scene, registers: Registers, vector: Trap, error_code: int = 0) -> Oops:
    """Any other exception in kernel mode; for int3 ``registers.ip`` lies behind the instruction, as on the CPU."""
    if vector is Trap.GP:
        return _general_protection(scene, registers, error_code)
    text = TRAP_TEXT[vector]
    title = f"PANIC: double fault, error_code: {error_code:#x}" if vector is Trap.DF else text
    return _collect(scene, registers, _TRAP_KINDS.get(vector, Kind.TRAP), title, text, error_code)


def bug(scene: Scene, registers: Registers, where: SourceLine | None, *, cut_here: bool = True) -> Oops:
    """``ud2`` of a BUG: ``where`` comes from the bug table, None when the kernel keeps no file names."""
    if where:
        title = f"kernel BUG at {where}!"
    else:
        symbol = scene.symbolize(registers.ip)
        title = f"Kernel BUG at {symbol or hex(registers.ip)} [verbose debug info unavailable]"
    return _collect(scene, registers, Kind.BUG, title, TRAP_TEXT[Trap.UD], 0, bug_at=where, cut_here=cut_here)


def warning(scene: Scene, registers: Registers, where: SourceLine | None, *, cut_here: bool = True) -> Oops:
    """``ud2`` of a WARN; the task goes on behind it. ``cut_here`` False: the guest has printed that line already."""
    caller = str(scene.symbolize(registers.ip) or hex(registers.ip))
    title = klog.warning_title(scene.banner, caller, where)
    return _collect(scene, registers, Kind.WARNING, title, "", 0, bug_at=where, cut_here=cut_here)


def soft_lockup(scene: Scene, registers: Registers, seconds: int) -> Oops:
    """A task that kept the CPU for ``seconds`` of guest time."""
    title = klog.soft_lockup_title(scene.banner, seconds)
    return _collect(scene, registers, Kind.SOFT_LOCKUP, title, "", 0, seconds=seconds)


def signal_of(oops: Oops) -> int:
    """The signal that ends the task: 9 after a page fault, 11 after other traps, 0 when it goes on."""
    if not oops.kind.kills_task:
        return 0
    return SIGKILL if oops.description == TRAP_TEXT[Trap.PF] else SIGSEGV


def _general_protection(scene: Scene, registers: Registers, error_code: int) -> Oops:
    """The CPU does not say which address was wrong, so it is worked out from the instruction's operand."""
    text = TRAP_TEXT[Trap.GP]
    if error_code:
        text = f"segment-related {text}"
    else:
        data = scene.guest.read(registers.ip, _LONGEST_INSTRUCTION)
        found = instruction_at(data, registers.ip, registers) if data else None
        if found and found.memory and found.memory.address is not None:
            address, last = found.memory.address, found.memory.address + found.memory.size - 1
            user_top = (1 << _CANONICAL_BITS) - 1
            non_canonical = address < (1 << 64) - 1 - user_top and last > user_top
            guess = "probably for non-canonical address" if non_canonical else "maybe for address"
            text += f", {guess} {address:#x}"
    return _collect(scene, registers, Kind.GENERAL_PROTECTION, text, text, error_code)


def _collect(
    scene: Scene,
    registers: Registers,
    kind: Kind,
    title: str,
    description: str,
    error_code: int,
    fault: PageFault | None = None,
    *,
    bug_at: SourceLine | None = None,
    cut_here: bool = True,
    seconds: int | None = None,
) -> Oops:
    return Oops(
        kind=kind,
        title=title,
        banner=scene.banner,
        description=description,
        error_code=error_code,
        number=scene.number,
        die_flags=scene.die_flags,
        fault=fault,
        bug_at=bug_at,
        cut_here=cut_here,
        seconds=seconds,
        symbol=scene.symbolize(registers.ip),
        registers=registers,
        control=scene.control,
        code=read_code(scene.guest, registers.ip),
        trace=walk(scene.guest, registers, scene.symbolize),
        modules=scene.modules,
        unloaded=scene.unloaded,
    )
