"""A PCI bus without a CPU: configuration space, address registers, interrupts, and who may touch memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from kobox.machine import pci_config as cfg
from kobox.machine.pci_bus import ADDRESS_PORT, DATA_PORT, WINDOW_BASE, PciBus, Wires, line_of
from kobox.machine.pci_function import Bar, Identity, PciFunction

IDENTITY = Identity(0x1234, 0x5678, 0x020000, 0xAAAA, 0xBBBB, 7)
ONES = 0xFFFF_FFFF
MEMORY_AND_MASTER = cfg.COMMAND_MEMORY | cfg.COMMAND_MASTER


class Board:
    """A bus, RAM of 64 KiB, and notes of what reached the CPU."""

    def __init__(self) -> None:
        self.ram = bytearray(1 << 16)
        self.vectors: list[int] = []
        self.lines: list[tuple[int, bool]] = []
        self.posted: list[Callable[[], None]] = []
        self.bus = PciBus(
            Wires(
                self.view, self.vectors.append, lambda line, level: self.lines.append((line, level)),
                self.posted.append, lambda when, work: self.posted.append(work), lambda: 0,
            ),
            0x600,
        )  # fmt: skip

    def view(self, address: int, size: int, write: bool) -> memoryview | None:
        return memoryview(self.ram)[address : address + size] if address + size <= len(self.ram) else None

    def read(self, slot: int, offset: int, size: int = 4) -> int:
        return self.bus.ecam_read(slot << 12 | offset, size)

    def write(self, slot: int, offset: int, value: int, size: int = 4) -> None:
        self.bus.ecam_write(slot << 12 | offset, size, value)


class Scratch(PciFunction):
    """Remembers what is written to its BARs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(IDENTITY, {0: Bar(4096), 2: Bar(32, io=True), 4: Bar(1 << 20, wide=True)}, **options)
        self.words: dict[tuple[int, int], int] = {}

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        return self.words.get((bar, offset), 0)

    def write_bar(self, bar: int, offset: int, size: int, value: int) -> None:
        self.words[bar, offset] = value


@pytest.fixture
def board() -> Board:
    return Board()


def plugged(board: Board, **options: Any) -> tuple[Scratch, int]:
    function = Scratch(**options)
    slot = board.bus.free_slot()
    board.bus.insert(function, slot)
    return function, slot


def test_the_bare_board_has_two_bridges_and_nothing_else_answers(board: Board) -> None:
    found = {slot: board.read(slot, 0) for slot in range(256) if board.read(slot, 0) != ONES}
    assert found == {0: 0x29C0_8086, 0xF8: 0x2918_8086}
    assert board.bus.plugged() == []


def test_both_ways_lead_to_the_same_configuration_space(board: Board) -> None:
    _, slot = plugged(board)
    assert (board.read(slot, 0), board.read(slot, 8)) == (0x5678_1234, 0x0200_0007)
    board.bus.port_write(ADDRESS_PORT, 4, 1 << 31 | slot << 8 | cfg.SUBSYSTEM_VENDOR)
    assert board.bus.port_read(DATA_PORT, 4) == 0xBBBB_AAAA
    assert board.bus.port_read(DATA_PORT + 2, 2) == 0xBBBB
    board.bus.port_write(ADDRESS_PORT, 4, 1 << 31 | slot << 8 | cfg.INTERRUPT_LINE)
    board.bus.port_write(DATA_PORT, 1, 11)
    assert board.read(slot, cfg.INTERRUPT_LINE, 1) == 11
    board.bus.port_write(ADDRESS_PORT, 4, slot << 8)
    assert board.bus.port_read(DATA_PORT, 4) == ONES, "the address is not enabled"


def test_identity_cannot_be_written(board: Board) -> None:
    _, slot = plugged(board)
    for offset in (0, 8, cfg.SUBSYSTEM_VENDOR):
        before = board.read(slot, offset)
        board.write(slot, offset, ~before & ONES)
        assert board.read(slot, offset) == before


@pytest.mark.parametrize(("bar", "sized"), [(0, 0xFFFF_F000), (2, 0xFFFF_FFE1), (4, 0xFFF0_0004), (5, ONES), (1, 0)])
def test_ones_written_to_an_address_register_tell_its_size(board: Board, bar: int, sized: int) -> None:
    _, slot = plugged(board)
    board.write(slot, cfg.BAR_0 + 4 * bar, ONES)
    assert board.read(slot, cfg.BAR_0 + 4 * bar) == sized


def test_a_function_answers_where_software_has_put_it_while_it_may(board: Board) -> None:
    function, slot = plugged(board)
    board.write(slot, cfg.BAR_0, WINDOW_BASE + 0x3000)
    board.write(slot, cfg.BAR_0 + 8, 0x2000)
    board.bus.memory_write(0x3010, 4, 1)
    assert function.words == {}
    board.write(slot, cfg.COMMAND, cfg.COMMAND_MEMORY | cfg.COMMAND_IO, 2)
    board.bus.memory_write(0x3010, 4, 2)
    board.bus.io_write(0x2004, 1, 3)
    assert function.words == {(0, 0x10): 2, (2, 4): 3}
    assert board.bus.memory_read(0x3010, 4) == 2
    assert board.bus.io_read(0x2004, 1) == 3
    assert board.bus.memory_read(0x4000, 4) == ONES
    board.bus.remove(function)
    assert board.bus.memory_read(0x3010, 4) == ONES
    assert board.read(slot, 0) == ONES


