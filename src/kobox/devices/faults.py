"""What goes wrong with hardware: taps that lose interrupts, hold bits, send DMA astray, or pull the device out."""

from __future__ import annotations

from kobox.machine.pci_function import PciFunction
from kobox.machine.pci_tap import Tap


class LostInterrupts(Tap):
    """``count`` interrupts do not arrive (None: none ever), after the first ``after`` have. ``lost`` counts them."""

    def __init__(self, count: int | None = None, *, after: int = 0) -> None:
        self._left, self._after, self.lost = count, after, 0

    def interrupt(self, vector: int) -> bool:
        """See ``Tap``."""
        if self._after:
            self._after -= 1
            return True
        if self._left is not None and self.lost >= self._left:
            return True
        self.lost += 1
        return False


class StuckBits(Tap):
    """Bits of a register always read as in ``value``, whatever the device says. ``register``: its declared name, or the
    offset in ``bar``."""

    def __init__(self, function: PciFunction, register: str | int, bits: int, value: int = 0, *, bar: int = 0) -> None:
        self._function, self._register, self._bits, self._value, self._bar = function, register, bits, value, bar

    def read(self, bar: int, offset: int, size: int, value: int) -> int:
        """See ``Tap``."""
        if isinstance(self._register, str):
            here = self._function.register_name(bar, offset) == self._register
        else:
            here = (bar, offset) == (self._bar, self._register)
        return value & ~self._bits | self._value & self._bits if here else value


class LostWrites(Tap):
    """Writes to BARs do not arrive: ``count`` of them (None: all), after the first ``after``."""

    def __init__(self, count: int | None = None, *, after: int = 0) -> None:
        self._left, self._after, self.lost = count, after, 0

    def write(self, bar: int, offset: int, size: int, value: int) -> int | None:
        """See ``Tap``."""
        if self._after:
            self._after -= 1
            return value
        if self._left is not None and self.lost >= self._left:
            return value
        self.lost += 1
        return None


class StrayDma(Tap):
    """Transfers go ``by`` bytes beside the address that they were for; only those ``to_ram``, or the others. Where no
    RAM is, reads give ones and writes are lost. ``strayed`` are the addresses that were meant."""

    def __init__(self, by: int, *, to_ram: bool = True) -> None:
        self._by, self._to_ram = by, to_ram
        self.strayed: list[int] = []

    def dma(self, address: int, size: int, write: bool) -> int:
        """See ``Tap``."""
        if write != self._to_ram:
            return address
        self.strayed.append(address)
        return max(0, address + self._by)


class PulledOut(Tap):
    """After ``after`` accesses of the driver the device is gone: reads give ones, writes and interrupts are lost, and
    configuration space does not answer. The kernel is told by ``kernel.unplug(device, surprise=True)``."""

    def __init__(self, function: PciFunction, after: int = 0) -> None:
        self._function, self._left = function, after
        self.gone = False

    def read(self, bar: int, offset: int, size: int, value: int) -> int:
        """See ``Tap``."""
        return (1 << 8 * size) - 1 if self._step() else value

    def write(self, bar: int, offset: int, size: int, value: int) -> int | None:
        """See ``Tap``."""
        return None if self._step() else value

    def interrupt(self, vector: int) -> bool:
        """See ``Tap``."""
        return not self.gone

    def _step(self) -> bool:
        if self._left <= 0 and not self.gone:
            self.gone = True
            if self._function.board is not None:
                self._function.board.post(self._take_away)
        self._left -= 1
        return self.gone

    def _take_away(self) -> None:
        if self._function.board is not None:
            self._function.board.remove(self._function)
