"""The computer: one CPU, flat memory, a clock, interrupts, traps, and the one loop that runs the guest.

It knows nothing of Linux. Whoever builds on it registers traps, raises interrupts, and decides what idle means. Time is
virtual: it moves by a step per trap, by jumping to the next timer when the guest is idle, and by slices when guest code
runs without ever trapping.
"""

from __future__ import annotations

import heapq
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from kobox.errors import GuestError
from kobox.machine import unicorn_abi as abi
from kobox.machine.memory import PAGE_MASK, PAGE_SIZE, PhysicalMemory
from kobox.machine.operand import faulting_address
from kobox.machine.paging import PageMap
from kobox.machine.traps import TrapArea
from kobox.machine.unicorn_abi import GENERAL, REG, Unicorn

RIP, RSP, RAX, RFLAGS = REG["rip"], REG["rsp"], REG["rax"], REG["eflags"]
IF = 1 << 9
_WRITE_PROTECT = 1 << 16
_CLEARED_ON_ENTRY = IF | 1 << 8 | 1 << 14 | 1 << 16  # IF TF NT RF
DIVIDE, INVALID_OPCODE, DOUBLE_FAULT, PROTECTION, PAGE_FAULT = 0, 6, 8, 13, 14
_LONGEST_INSTRUCTION = 15
_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})

_ALIAS_BASE = 0xFFFF_F000_0000_0000
TRAP_STEP_NS = 200
_TRAPS_BETWEEN_LOOKS, _TRAPS_BETWEEN_CHECKS = (1 << 6) - 1, (1 << 12) - 1
SLICE_SECONDS = 0.02
SLICE_NS = 4_000_000
"""A run of guest code that takes so much processor time without a trap is ended: so much virtual time has passed."""


@dataclass(slots=True)
class Clock:
    """Virtual nanoseconds since power-on, and when the guest's one timer is due (None: not set)."""

    now: int = 0
    deadline: int | None = None
    slices: list[int] = field(default_factory=list)
    """The instants at which the watchdog ended a run: all that is not determined by the guest itself."""
    on_wait: Callable[[int], None] | None = None
    """Told of time that passes while the guest waits."""

    def wait(self, nanoseconds: int) -> None:
        """Time passes in which the guest does nothing: idle, in a delay, or asking the clock again and again."""
        self.now += nanoseconds
        if self.on_wait is not None:
            self.on_wait(nanoseconds)


class Halted(GuestError):
    """The guest stopped for good: no timer, no interrupt and no work will ever wake it."""


