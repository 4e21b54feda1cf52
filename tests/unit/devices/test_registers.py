"""Registers as declared fields: masks, handlers, accesses that take a part or several."""

from __future__ import annotations

import pytest

from kobox.devices.device import PciDevice
from kobox.devices.registers import Register
from kobox.machine.pci_function import Bar


class Lamp(PciDevice):
    """Eight registers' worth of everything."""

    device = 1
    bars = {0: Bar(64), 1: Bar(16, io=True)}  # noqa: RUF012
    plain = Register(0x00)
    fixed = Register(0x04, reset=0xCAFE, writable=0)
    events = Register(0x08, reset=0xFF, cleared=0x0F)
    wide = Register(0x10, 8)
    small = Register(0x18, 1)
    computed = Register(0x1C)
    port = Register(0, 2, bar=1)

    @computed.on_read
    def _read(self) -> int:
        return -self.plain

    @plain.on_write
    def _written(self, value: int) -> None:
        self.heard = value


class Bright(Lamp):
    """Has one more, and another first value."""

    fixed = Register(0x04, reset=0xBEEF, writable=0)
    more = Register(0x20)


@pytest.fixture
def lamp() -> Lamp:
    return Lamp()


def test_a_register_is_a_number_of_its_size(lamp: Lamp) -> None:
    lamp.small = 0x1FF
    assert lamp.small == 0xFF
    assert Lamp.small.offset == 0x18


def test_software_changes_what_it_may(lamp: Lamp) -> None:
    lamp.write_bar(0, 4, 4, 1)
    assert lamp.read_bar(0, 4, 4) == 0xCAFE
    lamp.write_bar(0, 8, 4, 0b0101)
    assert lamp.events == 0x0A, "ones clear the low four bits, the others take what is written"


def test_handlers_see_what_is_written_and_say_what_is_read(lamp: Lamp) -> None:
    lamp.write_bar(0, 0, 4, 5)
    assert (lamp.plain, lamp.heard) == (5, 5)
    assert lamp.read_bar(0, 0x1C, 4) == 0xFFFF_FFFB


def test_an_access_may_take_a_part_or_several(lamp: Lamp) -> None:
    lamp.write_bar(0, 0x14, 4, 0x1122_3344)
    assert lamp.wide == 0x1122_3344_0000_0000
    lamp.write_bar(0, 0x11, 1, 0xAB)
    assert lamp.read_bar(0, 0x10, 4) == 0xAB00
    lamp.plain = 0x0102_0304
    assert lamp.read_bar(0, 0, 8) == 0xCAFE_0102_0304
    lamp.write_bar(0, 0, 8, 0xFFFF_FFFF_0000_0009)
    assert (lamp.plain, lamp.fixed) == (9, 0xCAFE)
    lamp.write_bar(0, 9, 1, 0)
    assert lamp.events == 0xFF, "bytes that are not written clear nothing"
    lamp.write_bar(1, 0, 2, 7)
    assert lamp.port == 7


def test_where_no_register_is_zero_is_read(lamp: Lamp) -> None:
    lamp.write_bar(0, 0x30, 4, 1)
    assert lamp.read_bar(0, 0x30, 4) == 0
    assert (lamp.register_name(0, 0x31), lamp.register_name(0, 0x12)) == ("", "wide")


def test_a_class_adds_to_the_registers_of_its_base() -> None:
    bright = Bright()
    assert (bright.fixed, bright.events, bright.more) == (0xBEEF, 0xFF, 0)


def test_registers_that_overlap_are_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="first and second both lie at 0x2 of BAR 0"):

        class Wrong(PciDevice):
            device = 2
            first = Register(0)
            second = Register(2)


@pytest.mark.parametrize("name", ["config", "reset", "interrupt", "values"])
def test_a_register_does_not_hide_what_every_device_has(name: str) -> None:
    with pytest.raises(TypeError, match=f"a register cannot be called {name}"):
        type("Wrong", (PciDevice,), {"device": 2, name: Register(0)})


def test_names_that_begin_with_an_underscore_are_the_models_own(lamp: Lamp) -> None:
    own = {"_pending", "_table", "_identify", "_set_line", "_waiting", "_message", "_power_at"}
    assert not own & (set(dir(Lamp)) | set(vars(lamp)))


def test_a_reset_gives_every_register_its_first_value(lamp: Lamp) -> None:
    lamp.plain = 1
    state = lamp.capture()
    lamp.reset()
    assert (lamp.plain, lamp.fixed) == (0, 0xCAFE)
    lamp.heard = 3
    lamp.restore(state)
    assert lamp.plain == 1
    assert not hasattr(lamp, "heard"), "it came after"
