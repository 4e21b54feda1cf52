"""One PCI function as its bus sees it: identity, base address registers, interrupts by line, MSI and MSI-X, bus-master
access to memory.

A device model derives from this and answers ``read_bar`` and ``write_bar``. PCI Local Bus Specification 3.0, chapter 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from kobox.machine import pci_config as cfg
from kobox.machine.pci_config import ConfigSpace
from kobox.machine.pci_tap import Tap

MSI, MSIX = 0x05, 0x11
_MSI_ENABLE, _MSI_64 = 1, 1 << 7
_MSIX_ENABLE, _MSIX_MASK_ALL = 1 << 15, 1 << 14
_ENTRY_SIZE, _ENTRY_MASKED = 16, 1
_PAGE = 4096
TapType = TypeVar("TapType", bound=Tap)


class Board(Protocol):
    """What a function reaches through its bus."""

    def memory_view(self, address: int, size: int, *, write: bool) -> memoryview | None:
        """The guest's RAM there, live; None where a part of it is no RAM. ``write``: it is about to change."""

    def message(self, address: int, data: int) -> None:
        """A write that is an interrupt (MSI)."""

    def set_line(self, function: PciFunction, level: bool) -> None:
        """The interrupt line of a function."""

    def remap(self) -> None:
        """Base addresses have changed, or whether they are decoded."""

    def remove(self, function: PciFunction) -> None:
        """A function is gone."""

    def post(self, work: Callable[[], None]) -> None:
        """Do this soon, when the guest stands still."""

    def alarm(self, when: int, work: Callable[[], None]) -> None:
        """Do this at a virtual time."""

    @property
    def now(self) -> int:
        """Virtual nanoseconds since power-on."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A range of addresses that a function answers to. ``size`` is a power of two, in bytes."""

    size: int
    io: bool = False
    wide: bool = False
    """64-bit: takes the next register, too."""
    prefetchable: bool = False

    def flags(self) -> int:
        """The bits below the address."""
        return 1 if self.io else (4 if self.wide else 0) | (8 if self.prefetchable else 0)

    def least(self) -> int:
        """The smallest block that the address space has."""
        return 4 if self.io else 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What the header says of a function. ``class_code`` is class, subclass and interface (24 bits)."""

    vendor: int
    device: int
    class_code: int
    subsystem_vendor: int = 0
    subsystem: int = 0
    revision: int = 0


class Shape(NamedTuple):
    """What makes a function, as ``PciFunction`` takes it."""

    identity: Identity
    bars: dict[int, Bar]
    pin: int
    msi: bool
    msix: int
    msix_bar: int


class PciFunction:
    """A function with its registers. ``bars``: by number of the register. ``msix``: how many vectors, in a BAR of their
    own, ``msix_bar``; ``msi``: whether it has one MSI vector; ``pin``: 1 to 4 for INTA to INTD, 0 for no line."""

    def __init__(
        self,
        identity: Identity,
        bars: dict[int, Bar] | None = None,
        *,
        pin: int = 0,
        msi: bool = False,
        msix: int = 0,
        msix_bar: int = 1,
        config_size: int = cfg.CONFIG_SIZE,
    ) -> None:
        self.config = ConfigSpace(config_size)
        self.bars = dict(bars or {})
        self.board: Board | None = None
        """The bus that it is plugged into."""
        self.line_level = False
        self.taps: list[Tap] = []
        """Who sees, and may change, what passes between this function and the machine."""
        self.shape = Shape(identity, dict(bars or {}), pin, msi, msix, msix_bar)
        self.__msi_at = self.__msix_at = 0
        self.__msix_bar, self.__table = msix_bar, bytearray()
        self.__pending = 0
        """Vectors of MSI-X that wait for their mask to go, a bit for each."""
        self.__identify(identity, pin)
        if msix:
            self.__add_msix(msix)
        if msi:
            self.__msi_at = self.config.add_capability(MSI, struct.pack("<HQHH", _MSI_64, 0, 0, 0))
            self.config.allow(self.__msi_at + 2, 2, _MSI_ENABLE)
            self.config.allow(self.__msi_at + 4, 10, (1 << 80) - 4)
        for index, bar in self.bars.items():
            self.__add_bar(index, bar)

    def __identify(self, identity: Identity, pin: int) -> None:
        config = self.config
        config.put(cfg.VENDOR, 2, identity.vendor)
        config.put(cfg.DEVICE, 2, identity.device)
        config.put(cfg.REVISION, 1, identity.revision)
        config.put(cfg.CLASS, 3, identity.class_code)
        config.put(cfg.SUBSYSTEM_VENDOR, 2, identity.subsystem_vendor)
        config.put(cfg.SUBSYSTEM, 2, identity.subsystem)
        config.put(cfg.INTERRUPT_PIN, 1, pin)

    def __add_bar(self, index: int, bar: Bar) -> None:
        if bar.size < bar.least() or bar.size & bar.size - 1:
            raise ValueError(f"BAR {index} of {bar.size} bytes: must be a power of two, at least {bar.least()}")
        at = cfg.BAR_0 + 4 * index
        width = 8 if bar.wide else 4
        self.config.put(at, width, bar.flags())
        self.config.allow(at, width, -bar.size & (1 << 8 * width) - 1)

    def __add_msix(self, vectors: int) -> None:
        table_size = vectors * _ENTRY_SIZE
        pending_at = (table_size + _PAGE - 1) // _PAGE * _PAGE
        self.__table = bytearray(table_size)
        for entry in range(vectors):
            self.__table[entry * _ENTRY_SIZE + 12] = _ENTRY_MASKED
        self.bars[self.__msix_bar] = Bar(1 << (pending_at + _PAGE - 1).bit_length())
        body = struct.pack("<HII", vectors - 1, self.__msix_bar, pending_at | self.__msix_bar)
        self.__msix_at = self.config.add_capability(MSIX, body)
        self.config.allow(self.__msix_at + 2, 2, _MSIX_ENABLE | _MSIX_MASK_ALL)

    # -- what a model overrides -----------------------------------------------------------------------------------

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        """A read of 1, 2, 4 or 8 bytes."""
        return (1 << 8 * size) - 1

    def write_bar(self, bar: int, offset: int, size: int, value: int) -> None:
        """A write of 1, 2, 4 or 8 bytes."""

    def register_name(self, bar: int, offset: int) -> str:
        """What the model calls the register there; empty: it has no name."""
        return ""

    def reset_config(self) -> None:
        """What a reset of the function does here: no address, no command, no message is left."""
        config = self.config
        config.put(cfg.COMMAND, 2, 0)
        for index, bar in self.bars.items():
            config.put(cfg.BAR_0 + 4 * index, 8 if bar.wide else 4, bar.flags())
        for at in filter(None, (self.__msi_at, self.__msix_at)):
            config.put(at + 2, 2, config.get(at + 2, 2) & ~(_MSI_ENABLE | _MSIX_ENABLE | _MSIX_MASK_ALL))
        self.__pending = 0
        for entry in range(len(self.__table) // _ENTRY_SIZE):
            self.__table[entry * _ENTRY_SIZE + 12] |= _ENTRY_MASKED
        if self.board is not None:
            self.board.remap()

    def capture(self) -> Any:
        """What a reset of the kernel must put back; ``restore`` takes it."""
        config = self.config
        return bytes(config.data), bytes(self.__table), self.__pending, self.line_level

    def restore(self, state: Any) -> None:
        """Be as at ``capture``, which may be asked for again."""
        data, table, self.__pending, self.line_level = state
        self.config.data[:] = data
        self.__table[:] = table

    # -- what the bus asks ----------------------------------------------------------------------------------------

    def read_config(self, offset: int, size: int) -> int:
        """A read of configuration space by software."""
        return self.config.get(offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """A write to configuration space by software."""
        self.config.write(offset, size, value)
        if offset < cfg.INTERRUPT_LINE and self.board is not None:
            self.board.remap()
            self.board.set_line(self, self.line_asserted)
        if self.__msix_at <= offset < self.__msix_at + 4:
            self.__send_pending()

    def read_region(self, bar: int, offset: int, size: int) -> int:
        """A read in a BAR: of the MSI-X table, or of the model."""
        if bar != self.__msix_bar or not self.__table:
            value = self.read_bar(bar, offset, size) & (1 << 8 * size) - 1
            for tap in self.taps:
                value = tap.read(bar, offset, size, value)
            return value
        if offset < len(self.__table):
            return int.from_bytes(self.__table[offset : offset + size], "little")
        return self.__pending >> 8 * (offset % _PAGE) & (1 << 8 * size) - 1

    def write_region(self, bar: int, offset: int, size: int, value: int) -> None:
        """A write in a BAR."""
        if bar != self.__msix_bar or not self.__table:
            self.__write_tapped(bar, offset, size, value)
        elif offset < len(self.__table):
            self.__table[offset : offset + size] = value.to_bytes(size, "little")
            self.__send_pending()

    def __write_tapped(self, bar: int, offset: int, size: int, value: int) -> None:
        for tap in self.taps:
            passed = tap.write(bar, offset, size, value)
            if passed is None:
                return
            value = passed
        self.write_bar(bar, offset, size, value)

    @contextmanager
    def tapped(self, tap: TapType) -> Iterator[TapType]:
        """Have somebody between, inside a ``with`` block."""
        self.taps.append(tap)
        try:
            yield tap
        finally:
            self.taps.remove(tap)

    def decoded(self) -> list[tuple[bool, int, int, int]]:
        """(whether it is ports, first address, address behind, BAR) of each range that answers now."""
        found = []
        for index, bar in self.bars.items():
            wanted = cfg.COMMAND_IO if bar.io else cfg.COMMAND_MEMORY
            start = self.config.get(cfg.BAR_0 + 4 * index, 8 if bar.wide else 4) & ~(3 if bar.io else 15)
            if self.__command & wanted and start:
                found.append((bar.io, start, start + bar.size, index))
        return found

    @property
    def line_asserted(self) -> bool:
        """Whether it holds its line, which software can switch off."""
        return self.line_level and not self.__command & cfg.COMMAND_NO_INTX

    @property
    def __command(self) -> int:
        return self.config.get(cfg.COMMAND, 2)

    # -- interrupts -----------------------------------------------------------------------------------------------

    @property
    def uses_msix(self) -> bool:
        """Whether software has switched MSI-X on."""
        return bool(self.__table) and bool(self.config.get(self.__msix_at + 2, 2) & _MSIX_ENABLE)

    @property
    def uses_msi(self) -> bool:
        """Whether software has switched MSI on."""
        return bool(self.__msi_at) and bool(self.config.get(self.__msi_at + 2, 2) & _MSI_ENABLE)

    def interrupt(self, vector: int = 0) -> None:
        """Tell the CPU: a message where software has switched messages on (``vector`` of MSI-X), else the line goes up
        until ``lower_line``."""
        arrives = [tap.interrupt(vector) for tap in self.taps]
        if not all(arrives):
            return
        if self.uses_msix:
            self.__send_msix(vector)
        elif self.uses_msi:
            at = self.__msi_at
            self.__message(self.config.get(at + 4, 8), self.config.get(at + 12, 2))
        else:
            self.__set_line(True)

    def lower_line(self) -> None:
        """The reason for an interrupt by line is gone."""
        for tap in self.taps:
            tap.lower()
        self.__set_line(False)

    def __set_line(self, level: bool) -> None:
        self.line_level = level
        status = self.config.get(cfg.STATUS, 2) & ~cfg.STATUS_INTERRUPT
        self.config.put(cfg.STATUS, 2, status | (cfg.STATUS_INTERRUPT if level else 0))
        if self.board is not None:
            self.board.set_line(self, self.line_asserted)

    def __send_msix(self, vector: int) -> None:
        address, data, control = struct.unpack_from("<QII", self.__table, vector * _ENTRY_SIZE)
        if control & _ENTRY_MASKED or self.config.get(self.__msix_at + 2, 2) & _MSIX_MASK_ALL:
            self.__pending |= 1 << vector
        else:
            self.__message(address, data)

    def __send_pending(self) -> None:
        waiting, self.__pending = self.__pending, 0
        if waiting and self.uses_msix:
            for vector in range(len(self.__table) // _ENTRY_SIZE):
                if waiting >> vector & 1:
                    self.__send_msix(vector)

    def __message(self, address: int, data: int) -> None:
        """A message is a write to memory, which only a bus master may make."""
        if self.board is not None and self.__command & cfg.COMMAND_MASTER:
            self.board.message(address, data)

    # -- memory ---------------------------------------------------------------------------------------------------

    def dma_view(self, address: int, size: int, *, write: bool = False) -> memoryview | None:
        """The guest's RAM at a bus address, live, to be read, or written with ``write``. None where software has not
        made this a bus master, or where something else than RAM is."""
        if self.board is None or not self.__command & cfg.COMMAND_MASTER:
            return None
        for tap in self.taps:
            address = tap.dma(address, size, write)
        return self.board.memory_view(address, size, write=write)

    def dma_read(self, address: int, size: int) -> bytes:
        """Bytes from the guest's memory; all ones where nothing answers."""
        view = self.dma_view(address, size)
        data = b"\xff" * size if view is None else bytes(view)
        for tap in self.taps:
            tap.moved(address, data, False)
        return data

    def dma_write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Bytes to the guest's memory; lost where nothing answers."""
        view = self.dma_view(address, len(data), write=True)
        if view is not None:
            view[:] = data
        for tap in self.taps:
            tap.moved(address, bytes(data), True)