class Machine:
    """``memory_size`` bytes of RAM that the guest is told of; behind it kobox's own area, then a window for buffers."""

    def __init__(self, memory_size: int, own_size: int, own_base: int, window_size: int = 0) -> None:
        self.memory = PhysicalMemory(memory_size + own_size + window_size)
        self.ram_size = memory_size
        self.cpu = Unicorn()
        self.cpu.map_memory(0, self.memory.size, self.memory.host_address)
        self.pages = PageMap(
            self.memory, lambda: self.cpu.read(REG["cr3"]), lambda: bool(self.cpu.read(REG["cr0"]) & _WRITE_PROTECT)
        )
        self.cpu.use_page_map(self.pages.fill)
        self.area = TrapArea(self.pages, own_base, memory_size, own_size)
        self.clock = Clock()
        self.patched: set[int] = set()
        """Physical pages of the kernel's own text that were patched since the snapshot."""
        self.pages.on_code_write = self.forget_page
        self._alias_used = False
        self.pending: list[int] = []
        """Interrupt vectors that wait for the guest to accept them."""
        self._posted: list[Callable[[], None]] = []
        self._alarms: list[tuple[int, int, Callable[[], None]]] = []
        """What devices want to do later: a heap of (virtual time, order of asking, what)."""
        self._alarms_set = 0
        self._in_guest = False
        """A run is under way: Python is called from within an access of the guest."""
        self.on_due: Callable[[], None] = lambda: None
        """Called when the clock has reached the timer's deadline."""
        self.on_slice: Callable[[], None] = lambda: None
        """Called when the watchdog ended a run, and every few thousand traps: the place for time limits."""
        self.on_look: Callable[[], None] = lambda: None
        """Called every few traps and when the watchdog ended a run, for whoever watches the guest's memory; it must not
        touch the guest."""
        self.on_fault: Callable[[int, int, int], bool] = lambda vector, code, address: False
        """A last look before an exception reaches the guest; True: dealt with, RIP is set."""
        self.patience: Callable[[], float] = lambda: SLICE_SECONDS
        """How much processor time a run may take before the watchdog ends it."""
        self.slice_ns = SLICE_NS
        """Virtual time that passes when the watchdog ends a run."""
        self.sliced_ns = 0
        """How much of the virtual time so far passed in that way."""
        self.idle = False
        """The guest waits for an interrupt."""
        self._vector: int | None = None
        self._stop_wanted = False
        self._stops_seen = 0
        """How many stops had been asked for when the last run began."""
        self.cpu.on_interrupt(self._note_vector)
        self._watchdog = _Watchdog(self.cpu, lambda: self.patience())
        self.traps_taken = 0

    # -- registers and memory -----------------------------------------------------------------------------------

    def registers(self) -> dict[str, int]:
        """All general registers, rip and rflags by name."""
        values = {name: self.cpu.read(REG[name]) for name in GENERAL}
        return values | {"rip": self.cpu.read(RIP), "rflags": self.cpu.read(RFLAGS)}

    def set_registers(self, values: dict[str, int]) -> None:
        for name, value in values.items():
            self.cpu.write(REG["eflags" if name == "rflags" else name], value)

    def patch(self, vaddr: int, code: bytes) -> None:
        """Store code and make sure that no translation of the old bytes survives.

        Outside the kernel's image the store itself has dropped what there was: ``PageMap`` knows which pages were
        executed, and most sites of a module are patched before any of it has run.
        """
        first, behind = self.pages.stable
        last = vaddr + len(code) - 1
        self.pages.write(vaddr, code)
        for address in (vaddr,) if not (vaddr ^ last) & PAGE_MASK else (vaddr, last):
            paddr = self.pages.physical(address)
            if paddr is not None and first <= paddr < behind:
                if self.pages.executable(address):
                    page = address & PAGE_MASK
                    self.cpu.forget_code(page, page + PAGE_SIZE)  # a fifth of what it costs under the alias
                else:
                    self.forget_page(paddr & PAGE_MASK)
                self.patched.add(paddr & PAGE_MASK)

    def forget_page(self, page: int) -> None:
        """Drop translated code of one physical page, wherever it is or was mapped.

        Unicorn finds translations by virtual address, and a module's pages may be unmapped by now: all of memory is
        made executable under an address of our own for the moment of the call.
        """
        self.pages.alias_base = _ALIAS_BASE
        self.cpu.forget_code(_ALIAS_BASE + page, _ALIAS_BASE + page + PAGE_SIZE)
        self.pages.alias_base = 0
        self._alias_used = True

    def forget_changed_code(self) -> None:
        """Before a reset: drop translations of exactly the pages whose code was patched, or is not the kernel's own."""
        changed = self.patched | self.pages.executed | self.pages.overwritten
        self.pages.alias_base = _ALIAS_BASE
        for page in changed:
            self.cpu.forget_code(_ALIAS_BASE + page, _ALIAS_BASE + page + PAGE_SIZE)
        self.pages.alias_base = 0
        self.patched.clear()
        self.pages.executed.clear()
        self.pages.overwritten.clear()

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, done: Callable[[], bool]) -> None:
        """Run the guest until ``done()`` holds; it is asked after every trap and whenever the guest is idle.

        A stop may come too late for its run and end the next one. So a run that ended without a trap has ended by a
        ``hlt`` only if no stop was asked for during it or the one before; else the guest goes on, which after a real
        ``hlt`` is an early wake-up, and those are allowed.

        Raises ``Halted`` when the guest can never go on.
        """
        cpu, traps, clock = self.cpu, self.area.traps, self.clock
        rip = cpu.read(RIP)
        while True:
            if clock.deadline is not None and clock.now >= clock.deadline:
                clock.deadline = None
                self.on_due()
            if self._posted or self._alarms:
                self.work_off()
            if self.pending and cpu.read(RFLAGS) & IF:
                rip = self._deliver(self.pending.pop(0), rip, 0)
            self.idle = False
            if self._alias_used:
                self._alias_used = False
                cpu.forget_pages()  # the guest must not find the alias in the CPU's cache
            stops_before, self._stops_seen = self._stops_seen, cpu.stops
            self._in_guest = True
            status = self._watchdog.guard(rip)
            self._in_guest = False
            rip = cpu.read(RIP)
            if status == abi.OK:
                trap = traps.get(rip)
                if self._vector is not None:
                    vector, self._vector = self._vector, None
                    rip = self._raise(vector, rip)
                elif trap is not None:
                    self.traps_taken += 1
                    clock.now += TRAP_STEP_NS
                    cpu.write(RIP, trap.resume)
                    trap.handler()
                    if not self.traps_taken & _TRAPS_BETWEEN_LOOKS:
                        self.on_look()
                        if not self.traps_taken & _TRAPS_BETWEEN_CHECKS:
                            self.on_slice()
                    rip = cpu.read(RIP)
                    if done():
                        self.work_off()
                        return
                elif self._watchdog.take_slice():
                    clock.now += self.slice_ns
                    self.sliced_ns += self.slice_ns
                    clock.slices.append(clock.now)
                    self.on_look()
                    self.on_slice()
                    rip = cpu.read(RIP)
                elif self._stop_wanted:
                    self._stop_wanted = False
                elif cpu.stops == stops_before:
                    if self._idle(rip, done):
                        return
                    rip = cpu.read(RIP)
            elif status == abi.INSN_INVALID:
                rip = self._raise(INVALID_OPCODE, rip)
            else:
                rip = self._memory_fault(rip)

    def stop(self) -> None:
        """From a device or hook: come back to the loop soon."""
        self._stop_wanted = True
        self.cpu.stop()

    def fault_here(self, vector: int) -> None:
        """Raise an exception at the present instruction, as if it had caused it."""
        self.idle = False
        self._deliver(vector, self.cpu.read(RIP), 0)

    def post(self, work: Callable[[], None]) -> None:
        """From a device: do this when the guest stands still, soon."""
        self._posted.append(work)
        self.stop()

    def work_off(self) -> None:
        """What devices have to do by now, until nothing is left."""
        while self._alarms and self._alarms[0][0] <= self.clock.now:
            heapq.heappop(self._alarms)[2]()
        while self._posted:
            self._posted.pop(0)()

    def alarm(self, when: int, work: Callable[[], None]) -> None:
        """From a device: do this when the clock says ``when`` (virtual nanoseconds), as ``post`` does it."""
        self._alarms_set += 1
        heapq.heappush(self._alarms, (when, self._alarms_set, work))
        self.stop()

    def forget_device_work(self) -> None:
        """Before a reset: nothing that devices wanted to do is done."""
        self._posted.clear()
        self._alarms.clear()

    def memory_view(self, paddr: int, size: int, write: bool) -> memoryview | None:
        """RAM as a device sees it, live; None where a part of it is none. ``write``: a device writes there now."""
        if paddr + size > self.ram_size:
            return None
        if write and not self._in_guest:
            self._forget_written(paddr, size)
        elif write:
            self.post(lambda: self._forget_written(paddr, size))
        return self.memory.bytes[paddr : paddr + size]

    def _forget_written(self, paddr: int, size: int) -> None:
        """No translation of code may survive that a device has written over."""
        start, end = self.pages.stable
        if start < paddr + size and paddr < end:
            for page in range(max(paddr, start) & PAGE_MASK, min(paddr + size, end), PAGE_SIZE):
                self.forget_page(page)
                self.patched.add(page)
        self.pages.note_write(paddr, size)

    def interrupt(self, vector: int) -> None:
        """Queue an interrupt; the guest takes it when its interrupt flag allows."""
        if vector not in self.pending:
            self.pending.append(vector)

    def _idle(self, rip: int, done: Callable[[], bool]) -> bool:
        """The guest executed ``hlt`` of its own: wait for the next interrupt, in virtual time. True: done."""
        enabled = bool(self.cpu.read(RFLAGS) & IF)
        self.idle = True
        if done():
            self.work_off()
            return True
        if not enabled:
            raise Halted(f"the CPU was halted with interrupts off at {rip:#x}")
        if not self.pending and not self._posted:
            due = [self._alarms[0][0]] if self._alarms else []
            if self.clock.deadline is not None:
                due.append(self.clock.deadline)
            if not due:
                raise Halted("the guest is idle and no timer is set")
            self.clock.wait(max(0, min(due) - self.clock.now))
        return False

    # -- exceptions and interrupts ------------------------------------------------------------------------------

    def _note_vector(self, vector: int) -> None:
        self._vector = vector
        self.cpu.stop()

    def _memory_fault(self, rip: int) -> int:
        miss = self.pages.miss
        page = rip & ~(PAGE_SIZE - 1)
        if miss.access == "fetch" and miss.page not in (page, page + PAGE_SIZE):
            raise GuestError(f"the CPU stopped at {rip:#x} for a reason that Unicorn does not tell")
        address = max(rip, miss.page) if miss.access == "fetch" else self._operand_address(rip, miss.page)
        code = (1 if miss.present else 0) | (2 if miss.access == "write" else 0) | (16 if miss.access == "fetch" else 0)
        if not _canonical(address):
            return self._raise(PROTECTION, rip)
        return self._raise(PAGE_FAULT, rip, code, address)

    def _operand_address(self, rip: int, page: int) -> int:
        """The byte that the instruction at ``rip`` failed at, as far as it tells."""
        code = self.pages.read(rip, min(_LONGEST_INSTRUCTION, PAGE_SIZE - rip % PAGE_SIZE))
        if len(code) < _LONGEST_INSTRUCTION and self.pages.physical(rip + len(code)) is not None:
            code += self.pages.read(rip + len(code), _LONGEST_INSTRUCTION - len(code))
        return faulting_address(
            bytes(code), rip, page, self.registers(), lambda name: self.cpu.read(REG[f"{name}_base"])
        )

    def _raise(self, vector: int, rip: int, code: int = 0, address: int = 0) -> int:
        if self.on_fault(vector, code, address):
            return self.cpu.read(RIP)
        if vector == PAGE_FAULT:
            self.cpu.write(REG["cr2"], address)
        return self._deliver(vector, rip, code)

    def _deliver(self, vector: int, rip: int, code: int) -> int:
        """Enter the guest's handler as hardware does (Intel SDM volume 3, 6.14): returns the handler's address."""
        cpu, pages = self.cpu, self.pages
        idt_base = cpu.read_segment(REG["idtr"]).base
        gate = pages.read(idt_base + vector * 16, 16)
        low, _selector, ist, kind, mid, high = struct.unpack("<HHBBHI", gate[:12])
        handler: int = low | mid << 16 | high << 32
        if not kind & 0x80:
            raise GuestError(f"the guest has no handler for exception {vector} at {rip:#x}")
        rsp, rflags = cpu.read(RSP), cpu.read(RFLAGS)
        top = rsp
        if ist & 7:
            tss = cpu.read_segment(REG["tr"]).base
            (top,) = struct.unpack("<Q", pages.read(tss + 36 + (ist & 7) * 8 - 8, 8))
        frame = [rip, cpu.read(REG["cs"]), rflags, rsp, cpu.read(REG["ss"])]
        if vector in _WITH_ERROR_CODE:
            frame.insert(0, code)
        top = (top & ~15) - len(frame) * 8
        try:
            pages.write(top, struct.pack(f"<{len(frame)}Q", *frame))
        except GuestError:
            if vector == DOUBLE_FAULT:
                raise
            return self._deliver(DOUBLE_FAULT, rip, 0)
        cpu.write(RSP, top)
        cpu.write(RFLAGS, rflags & ~_CLEARED_ON_ENTRY if kind & 15 == 14 else rflags & ~(_CLEARED_ON_ENTRY & ~IF))
        cpu.write(RIP, handler)
        return handler

    def close(self) -> None:
        self._watchdog.close()
        self.cpu.close()
        self.area = None  # type: ignore[assignment]  # its view of the mailbox must go before the memory does
        self.pages = None  # type: ignore[assignment]
        self.memory.close()


