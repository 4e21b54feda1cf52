"""The small devices behind fixed I/O ports that every PC has had, as far as a kernel and its drivers look at them.

The pair of 8259 interrupt controllers (their mask registers only: interrupts go through the I/O APIC), two 16550 serial
ports, and the power-management registers that ACPI's fixed hardware has. All that a guest can change lies in one plain
table of bytes by port, which a snapshot keeps. Intel 8259A; National PC16550D; ACPI 6.4, 4.8.
"""

from __future__ import annotations

from collections.abc import Callable

Registers = dict[int, int]
"""A byte for each port (or name of an inner register, from 0x10000 on)."""

PIC_PORTS = (0x20, 0x21, 0xA0, 0xA1)
SERIAL_PORTS = ((0x3F8, 4), (0x2F8, 3))
"""(first port, interrupt) of each."""
POWER_EVENT, POWER_CONTROL, POWER_TIMER, GENERAL_EVENT = 0x600, 0x604, 0x608, 0x620
GENERAL_EVENT_SIZE = 16
POWER_INTERRUPT = 9
POWER_TIMER_HZ = 3_579_545
_TIMER_MASK = 0xFF_FFFF
_ACPI_ENABLED = 1
_HIDDEN = 0x10000
"""Added to a port: the register behind it that the divisor latch bit shows."""
_CONTROL_WORD = 0x10


class Pics:
    """Both 8259: what is written to the mask registers is read back, nothing is ever pending."""

    def __init__(self, registers: Callable[[], Registers]) -> None:
        self._registers = registers

    def port_read(self, port: int, size: int) -> int:
        return self._registers().get(port, 0xFF) if port & 1 else 0

    def port_write(self, port: int, size: int, value: int) -> None:
        """The command port begins an initialisation, whose three words go to the mask's port."""
        registers = self._registers()
        left = registers.get(port | 1 | _HIDDEN, 0)
        if not port & 1:
            if value & _CONTROL_WORD:
                registers[port | 1 | _HIDDEN] = 2 + (value & 1)
                registers[port | 1] = 0
        elif left:
            registers[port | _HIDDEN] = left - 1
        else:
            registers[port] = value & 0xFF


class Serial:
    """A 16550 with nobody at the other end: what is sent is gone at once, nothing ever arrives."""

    _DATA, _ENABLE, _IDENTIFY, _LINE, _MODEM, _LINE_STATUS, _MODEM_STATUS = range(7)
    _LATCH, _LOOP, _EMPTY = 0x80, 0x10, 0x60
    _SENT = 2  # of the enable register: tell when the transmitter is empty
    _READY = 0xB0  # carrier, data set ready, clear to send

    def __init__(self, base: int, registers: Callable[[], Registers], interrupt: Callable[[], None]) -> None:
        self._base, self._registers, self._interrupt = base, registers, interrupt

    def port_read(self, port: int, size: int) -> int:
        registers, at = self._registers(), port - self._base
        if at <= self._ENABLE and self._get(self._LINE) & self._LATCH:
            return registers.get(port + _HIDDEN, 0)
        if at == self._DATA:
            return 0
        if at == self._IDENTIFY:
            return self._identify(registers)
        if at == self._LINE_STATUS:
            return self._EMPTY
        if at == self._MODEM_STATUS:
            return self._modem_status()
        return registers.get(port, 0)

    def port_write(self, port: int, size: int, value: int) -> None:
        registers, at = self._registers(), port - self._base
        if at <= self._ENABLE and self._get(self._LINE) & self._LATCH:
            registers[port + _HIDDEN] = value & 0xFF
            return
        kept = {self._ENABLE: 0x0F, self._MODEM: 0x1F, self._DATA: 0, self._LINE_STATUS: 0, self._MODEM_STATUS: 0}
        if kept.get(at, 0xFF):
            registers[port] = value & kept.get(at, 0xFF)
        if at in (self._DATA, self._ENABLE) and self._get(self._ENABLE) & self._SENT:
            registers[self._base + _HIDDEN + self._IDENTIFY] = 1
            self._interrupt()

    def _get(self, at: int) -> int:
        return self._registers().get(self._base + at, 0)

    def _identify(self, registers: Registers) -> int:
        """Why there was an interrupt; reading that it was an empty transmitter takes it back."""
        fifos = 0xC0 if self._get(self._IDENTIFY) & 1 else 0
        pending = registers.pop(self._base + _HIDDEN + self._IDENTIFY, 0) and self._get(self._ENABLE) & self._SENT
        return fifos | (2 if pending else 1)

    def _modem_status(self) -> int:
        """In loopback what goes out comes in: RTS as CTS, DTR as DSR, the two outputs as ring and carrier."""
        control = self._get(self._MODEM)
        if not control & self._LOOP:
            return self._READY
        return (control & 1) << 5 | (control & 2) << 3 | (control & 0xC) << 4


class Power:
    """ACPI's fixed hardware: no event ever happens, the machine is in ACPI mode, the timer counts."""

    def __init__(self, registers: Callable[[], Registers], clock: Callable[[], int]) -> None:
        self._registers, self._clock = registers, clock

    @property
    def ports(self) -> list[int]:
        first = range(POWER_EVENT, POWER_TIMER + 4)
        return [*first, *range(GENERAL_EVENT, GENERAL_EVENT + GENERAL_EVENT_SIZE)]

    def port_read(self, port: int, size: int) -> int:
        if POWER_TIMER <= port < POWER_TIMER + 4:
            value = self._clock() * POWER_TIMER_HZ // 1_000_000_000 & _TIMER_MASK
            return value >> 8 * (port - POWER_TIMER) & (1 << 8 * size) - 1
        registers = self._registers()
        value = sum(registers.get(port + byte, 0) << 8 * byte for byte in range(size))
        return value | _ACPI_ENABLED if port == POWER_CONTROL else value

    def port_write(self, port: int, size: int, value: int) -> None:
        """Status registers, the first half of each block, only take back what happened, and nothing has."""
        in_status = port < POWER_EVENT + 2 or GENERAL_EVENT <= port < GENERAL_EVENT + GENERAL_EVENT_SIZE // 2
        if not in_status and not POWER_TIMER <= port < POWER_TIMER + 4:
            for byte in range(size):
                self._registers()[port + byte] = value >> 8 * byte & 0xFF
