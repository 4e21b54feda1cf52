"""An SMBus host controller as in Intel's ICH9 (8086:2930), with chips on its bus: sensors, EEPROMs.

Intel I/O Controller Hub 9 data sheet, 18 (SMBus controller registers); System Management Bus Specification 2.0, 5.5.
Blocks go through the buffer of 32 bytes, or byte by byte; packet error codes and the slave side are not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kobox.devices import own_state
from kobox.devices.device import PciDevice
from kobox.devices.registers import Register
from kobox.machine.pci_function import Bar

_DONE, _NO_ANSWER, _BYTE_DONE = 2, 4, 0x80
_START, _TELL, _KILL, _LAST_BYTE = 0x40, 1, 2, 0x20
_BUFFER_ON = 2
_QUICK, _BYTE, _BYTE_DATA, _WORD_DATA, _CALL, _BLOCK, _I2C_BLOCK = range(7)
_SIZES = {_BYTE_DATA: 1, _WORD_DATA: 2}
_MOST = 32
_HOST_CONFIG, _HOST_ENABLE = 0x40, 1
_SECONDS = 0.0002
"""A transaction of a few bytes at 100 kHz."""


class Chip:
    """What answers at one address: ``registers`` are its bytes, or words with the first byte low. Override ``read`` and
    ``write`` where it does more than keep them. All attributes belong to the kernel's state."""

    def __init__(self, registers: Mapping[int, bytes] | None = None) -> None:
        self.registers: dict[int, bytes] = dict(registers or {})

    def read(self, command: int, count: int) -> bytes | None:
        """So many bytes of a register, or of those from it on; None: it does not answer."""
        if command in self.registers and len(self.registers[command]) >= count:
            return self.registers[command][:count]
        found = b"".join(self.registers.get(command + at, b"\xff")[:1] for at in range(count))
        return found if command in self.registers else None

    def write(self, command: int, data: bytes) -> bool:
        """Bytes for a register; False: it does not take them."""
        self.registers[command] = data
        return True


class Lm75(Chip):
    """A thermometer at 0x48 or near. ``celsius`` may be set; ``limit`` and ``hysteresis`` are the driver's."""

    _TEMPERATURE, _CONFIGURATION, _HYSTERESIS, _LIMIT = range(4)

    def __init__(self, celsius: float = 25.0) -> None:
        super().__init__({self._CONFIGURATION: b"\0", self._HYSTERESIS: _degrees(75), self._LIMIT: _degrees(80)})
        self.celsius = celsius

    @property
    def limit(self) -> float:
        """Above it the driver reports an alarm."""
        return int.from_bytes(self.registers[self._LIMIT], "big", signed=True) / 256

    def read(self, command: int, count: int) -> bytes | None:
        """See ``Chip``: words come with the high byte first."""
        return _degrees(self.celsius)[:count] if command == self._TEMPERATURE else super().read(command, count)


def _degrees(celsius: float) -> bytes:
    """Nine bits, half a degree each, in the upper part of a word."""
    return (int(celsius * 2) << 7 & 0xFFFF).to_bytes(2, "big")