class _Watchdog:
    """A thread that ends a run which lasts too long; only such runs are ever touched.

    ``emu_stop`` before ``emu_start`` is lost, so the thread repeats itself until the run has ended.
    """

    def __init__(self, cpu: Unicorn, patience: Callable[[], float]) -> None:
        self._cpu, self._patience = cpu, patience
        self._started = 0.0
        self._runner = 0
        """The thread that runs the guest."""
        self._fired = False
        self._closed = False
        self._thread: threading.Thread | None = None
        _WATCHDOGS.add(self)

    def guard(self, rip: int) -> int:
        """Run the guest under watch; returns Unicorn's status."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="kobox-watchdog", daemon=True)
            self._thread.start()
        self._runner = threading.get_ident()
        self._started = time.monotonic()
        try:
            return self._cpu.run(rip)
        finally:
            self._started = 0.0

    def take_slice(self) -> bool:
        """Whether the run that just ended was ended by this watchdog."""
        fired, self._fired = self._fired, False
        return fired

    def close(self) -> None:
        self._closed = True
        if self._thread is not None:
            self._thread.join()

    def rest(self) -> None:
        """End the thread while nothing runs: a fork would not take it along. The next run starts another."""
        if self._thread is not None and not self._started:
            self.close()
            self._thread, self._closed = None, False

    def forget(self) -> None:
        """In a forked process: no thread is there."""
        self._thread, self._started = None, 0.0

    def _watch(self) -> None:
        pause = SLICE_SECONDS / 2
        seen, since = 0.0, 0.0
        while not self._closed:
            time.sleep(pause)
            started, pause = self._started, SLICE_SECONDS / 2
            if started and started == seen and self._used() - since > self._patience() - SLICE_SECONDS / 2:
                self._fired = True
                self._cpu.stop()
                pause = 0.001
            elif started and started != seen:
                seen, since = started, self._used()

    def _used(self) -> float:
        """Processor time of the thread that runs the guest: a run is not long because the host is busy."""
        return time.clock_gettime(time.pthread_getcpuclockid(self._runner))


_WATCHDOGS: weakref.WeakSet[_Watchdog] = weakref.WeakSet()


def _rest_all() -> None:
    for dog in tuple(_WATCHDOGS):
        dog.rest()


def _forget_all() -> None:
    for dog in tuple(_WATCHDOGS):
        dog.forget()


os.register_at_fork(before=_rest_all, after_in_child=_forget_all)


def _canonical(address: int) -> bool:
    return address >> 47 in (0, 0x1FFFF)
