"""QEMU's teaching device ``edu`` (1234:11e8), by its documented registers (docs/specs/edu in QEMU): a number that is
answered inverted, a factorial, an interrupt, and a DMA engine with a buffer of 4 KiB.
"""

from __future__ import annotations

import math

from kobox.devices.device import PciDevice
from kobox.devices.registers import Register
from kobox.machine.pci_function import Bar

_COMPUTING, _TELL = 1, 0x80
_START, _TO_RAM, _TELL_DMA = 1, 2, 4
_FACTORIAL_DONE, _DMA_DONE = 1, 0x100
_BUFFER, _BUFFER_SIZE = 0x40000, 4096
_DMA_SECONDS, _FACTORIAL_SECONDS = 0.1, 0.000_01


class Edu(PciDevice):
    """``dma_mask``: which addresses it reaches (28 bits, as in QEMU)."""

    vendor, device, class_code, revision = 0x1234, 0x11E8, 0x00FF00, 0x10
    subsystem = (0x1AF4, 0x1100)
    bars = {0: Bar(1 << 20)}  # noqa: RUF012
    pin, msi = 1, True

    identification = Register(0x00, reset=0x0100_00ED, writable=0)
    liveness = Register(0x04)
    factorial = Register(0x08, writable=0)
    status = Register(0x20, writable=_TELL)
    interrupt_status = Register(0x24, writable=0)
    interrupt_raise = Register(0x60)
    interrupt_acknowledge = Register(0x64)
    dma_source = Register(0x80, 8)
    dma_destination = Register(0x88, 8)
    dma_count = Register(0x90, 8)
    dma_command = Register(0x98, 8)

    def __init__(self, dma_mask: int = (1 << 28) - 1) -> None:
        self.dma_mask = dma_mask
        self.buffer = bytearray(_BUFFER_SIZE)
        super().__init__()

    def reset(self) -> None:
        """See ``PciDevice``."""
        super().reset()
        self.buffer[:] = bytes(_BUFFER_SIZE)

    @liveness.on_write
    def _invert(self, value: int) -> None:
        self.liveness = ~value

    @factorial.on_write
    def _begin(self, value: int) -> None:
        if not self.status & _COMPUTING:
            self.status |= _COMPUTING
            self.after(_FACTORIAL_SECONDS, self._computed, value)

    def _computed(self, number: int) -> None:
        """In 32 bits, where every factorial from 34 on is 0."""
        self.factorial = math.factorial(number) if number < 34 else 0
        self.status &= ~_COMPUTING
        if self.status & _TELL:
            self._interrupt(_FACTORIAL_DONE)

    @interrupt_raise.on_write
    def _interrupt(self, why: int) -> None:
        self.interrupt_status |= why
        if self.interrupt_status:
            self.raise_irq()

    @interrupt_acknowledge.on_write
    def _acknowledge(self, why: int) -> None:
        self.interrupt_status &= ~why
        if not self.interrupt_status:
            self.lower_irq()

    @dma_command.on_write
    def _start(self, command: int) -> None:
        if command & _START:
            self.after(_DMA_SECONDS, self._transfer)

    def _transfer(self) -> None:
        """One way or the other; a range that the buffer does not have is not transferred."""
        to_ram = bool(self.dma_command & _TO_RAM)
        here, there = self.dma_source, self.dma_destination
        if not to_ram:
            here, there = there, here
        at, count = here - _BUFFER, self.dma_count
        if at >= 0 and at + count <= _BUFFER_SIZE:
            if to_ram:
                self.dma_write(there & self.dma_mask, self.buffer[at : at + count])
            else:
                self.buffer[at : at + count] = self.dma_read(there & self.dma_mask, count)
        self.dma_command &= ~_START
        if self.dma_command & _TELL_DMA:
            self._interrupt(_DMA_DONE)
