"""The small devices behind fixed ports, asked as drivers ask them."""

from __future__ import annotations

from kobox.machine import isa

BASE = 0x3F8


class Board:
    def __init__(self) -> None:
        self.registers: isa.Registers = {}
        self.interrupts = 0
        self.now = 0
        self.pics = isa.Pics(lambda: self.registers)
        self.serial = isa.Serial(BASE, lambda: self.registers, self.ring)
        self.power = isa.Power(lambda: self.registers, lambda: self.now)

    def ring(self) -> None:
        self.interrupts += 1


def test_the_interrupt_controllers_are_found_and_keep_their_masks_behind_an_initialisation() -> None:
    pics = Board().pics
    pics.port_write(0x21, 1, 0xFB)
    assert pics.port_read(0x21, 1) == 0xFB
    for value, port in ((0x11, 0x20), (0x30, 0x21), (0x04, 0x21), (0x01, 0x21)):
        pics.port_write(port, 1, value)
    assert pics.port_read(0x21, 1) == 0
    pics.port_write(0x21, 1, 0xFF)
    assert pics.port_read(0x21, 1) == 0xFF
    assert pics.port_read(0x20, 1) == 0


def test_a_driver_finds_a_serial_port_with_fifos() -> None:
    serial = Board().serial
    serial.port_write(BASE + 1, 1, 0x0F)
    assert serial.port_read(BASE + 1, 1) == 0x0F
    serial.port_write(BASE + 1, 1, 0)
    serial.port_write(BASE + 4, 1, 0x1A)  # loopback with RTS and the second output
    assert serial.port_read(BASE + 6, 1) & 0xF0 == 0x90
    serial.port_write(BASE + 4, 1, 0)
    assert serial.port_read(BASE + 6, 1) & 0xB0 == 0xB0
    serial.port_write(BASE + 2, 1, 1)
    assert serial.port_read(BASE + 2, 1) == 0xC1
    assert serial.port_read(BASE + 5, 1) == 0x60


def test_the_divisor_lies_behind_the_latch_bit() -> None:
    serial = Board().serial
    serial.port_write(BASE + 3, 1, 0x83)
    serial.port_write(BASE, 1, 0x01)
    assert serial.port_read(BASE, 1) == 0x01
    serial.port_write(BASE + 3, 1, 0x03)
    assert serial.port_read(BASE, 1) == 0
    assert serial.port_read(BASE + 3, 1) == 0x03


def test_an_empty_transmitter_interrupts_whoever_asked_to_be_told() -> None:
    board = Board()
    serial = board.serial
    serial.port_write(BASE, 1, ord("x"))
    assert board.interrupts == 0
    serial.port_write(BASE + 1, 1, 2)
    assert board.interrupts == 1
    assert serial.port_read(BASE + 2, 1) & 0xF == 2
    assert serial.port_read(BASE + 2, 1) & 0xF == 1, "reading why takes it back"
    serial.port_write(BASE, 1, ord("y"))
    assert board.interrupts == 2


def test_acpi_is_enabled_and_nothing_ever_happens() -> None:
    power = Board().power
    power.port_write(isa.POWER_CONTROL, 2, 0)
    assert power.port_read(isa.POWER_CONTROL, 2) & 1
    power.port_write(isa.POWER_EVENT, 2, 0xFFFF)
    power.port_write(isa.POWER_EVENT + 2, 2, 0x0120)
    assert power.port_read(isa.POWER_EVENT, 2) == 0
    assert power.port_read(isa.POWER_EVENT + 2, 2) == 0x0120
    power.port_write(isa.GENERAL_EVENT, 1, 0xFF)
    assert power.port_read(isa.GENERAL_EVENT, 1) == 0


def test_the_power_timer_counts_at_its_rate_and_wraps_at_24_bits() -> None:
    board = Board()
    board.now = 1_000_000_000
    assert board.power.port_read(isa.POWER_TIMER, 4) == isa.POWER_TIMER_HZ
    board.now = 10_000_000_000
    assert board.power.port_read(isa.POWER_TIMER, 4) == 10 * isa.POWER_TIMER_HZ & 0xFF_FFFF