class SmbusHost(PciDevice):
    """``/dev/i2c-…`` with ``chips`` by their addresses (7 bits)."""

    vendor, device, class_code, revision = 0x8086, 0x2930, 0x0C0500, 2
    bars = {4: Bar(32, io=True)}  # noqa: RUF012
    pin = 1
    kept_outside = frozenset({"chips"})

    status = Register(0x00, 1, bar=4, writable=0, cleared=0xFE)
    control = Register(0x02, 1, bar=4)
    command = Register(0x03, 1, bar=4)
    address = Register(0x04, 1, bar=4)
    data_0 = Register(0x05, 1, bar=4)
    data_1 = Register(0x06, 1, bar=4)
    block_data = Register(0x07, 1, bar=4)
    error_code = Register(0x08, 1, bar=4)
    extra_status = Register(0x0C, 1, bar=4, writable=0)
    extra_control = Register(0x0D, 1, bar=4)

    def __init__(self, chips: Mapping[int, Chip]) -> None:
        self.chips = dict(chips)
        super().__init__()
        self.config.put(_HOST_CONFIG, 1, _HOST_ENABLE)
        self.config.allow(_HOST_CONFIG, 1, 0xFF)

    def reset(self) -> None:
        """See ``PciDevice``."""
        super().reset()
        self.block = bytearray(_MOST)
        self.place = 0
        """Of the buffer's byte that is next."""
        self.reading = False
        self.stream: bytearray | None = None
        """What is left of a block that goes byte by byte to the host, or what came so far of one from it."""

    @status.on_write
    def _acknowledge(self, value: int) -> None:
        if not self.status & ~1:
            self.lower_irq()
        if value & _BYTE_DONE and self.stream is not None:
            self.after(_SECONDS, self._go_on)

    @control.on_read
    def _rewind(self) -> int:
        """Reading it sets the buffer's place back."""
        self.place = 0
        return self.control & ~_START

    @control.on_write
    def _start(self, value: int) -> None:
        if value & _START and not value & _KILL:
            self.status |= 1
            self.after(_SECONDS, self._transact)

    @block_data.on_read
    def _next_byte(self) -> int:
        if not self.extra_control & _BUFFER_ON:
            return self.block_data
        self.place = self.place + 1 & _MOST - 1
        return self.block[self.place - 1]

    @block_data.on_write
    def _put_byte(self, value: int) -> None:
        if not self.extra_control & _BUFFER_ON:
            return
        self.block[self.place] = value
        self.place = self.place + 1 & _MOST - 1

    def _transact(self) -> None:
        chip = self.chips.get(self.address >> 1)
        kind, reads = self.control >> 2 & 7, bool(self.address & 1)
        if chip is not None and kind in (_BLOCK, _I2C_BLOCK) and not self.extra_control & _BUFFER_ON:
            self._begin_bytes(chip, kind, reads or kind == _I2C_BLOCK)
            return
        answered = chip is not None and self._carry_out(chip, kind, reads)
        self._ends(_DONE if answered else _NO_ANSWER)

    def _ends(self, how: int) -> None:
        """So far, or for good."""
        self.status = self.status & ~1 | how | (1 if how == _BYTE_DONE else 0)
        if self.control & _TELL:
            self.raise_irq()

    def _begin_bytes(self, chip: Chip, kind: int, reads: bool) -> None:
        """A block byte by byte: the host takes, or gives, one and acknowledges it. (A block of I2C is always one to
        read; writing one is a block of SMBus in another mode.)"""
        self.reading = reads
        if not reads:
            self.stream = bytearray([self.block_data])
            self._ends(_BYTE_DONE)
            return
        found = chip.read(self.command if kind == _BLOCK else self.data_1, _MOST)
        if found is None:
            self._ends(_NO_ANSWER)
            return
        self.stream = bytearray(found)
        if kind == _BLOCK:
            self.data_0 = len(found)
        self._give_byte(self.stream)
        self._ends(_BYTE_DONE)

    def _give_byte(self, stream: bytearray) -> None:
        """The next one; the host may have said that it is the last that it wants."""
        self.block_data = stream.pop(0)
        if self.control & _LAST_BYTE:
            stream.clear()

    def _go_on(self) -> None:
        """The host has acknowledged a byte."""
        chip, stream = self.chips.get(self.address >> 1), self.stream
        if chip is None or stream is None:
            return
        if self.reading:
            over = not stream
            if not over:
                self._give_byte(stream)
        else:
            over = len(stream) >= min(self.data_0, _MOST)
            if over:
                chip.write(self.command, bytes(stream))
            else:
                stream.append(self.block_data)
        if over:
            self.stream = None
        self._ends(_DONE if over else _BYTE_DONE)

    def _carry_out(self, chip: Chip, kind: int, reads: bool) -> bool:
        """One transaction; False: the chip did not answer."""
        if kind == _QUICK:
            return True
        if kind == _BYTE:
            return self._take(chip.read(0, 1)) if reads else chip.write(self.command, b"")
        if kind in _SIZES:
            size = _SIZES[kind]
            if reads:
                return self._take(chip.read(self.command, size))
            return chip.write(self.command, bytes([self.data_0, self.data_1])[:size])
        if kind == _CALL:
            sent = chip.write(self.command, bytes([self.data_0, self.data_1]))
            return sent and self._take(chip.read(self.command, 2))
        if kind == _BLOCK and not reads:
            return chip.write(self.command, bytes(self.block[: min(self.data_0, _MOST)]))
        if kind in (_BLOCK, _I2C_BLOCK):
            found = chip.read(self.command if kind == _BLOCK else self.data_1, _MOST)
            if found is not None:
                self.block[: len(found)], self.data_0, self.place = found, len(found), 0
            return found is not None
        return False

    def _take(self, data: bytes | None) -> bool:
        if data is None:
            return False
        self.data_0, self.data_1 = data[0], data[1] if len(data) > 1 else self.data_1
        return True

    def capture(self) -> Any:
        """The chips' registers belong to the state."""
        kept = tuple((chip, own_state.take(chip, frozenset())) for chip in self.chips.values())
        return super().capture(), dict(self.chips), kept

    def restore(self, state: Any) -> None:
        """As at ``capture``."""
        function, chips, kept = state
        super().restore(function)
        self.chips = dict(chips)
        for chip, own in kept:
            own_state.put_back(chip, frozenset(), own)
