"""The PCI bus of the board: a host bridge with both ways to configuration space (ports 0xCF8/0xCFC, and memory: ECAM),
the windows in which functions answer, and where their interrupts go.

The bus always has the two functions of a bare Q35 board: its host bridge and its ISA bridge. They are known by their
numbers only and do nothing. Intel Q35 Express and ICH9 data sheets; PCI Express Base Specification 5.0, 7.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kobox.machine.pci_config import HEADER_TYPE
from kobox.machine.pci_function import Identity, PciFunction

ECAM_BASE, ECAM_SIZE, BUSES = 0xE000_0000, 16 << 20, 16
WINDOW_BASE, WINDOW_END = 0xE100_0000, 0xFEC0_0000
"""Addresses for base address registers."""
PORT_WINDOW_BASE, PORT_WINDOW_END = 0x1000, 0x1_0000
ADDRESS_PORT, DATA_PORT = 0xCF8, 0xCFC
FIRST_LINE, LINES = 16, 8
"""Lines of the I/O APIC that interrupts of PCI come in at."""
_ENABLE = 1 << 31
_MESSAGE_BASE, _MESSAGE_END = 0xFEE0_0000, 0xFEF0_0000

_HOST_BRIDGE = Identity(0x8086, 0x29C0, 0x060000, 0x1AF4, 0x1100)
_ISA_BRIDGE = Identity(0x8086, 0x2918, 0x060100, 0x1AF4, 0x1100, 2)
_HOST_SLOT, _ISA_SLOT = 0, 0x1F << 3
_ISA_POWER_BASE, _ISA_POWER_CONTROL, _ISA_ROOT_COMPLEX = 0x40, 0x44, 0xF0
_ROOT_COMPLEX_BASE = 0xFED1_C000
_POWER_ENABLED, _MULTIFUNCTION = 0x80, 0x80


class Wires(NamedTuple):
    """What the bus is connected to."""

    memory_view: Callable[[int, int, bool], memoryview | None]
    deliver: Callable[[int], None]
    """An interrupt vector for the CPU."""
    set_line: Callable[[int, bool], None]
    """A line of the I/O APIC."""
    post: Callable[[Callable[[], None]], None]
    """Work for when the guest stands still."""
    alarm: Callable[[int, Callable[[], None]], None]
    """Work for a virtual time."""
    now: Callable[[], int]


class BusState(NamedTuple):
    """What a reset puts back: which functions were there, and how they were."""

    address: int
    functions: tuple[tuple[int, PciFunction, Any], ...]


class _Region(NamedTuple):
    start: int
    end: int
    function: PciFunction
    bar: int


class PciBus:
    """Bus 0. ``functions``: by device and function number (device * 8 + function)."""

    def __init__(self, wires: Wires, power_base: int) -> None:
        self._wires = wires
        self._address = 0
        self.functions: dict[int, PciFunction] = {}
        self._memory: list[_Region] = []
        self._ports: list[_Region] = []
        self._lines: dict[int, set[int]] = {}
        """Line of the I/O APIC: identities of the functions that hold it."""
        host, isa = PciFunction(_HOST_BRIDGE), PciFunction(_ISA_BRIDGE)
        isa.config.put(_ISA_POWER_BASE, 4, power_base | 1)
        isa.config.put(_ISA_POWER_CONTROL, 1, _POWER_ENABLED)
        isa.config.put(_ISA_ROOT_COMPLEX, 4, _ROOT_COMPLEX_BASE | 1)
        isa.config.put(HEADER_TYPE, 1, _MULTIFUNCTION)
        for slot, function in ((_HOST_SLOT, host), (_ISA_SLOT, isa)):
            self.insert(function, slot)

    # -- plugging -------------------------------------------------------------------------------------------------

    def free_slot(self) -> int:
        """The first device number without a function, as a slot; ``ValueError`` when all are taken."""
        for number in range(1, 31):
            if not any(slot >> 3 == number for slot in self.functions):
                return number << 3
        raise ValueError("all 30 slots of the PCI bus are taken")

    def insert(self, function: PciFunction, slot: int) -> None:
        """A function is there from now on; nobody is told."""
        function.board = self
        self.functions[slot] = function
        self.remap()

    def remove(self, function: PciFunction) -> None:
        """A function is gone: its addresses read as ones, its line falls."""
        slot = next(slot for slot, found in self.functions.items() if found is function)
        self.set_line(function, False)
        del self.functions[slot]
        function.board = None
        self.remap()

    def capture(self) -> BusState:
        """The bus and everything on it, to go back to."""
        functions = tuple((slot, function, function.capture()) for slot, function in self.functions.items())
        return BusState(self._address, functions)

    def restore(self, state: BusState) -> None:
        """Functions that came since are gone, and those that went are there again."""
        for function in self.functions.values():
            function.board = None
        for line in self._lines:
            self._wires.set_line(line, False)
        self._lines.clear()
        self.functions = {slot: function for slot, function, _ in state.functions}
        self._address = state.address
        for _, function, kept in state.functions:
            function.board = self
            function.restore(kept)
        self.remap()
        for function in self.functions.values():
            self.set_line(function, function.line_asserted)

    def save(self) -> dict[str, Any]:
        """The board's own functions as JSON has them; others are not kept on disk."""
        own = {str(slot): self.functions[slot].config.data.hex() for slot in (_HOST_SLOT, _ISA_SLOT)}
        return {"address": self._address, "config": own}

    def load(self, saved: dict[str, Any]) -> None:
        """As at ``save``."""
        self._address = saved["address"]
        for slot, data in saved["config"].items():
            self.functions[int(slot)].config.data[:] = bytes.fromhex(data)

    def plugged(self) -> list[PciFunction]:
        """Functions that are not the board's own."""
        return [function for slot, function in self.functions.items() if slot not in (_HOST_SLOT, _ISA_SLOT)]

    def name_of(self, function: PciFunction) -> str:
        """Its address as software writes it: ``0000:00:02.0``."""
        slot = next(slot for slot, found in self.functions.items() if found is function)
        return f"0000:00:{slot >> 3:02x}.{slot & 7}"

    # -- configuration space --------------------------------------------------------------------------------------

    def port_read(self, port: int, size: int) -> int:
        """Ports 0xCF8 to 0xCFF."""
        if port < DATA_PORT:
            return self._address >> 8 * (port - ADDRESS_PORT) & (1 << 8 * size) - 1
        if not self._address & _ENABLE:
            return (1 << 8 * size) - 1
        return self._read_config(self._address >> 8 & 0xFFFF, (self._address & 0xFC) + port - DATA_PORT, size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """The address is written as a whole; parts of it are other registers."""
        if port == ADDRESS_PORT and size == 4:
            self._address = value & 0x80FF_FFFC
        elif port >= DATA_PORT and self._address & _ENABLE:
            self._write_config(self._address >> 8 & 0xFFFF, (self._address & 0xFC) + port - DATA_PORT, size, value)

    def ecam_read(self, offset: int, size: int) -> int:
        """A megabyte for each bus, 4096 bytes for each function."""
        return self._read_config(offset >> 12, offset & 0xFFF, size)

    def ecam_write(self, offset: int, size: int, value: int) -> None:
        """As ``ecam_read``."""
        self._write_config(offset >> 12, offset & 0xFFF, size, value)

    def _read_config(self, slot: int, offset: int, size: int) -> int:
        function = self.functions.get(slot)
        return (1 << 8 * size) - 1 if function is None else function.read_config(offset, size)

    def _write_config(self, slot: int, offset: int, size: int, value: int) -> None:
        function = self.functions.get(slot)
        if function is not None:
            function.write_config(offset, size, value)

    # -- the functions' own addresses -----------------------------------------------------------------------------

    def remap(self) -> None:
        """See which addresses lead where now."""
        memory: list[_Region] = []
        ports: list[_Region] = []
        for function in self.functions.values():
            for is_port, start, end, bar in function.decoded():
                (ports if is_port else memory).append(_Region(start, end, function, bar))
        self._memory, self._ports = memory, ports

    def memory_read(self, offset: int, size: int) -> int:
        """A read in the window, ``offset`` from its start."""
        address = WINDOW_BASE + offset
        for start, end, function, bar in self._memory:
            if start <= address < end:
                return function.read_region(bar, address - start, size)
        return (1 << 8 * size) - 1

    def memory_write(self, offset: int, size: int, value: int) -> None:
        """A write in the window."""
        address = WINDOW_BASE + offset
        for start, end, function, bar in self._memory:
            if start <= address < end:
                function.write_region(bar, address - start, size, value)
                return

    def io_read(self, port: int, size: int) -> int:
        """A read of a port that no device of the board has."""
        for start, end, function, bar in self._ports:
            if start <= port < end:
                return function.read_region(bar, port - start, size)
        return (1 << 8 * size) - 1

    def io_write(self, port: int, size: int, value: int) -> None:
        """A write to such a port."""
        for start, end, function, bar in self._ports:
            if start <= port < end:
                function.write_region(bar, port - start, size, value)
                return

    # -- what functions ask for -----------------------------------------------------------------------------------

    def memory_view(self, address: int, size: int, *, write: bool) -> memoryview | None:
        """See ``pci_function.Board``."""
        return self._wires.memory_view(address, size, write)

    def post(self, work: Callable[[], None]) -> None:
        """See ``pci_function.Board``."""
        self._wires.post(work)

    def alarm(self, when: int, work: Callable[[], None]) -> None:
        """See ``pci_function.Board``."""
        self._wires.alarm(when, work)

    @property
    def now(self) -> int:
        """See ``pci_function.Board``."""
        return self._wires.now()

    def message(self, address: int, data: int) -> None:
        """A message for the local APIC is an interrupt; any other is a write to memory."""
        if _MESSAGE_BASE <= address < _MESSAGE_END:
            self._wires.deliver(data & 0xFF)
            return
        view = self._wires.memory_view(address, 4, True)
        if view is not None:
            view[:] = data.to_bytes(4, "little")

    def set_line(self, function: PciFunction, level: bool) -> None:
        """Lines are shared: one is up while any function holds it."""
        slot = next((slot for slot, found in self.functions.items() if found is function), None)
        pin = function.shape.pin
        if slot is None or not pin:
            return
        line = line_of(slot >> 3, pin)
        holders = self._lines.setdefault(line, set())
        before = bool(holders)
        (holders.add if level else holders.discard)(id(function))
        if bool(holders) != before:
            self._wires.set_line(line, level)


def line_of(device: int, pin: int) -> int:
    """The line of the I/O APIC where INTA (1) to INTD (4) of a device on bus 0 comes in; the firmware's tables say the
    same."""
    return FIRST_LINE + (device + pin - 1) % LINES
