"""What stands around the CPU of a PC, as far as a kernel needs it to run: CPUID, MSRs, local APIC with its timer, I/O
APIC, real-time clock, and port I/O. Devices proper are built on top of this.

State that a snapshot must keep is plain data in ``PcState``. Intel SDM volume 3 chapter 11 (APIC) and 82093AA (I/O
APIC).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kobox.machine import isa
from kobox.machine.cpu_model import CpuModel
from kobox.machine.machine import Machine
from kobox.machine.pci_bus import (
    ADDRESS_PORT,
    DATA_PORT,
    ECAM_BASE,
    ECAM_SIZE,
    WINDOW_BASE,
    WINDOW_END,
    PciBus,
    Wires,
)  # fmt: skip
from kobox.machine.unicorn_abi import REG

APIC_BASE, IOAPIC_BASE = 0xFEE0_0000, 0xFEC0_0000
_OPEN_BUS = 0xFEEF_F000
"""A page where no device is: reads give all ones, writes are lost. It stands for every such page."""
_MSR_TSC, _MSR_TSC_DEADLINE = 0x10, 0x6E0
_BASE_MSRS = {0xC000_0100: REG["fs_base"], 0xC000_0101: REG["gs_base"]}
_MSR_KERNEL_GS = 0xC000_0102

_APIC_ID, _APIC_VERSION, _APIC_EOI, _APIC_DFR, _APIC_SVR, _APIC_ICR = 0x20, 0x30, 0xB0, 0xE0, 0xF0, 0x300
_APIC_TIMER, _APIC_INITIAL, _APIC_CURRENT, _APIC_DIVIDE = 0x320, 0x380, 0x390, 0x3E0
_MASKED, _LEVEL = 1 << 16, 1 << 15
_LONGEST_STEP_NS = 20_000
_PORT_NS = 1_000
"""How long an access to a port takes."""


class PortDevice(Protocol):
    """A device behind I/O ports. ``size`` is 1, 2 or 4 bytes."""

    def port_read(self, port: int, size: int) -> int: ...

    def port_write(self, port: int, size: int, value: int) -> None: ...


@dataclass(slots=True)
class PcState:
    """Everything here that changes while the guest runs."""

    msrs: dict[int, int]
    apic: dict[int, int]
    ioapic: dict[int, int]
    ioapic_index: int = 0
    cmos_index: int = 0
    ports: isa.Registers = field(default_factory=dict)
    noise: int = 1
    """Where the sequence stands that makes one reading of the clock take longer than another."""

    def copy(self) -> PcState:
        msrs, apic, ioapic = dict(self.msrs), dict(self.apic), dict(self.ioapic)
        return PcState(msrs, apic, ioapic, self.ioapic_index, self.cmos_index, dict(self.ports), self.noise)


def _reset_state(model: CpuModel) -> PcState:
    apic = {_APIC_ID: 0, _APIC_VERSION: 0x50014, _APIC_DFR: 0xFFFF_FFFF, _APIC_SVR: 0xFF}
    apic |= dict.fromkeys((_APIC_TIMER, 0x330, 0x340, 0x350, 0x360, 0x370), _MASKED)
    ioapic = {0: 0, 1: 0x0017_0020, 2: 0}
    ioapic |= {0x10 + 2 * pin: _MASKED for pin in range(24)}
    return PcState(dict(model.msrs), apic, ioapic)


@dataclass(slots=True)
class Pc:
    """The board: wires itself into ``machine`` when made."""

    machine: Machine
    model: CpuModel
    state: PcState = field(init=False)
    ports: dict[int, PortDevice] = field(init=False, default_factory=dict)
    reads_in_a_row: int = field(init=False, default=0)
    """How often the clock was read lately without any other trap in between."""
    _last_read: int = field(init=False, default=0)
    pci: PciBus = field(init=False)
    _high_lines: set[int] = field(init=False, default_factory=set)
    """Lines of the I/O APIC that a device holds now."""
    epoch: int = 0
    """Seconds since 1970 at which virtual time 0 lies."""

    def __post_init__(self) -> None:
        self.state = _reset_state(self.model)
        self.epoch = int(time.time())
        cpu = self.machine.cpu
        cpu.on_cpuid(self._cpuid)
        cpu.on_ports(self._port_read, self._port_write)
        cpu.map_device(APIC_BASE, 0x1000, self._apic_read, self._apic_write)
        cpu.map_device(IOAPIC_BASE, 0x1000, self._ioapic_read, self._ioapic_write)
        for base in (APIC_BASE, IOAPIC_BASE):
            self.machine.pages.devices.append((base, base + 0x1000))
        cpu.map_device(_OPEN_BUS, 0x1000, lambda _, size: (1 << 8 * size) - 1, lambda _, size, value: None)
        self.machine.pages.open_bus = _OPEN_BUS
        self.machine.on_due = self._timer_due
        for port in (0x70, 0x71):
            self.ports[port] = _Cmos(self)
        self._add_isa_devices()
        self._add_pci()

    def _add_pci(self) -> None:
        machine, cpu = self.machine, self.machine.cpu
        bus = PciBus(
            Wires(
                machine.memory_view, self._deliver, self._set_line, machine.post, machine.alarm,
                lambda: machine.clock.now,
            ),
            isa.POWER_EVENT,
        )  # fmt: skip
        self.pci = bus
        self.ports |= dict.fromkeys(range(ADDRESS_PORT, DATA_PORT + 4), bus)
        cpu.map_device(ECAM_BASE, ECAM_SIZE, bus.ecam_read, bus.ecam_write)
        cpu.map_device(WINDOW_BASE, WINDOW_END - WINDOW_BASE, bus.memory_read, bus.memory_write)
        machine.pages.devices += [(ECAM_BASE, ECAM_BASE + ECAM_SIZE), (WINDOW_BASE, WINDOW_END)]

    def _add_isa_devices(self) -> None:
        def registers() -> isa.Registers:
            return self.state.ports

        self.ports |= dict.fromkeys(isa.PIC_PORTS, isa.Pics(registers))
        power = isa.Power(registers, self._tick_by_port)
        self.ports |= dict.fromkeys(power.ports, power)
        for base, line in isa.SERIAL_PORTS:
            serial = isa.Serial(base, registers, functools.partial(self._raise_line, line))
            self.ports |= dict.fromkeys(range(base, base + 8), serial)

    def _tick_by_port(self) -> int:
        """The time for who reads it from a port, which takes a while itself."""
        self.machine.clock.wait(_PORT_NS)
        return self.machine.clock.now

    def _raise_line(self, line: int) -> None:
        """An edge at a line of the I/O APIC."""
        entry = self.state.ioapic.get(0x10 + 2 * line, _MASKED)
        if not entry & _MASKED:
            self.machine.interrupt(entry & 0xFF)
            self.machine.stop()

    def _deliver(self, vector: int) -> None:
        self.machine.interrupt(vector)
        self.machine.stop()

    def _set_line(self, line: int, level: bool) -> None:
        """A line of the I/O APIC that stays up until its reason is gone."""
        if not level:
            self._high_lines.discard(line)
        elif line not in self._high_lines:
            self._high_lines.add(line)
            self._raise_line(line)

    def _raise_held_lines(self) -> None:
        """After the end of an interrupt, or a change of the I/O APIC: lines that are still up interrupt again."""
        for line in self._high_lines:
            entry = self.state.ioapic.get(0x10 + 2 * line, _MASKED)
            if entry & _LEVEL:
                self._raise_line(line)

    def instruction_handler(self, kind: str) -> Callable[[], None]:
        """What serves one sensitive instruction (``machine.sites``): its name, and its register for the random ones."""
        name, _, register = kind.partition(" ")
        table: dict[str, Callable[[], None]] = {
            "rdtsc": self._rdtsc,
            "rdtscp": self._rdtscp,
            "rdmsr": self._rdmsr,
            "wrmsr": self._wrmsr,
            "rdpmc": lambda: self._set_edx_eax(0),
            "stgi": lambda: None,  # lets interrupts in again that nothing has kept out: there is no ``vmrun``
        }
        if name in table:
            return table[name]
        return lambda: self._random(register)

    # -- instructions -------------------------------------------------------------------------------------------

    def _cpuid(self) -> None:
        cpu = self.machine.cpu
        leaf = cpu.read(REG["eax"])
        values = self.model.leaves.get(leaf, (0, 0, 0, 0))
        for name, value in zip(("rax", "rbx", "rcx", "rdx"), values, strict=True):
            cpu.write(REG[name], value)

    def _set_edx_eax(self, value: int) -> None:
        self.machine.cpu.write(REG["rax"], value & 0xFFFF_FFFF)
        self.machine.cpu.write(REG["rdx"], value >> 32)

    def _tsc(self) -> int:
        return self.machine.clock.now * self.model.tsc_khz // 1_000_000

    def _rdtsc(self) -> None:
        """Code that does nothing but read the clock is waiting: time passes faster with every read in a row."""
        machine = self.machine
        self.reads_in_a_row = self.reads_in_a_row + 1 if machine.traps_taken == self._last_read + 1 else 0
        self._last_read = machine.traps_taken
        machine.clock.wait(min(self.reads_in_a_row**2, _LONGEST_STEP_NS) + self._jitter())
        self._set_edx_eax(self._tsc())

    def _jitter(self) -> int:
        """0 to 31 ns, the same sequence in every run: a clock without any is refused as a source of entropy."""
        state = self.state
        state.noise = (state.noise * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1  # Knuth, MMIX
        return state.noise >> 59

    def _rdtscp(self) -> None:
        self._rdtsc()
        self.machine.cpu.write(REG["rcx"], self.state.msrs.get(0xC000_0103, 0) & 0xFFFF_FFFF)

    def _random(self, register: str) -> None:
        """``rdrand``/``rdseed``: no CPU model here has them; carry clear means no value."""
        cpu = self.machine.cpu
        cpu.write(REG[register], 0)
        cpu.write(REG["eflags"], cpu.read(REG["eflags"]) & ~1)

    def _rdmsr(self) -> None:
        number = self.machine.cpu.read(REG["ecx"])
        if number == _MSR_TSC:
            value = self._tsc()
        elif number in _BASE_MSRS:
            value = self.machine.cpu.read(_BASE_MSRS[number])
        elif number == _MSR_TSC_DEADLINE:
            value = self.machine.clock.deadline or 0
        else:
            value = self.state.msrs.get(number, 0)
        self._set_edx_eax(value)

    def _wrmsr(self) -> None:
        cpu = self.machine.cpu
        number, value = cpu.read(REG["ecx"]), cpu.read(REG["eax"]) | cpu.read(REG["edx"]) << 32
        if number in _BASE_MSRS:
            cpu.write(_BASE_MSRS[number], value)
        elif number == _MSR_TSC_DEADLINE:
            self.machine.clock.deadline = value * 1_000_000 // self.model.tsc_khz or None
        elif self.model.keeps(number):
            self.state.msrs[number] = value

    # -- local APIC ---------------------------------------------------------------------------------------------

    def _apic_read(self, offset: int, _size: int) -> int:
        if offset == _APIC_CURRENT:
            deadline = self.machine.clock.deadline
            return 0 if deadline is None else max(0, deadline - self.machine.clock.now) // self._apic_divisor()
        return self.state.apic.get(offset, 0)

    def _apic_write(self, offset: int, _size: int, value: int) -> None:
        if offset == _APIC_EOI and self._high_lines:
            self._raise_held_lines()
        if offset in (_APIC_EOI, _APIC_ID, _APIC_VERSION):
            return
        self.state.apic[offset] = value
        if offset == _APIC_INITIAL:
            ticks = value * self._apic_divisor()
            self.machine.clock.deadline = self.machine.clock.now + ticks if value else None
            self.machine.stop()
        elif offset == _APIC_ICR and value & 0x700 == 0 and value >> 18 & 3 != 3:
            # fixed delivery: on one CPU every destination (self, all, by id) is this CPU, except "all but self"
            self.machine.interrupt(value & 0xFF)
            self.machine.stop()

    def _apic_divisor(self) -> int:
        code = self.state.apic.get(_APIC_DIVIDE, 0)
        shift = ((code & 3) | (code >> 1 & 4)) + 1
        return 1 << (shift & 7)

    def _timer_due(self) -> None:
        entry = self.state.apic.get(_APIC_TIMER, _MASKED)
        if not entry & _MASKED:
            self.machine.interrupt(entry & 0xFF)
            if entry >> 17 & 3 == 1:
                period = self.state.apic.get(_APIC_INITIAL, 0) * self._apic_divisor()
                self.machine.clock.deadline = self.machine.clock.now + period

    # -- I/O APIC -----------------------------------------------------------------------------------------------

    def _ioapic_read(self, offset: int, _size: int) -> int:
        if offset == 0:
            return self.state.ioapic_index
        return self.state.ioapic.get(self.state.ioapic_index, 0)

    def _ioapic_write(self, offset: int, _size: int, value: int) -> None:
        if offset == 0:
            self.state.ioapic_index = value & 0xFF
        elif offset == 0x10 and self.state.ioapic_index != 1:
            self.state.ioapic[self.state.ioapic_index] = value
            if self._high_lines:
                self._raise_held_lines()

    # -- ports --------------------------------------------------------------------------------------------------

    def _port_read(self, port: int, size: int) -> int:
        device = self.ports.get(port)
        return self.pci.io_read(port, size) if device is None else device.port_read(port, size)

    def _port_write(self, port: int, size: int, value: int) -> None:
        device = self.ports.get(port)
        if device is None:
            self.pci.io_write(port, size, value)
        else:
            device.port_write(port, size, value)


class _Cmos:
    """The MC146818 clock: date and time only, in decimal digits (a PC's kernel takes no other form) and 24 hours, never
    in an update."""

    def __init__(self, pc: Pc) -> None:
        self._pc = pc

    def port_read(self, port: int, size: int) -> int:
        index = self._pc.state.cmos_index
        now = time.gmtime(self._pc.epoch + self._pc.machine.clock.now // 1_000_000_000)
        numbers = {
            0: now.tm_sec, 2: now.tm_min, 4: now.tm_hour, 6: (now.tm_wday + 1) % 7 + 1, 7: now.tm_mday, 8: now.tm_mon,
            9: now.tm_year % 100, 0x32: now.tm_year // 100,
        }  # fmt: skip
        if port == 0x70:
            return 0xFF
        if index in numbers:
            return numbers[index] // 10 << 4 | numbers[index] % 10
        return {0xA: 0x26, 0xB: 0x02, 0xD: 0x80}.get(index, 0)

    def port_write(self, port: int, size: int, value: int) -> None:
        if port == 0x70:
            self._pc.state.cmos_index = value & 0x7F