def test_only_a_bus_master_touches_memory_and_only_memory(board: Board) -> None:
    function, slot = plugged(board)
    function.dma_write(0x100, b"lost")
    assert function.dma_read(0x100, 4) == b"\xff" * 4
    board.write(slot, cfg.COMMAND, MEMORY_AND_MASTER, 2)
    function.dma_write(0x100, b"here")
    assert bytes(board.ram[0x100:0x104]) == function.dma_read(0x100, 4) == b"here"
    function.dma_write(len(board.ram) - 2, b"over the end")
    assert function.dma_read(len(board.ram) - 2, 4) == b"\xff" * 4


def test_lines_are_shared_and_stay_up_while_anybody_holds_them(board: Board) -> None:
    first, slot = plugged(board, pin=1)
    second = Scratch(pin=1)
    board.bus.insert(second, slot + (8 << 3))
    line = line_of(slot >> 3, 1)
    assert line == line_of((slot >> 3) + 8, 1)
    first.interrupt()
    second.interrupt()
    first.lower_line()
    assert board.lines == [(line, True)]
    assert board.read(slot + 64, cfg.STATUS, 2) & cfg.STATUS_INTERRUPT
    board.write(slot + 64, cfg.COMMAND, cfg.COMMAND_NO_INTX, 2)
    assert board.lines == [(line, True), (line, False)]
    board.write(slot + 64, cfg.COMMAND, 0, 2)
    board.bus.remove(second)
    assert board.lines[2:] == [(line, True), (line, False)]


def test_a_message_needs_a_bus_master_and_is_an_interrupt_or_a_write(board: Board) -> None:
    function, slot = plugged(board, msi=True)
    at = board.read(slot, cfg.CAPABILITIES, 1)
    assert board.read(slot, at, 1) == 5
    board.write(slot, at + 4, 0xFEE0_0000)
    board.write(slot, at + 12, 0x41, 2)
    board.write(slot, at + 2, 1, 2)
    function.interrupt()
    assert board.vectors == []
    board.write(slot, cfg.COMMAND, MEMORY_AND_MASTER, 2)
    function.interrupt()
    assert board.vectors == [0x41]
    board.write(slot, at + 4, 0x200)
    function.interrupt()
    assert board.vectors == [0x41]
    assert bytes(board.ram[0x200:0x204]) == b"A\0\0\0"


def test_a_masked_vector_waits_in_the_pending_bits(board: Board) -> None:
    function, slot = plugged(board, msix=4)
    at = board.read(slot, cfg.CAPABILITIES, 1)
    assert board.read(slot, at, 1) == 0x11
    assert board.read(slot, at + 2, 2) == 3
    board.write(slot, cfg.BAR_0 + 4, WINDOW_BASE)
    board.write(slot, cfg.COMMAND, MEMORY_AND_MASTER, 2)
    board.write(slot, at + 2, 1 << 15, 2)
    for at_entry, word in enumerate((0xFEE0_0000, 0, 0x52)):
        board.bus.memory_write(2 * 16 + 4 * at_entry, 4, word)
    function.interrupt(2)
    assert (board.vectors, board.bus.memory_read(0x1000, 8)) == ([], 1 << 2)
    board.bus.memory_write(2 * 16 + 12, 4, 0)
    assert (board.vectors, board.bus.memory_read(0x1000, 8)) == ([0x52], 0)
    board.write(slot, at + 2, 1 << 15 | 1 << 14, 2)
    function.interrupt(2)
    assert board.vectors == [0x52]
    board.write(slot, at + 2, 1 << 15, 2)
    assert board.vectors == [0x52, 0x52]


def test_a_state_has_its_functions_and_their_registers(board: Board) -> None:
    kept, slot = plugged(board, pin=2, msix=2)
    board.write(slot, cfg.BAR_0, WINDOW_BASE + 0x3000)
    board.write(slot, cfg.COMMAND, cfg.COMMAND_MEMORY, 2)
    kept.interrupt()
    state = board.bus.capture()
    for _ in range(2):
        newer, _ = plugged(board)
        board.write(slot, cfg.COMMAND, 0, 2)
        kept.lower_line()
        board.bus.remove(kept)
        board.bus.restore(state)
        assert board.bus.plugged() == [kept]
        assert newer.board is None
        assert board.read(slot, cfg.COMMAND, 2) == cfg.COMMAND_MEMORY
        board.bus.memory_write(0x3000, 4, 9)
        assert kept.words == {(0, 0): 9}
        assert board.lines[-1] == (line_of(slot >> 3, 2), True)


def test_the_boards_own_functions_are_kept_as_json(board: Board) -> None:
    board.write(0xF8, cfg.INTERRUPT_LINE, 5, 1)
    other = Board()
    other.bus.load(board.bus.save())
    assert other.read(0xF8, cfg.INTERRUPT_LINE, 1) == 5


@pytest.mark.parametrize("size", [0, 3000, 8])
def test_sizes_that_no_address_register_can_have_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        PciFunction(IDENTITY, {0: Bar(size)})


def test_capabilities_end_where_configuration_space_does() -> None:
    function = PciFunction(IDENTITY)
    for _ in range(24):
        function.config.add_capability(9, struct.pack("<IH", 0, 0))
    with pytest.raises(ValueError, match="no room"):
        function.config.add_capability(9, b"")
