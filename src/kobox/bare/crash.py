"""What happens on the bare kernel when the CPU raises an exception: a fixup, a warning, or an oops that ends the task.

The text of reports is ``debug``'s; here it is decided what the exception means and what becomes of the task.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kobox.abi.traps import PF, Trap
from kobox.bare.calls import RETURN_NAME
from kobox.bare.guest import BareGuest
from kobox.kernel.tasks import JobTimeout, TaskDied
from kobox.machine.machine import DIVIDE, INVALID_OPCODE, PAGE_FAULT, RIP

if TYPE_CHECKING:
    from kobox.bare.modules import LoadedModule
    from kobox.debug.fault import Scene
    from kobox.debug.klog import Line
    from kobox.debug.records import Oops, Registers, SourceLine

_WALKED = (("PGD", 0), ("P4D", 0))
_UD2 = b"\x0f\x0b"
_DIE_FLAGS = "PREEMPT SMP NOPTI"
_CR4 = 0x6F0
"""As a kernel sets it on the CPU that the model describes."""
_BUGFLAG_WARNING, _BUGFLAG_NO_CUT_HERE = 1, 8
_DIED, _WARNED, _SOFT_LOCKUP = 7, 9, 14


class CrashHandler:
    """The machine's exceptions on a bare guest."""

    def __init__(self, guest: BareGuest) -> None:
        self._guest = guest
        self.oopses = 0
        self._first: Oops | None = None
        guest.machine.on_fault = self._on_fault

    def _on_fault(self, vector: int, code: int, address: int) -> bool:
        guest = self._guest
        rip = guest.machine.cpu.read(RIP)
        if vector in (PAGE_FAULT, Trap.GP) and self._fix(rip):
            return True
        bug = self._bug_at(rip) if vector == INVALID_OPCODE else None
        if bug is not None and bug[1] & _BUGFLAG_WARNING:
            self._warn(bug)
            guest.machine.cpu.write(RIP, rip + len(_UD2))
            return True
        self._die(vector, code, address, bug)
        raise AssertionError("unreachable")  # _die always raises

    def _fix(self, rip: int) -> bool:
        """An exception table has an entry for the instruction: go on where it says."""
        guest = self._guest
        module = guest.modules.at(rip)
        table = module.tables.get("extable") if module is not None else None
        if table is None or not table.entries:
            return False
        size = table.size // table.entries
        for place in range(table.address, table.address + table.size, size):
            if place + guest.read_int(place, 4, True) & (1 << 64) - 1 == rip:
                fixup = place + 4 + guest.read_int(place + 4, 4, True)
                guest.machine.cpu.write(RIP, fixup & (1 << 64) - 1)
                return True
        return False

    def _bug_at(self, rip: int) -> tuple[SourceLine | None, int] | None:
        """(place, flags) of the ``ud2`` at an address, from its module's bug table."""
        from kobox.debug.records import SourceLine

        guest = self._guest
        module = guest.modules.at(rip)
        table = module.tables.get("bug_table") if module is not None else None
        if table is None or not table.entries:
            return None
        size = table.size // table.entries
        for place in range(table.address, table.address + table.size, size):
            if place + guest.read_int(place, 4, True) & (1 << 64) - 1 == rip:
                file = place + 4 + guest.read_int(place + 4, 4, True)
                line, flags = guest.read_uint(place + 8, 2), guest.read_uint(place + 10, 2)
                return SourceLine(guest.read_cstr(file).decode("latin-1"), line), flags
        return None

    def _warn(self, bug: tuple[SourceLine | None, int]) -> None:
        from kobox.debug import fault, klog

        scene = self._scene()
        oops = fault.warning(scene, self._registers(), bug[0], cut_here=not bug[1] & _BUGFLAG_NO_CUT_HERE)
        self._log(klog.kernel_text(oops))
        self._guest.tainted |= 1 << _WARNED

    def _die(self, vector: int, code: int, address: int, bug: tuple[SourceLine | None, int] | None) -> None:
        from kobox.debug import fault, klog

        guest = self._guest
        self.oopses += 1
        scene, registers = self._scene(address), self._registers()
        if vector == PAGE_FAULT:
            below = guest.stack.start
            guard = None
            if below - 4096 <= address < below:
                from kobox.debug.unwind import Stack

                guard = Stack("TASK", guest.stack.start, guest.stack.stop)
            not_executable = code & (PF.INSTR | PF.PROT) == PF.INSTR | PF.PROT
            oops = fault.page_fault(
                scene, registers, address, code, walked=_WALKED, nx_page=not_executable, guard_of=guard
            )
        elif bug is not None:
            oops = fault.bug(scene, registers, bug[0])
        else:
            oops = fault.trap(scene, registers, Trap.DE if vector == DIVIDE else Trap(vector), code)
        self._first = self._first or oops
        self._log(klog.kernel_text(oops, first=self._first))
        guest.tainted |= 1 << _DIED
        guest.stop_debugging_locks()
        if guest.clock.in_timer or vector == Trap.BP:
            guest.panic("Fatal exception in interrupt")
        raise TaskDied(oops.title)

    def runaway(self, seconds: float) -> None:
        """Code that never pauses is ended as the kernel's lockup detector would complain."""
        from kobox.debug import fault, klog

        self._log(klog.kernel_text(fault.soft_lockup(self._scene(), self._registers(), int(seconds))))
        self._guest.tainted |= 1 << _SOFT_LOCKUP
        raise JobTimeout(f"guest code ran for {seconds:.0f} seconds without a pause")

    # -- what reports show ----------------------------------------------------------------------------------------

    def _registers(self) -> Registers:
        from kobox.debug.records import Registers

        return Registers.from_mapping(self._guest.machine.registers())

    def _scene(self, cr2: int = 0) -> Scene:
        from kobox.bare.witness import Witness
        from kobox.debug.fault import Scene
        from kobox.debug.records import Banner, ControlRegisters, LinkedIn

        guest = self._guest
        witness = Witness(guest)
        version = guest.data.banner.partition(" SMP ")[2].split(" ", 1)[-1].rpartition(" (")[0]
        banner = Banner(0, 100, 0, guest.comm, guest.tainted, guest.data.release, f"#1  {version}", _hardware())
        control = ControlRegisters(gs=guest.percpu_area, cr2=cr2, cr4=_CR4)
        linked = tuple(LinkedIn(module.name, _flags(guest, module)) for module in guest.modules.loaded)
        return Scene(
            witness,
            witness.symbolize,
            banner,
            control,
            linked,
            guest.modules.last_unloaded,
            max(self.oopses, 1),
            _DIE_FLAGS,
        )

    def _log(self, lines: Iterable[Line]) -> None:
        for level, text in lines:
            if not text.startswith(f" {RETURN_NAME}+"):  # where Python called: no part of the kernel's stack
                self._guest.log.write(level, text)


def _hardware() -> str:
    from kobox.machine.cpu_model import load_model

    board = load_model().board
    return f"{board.vendor} {board.product}, BIOS {board.bios_version} {board.bios_date}"


def _flags(guest: BareGuest, module: LoadedModule) -> str:
    return guest.modules.flags_text(module).strip("()")
