"""``linux/timer.h``, ``linux/jiffies.h`` and ``linux/delay.h``, on virtual time."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated

from kobox.abi.c import CType, char_p, fn_p, int_, uint, ulong, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest

_Void = Annotated[Generator[tuple[int, ...], int, None], CType("void", 0)]
_MODEL = Fidelity.MODEL

TABLE = ExportTable("linux/timer.h")


@TABLE.export()
def mod_timer(k: BareGuest, timer: void_p, expires: ulong) -> int_:
    return int(k.clock.start_timer(timer, expires))


@TABLE.export()
def add_timer(k: BareGuest, timer: void_p) -> None:
    k.clock.start_timer(timer, k.view("timer_list", timer)["expires"])


@TABLE.export(also=("timer_delete", "timer_shutdown_sync", "try_to_del_timer_sync"))
def timer_delete_sync(k: BareGuest, timer: void_p) -> int_:
    """No timer function can be running: they run to completion."""
    return int(k.clock.stop_timer(timer))


@TABLE.export(fidelity=_MODEL)
def init_timer_key(k: BareGuest, timer: void_p, function: fn_p, flags: uint, name: char_p, key: void_p) -> None:
    """Model: lock debugging has no part."""
    view = k.view("timer_list", timer)
    view["entry.next"] = view["entry.pprev"] = 0
    view["function"], view["flags"] = function, flags


@TABLE.export()
def jiffies_to_msecs(k: BareGuest, jiffies: ulong) -> uint:
    return jiffies * 1000 // k.clock.hz


@TABLE.export()
def jiffies_to_usecs(k: BareGuest, jiffies: ulong) -> uint:
    return jiffies * 1_000_000 // k.clock.hz


@TABLE.export()
def __msecs_to_jiffies(k: BareGuest, milliseconds: uint) -> ulong:
    """Rounded up; a negative number means for ever."""
    if milliseconds >> 31:
        return (1 << 62) - 2
    return -(-milliseconds * k.clock.hz // 1000)


@TABLE.export()
def __usecs_to_jiffies(k: BareGuest, microseconds: uint) -> ulong:
    return -(-microseconds * k.clock.hz // 1_000_000)


@TABLE.export(fidelity=_MODEL)
def msleep(k: BareGuest, milliseconds: uint) -> _Void:
    """Model: timers and work run meanwhile, on the sleeper's stack."""
    yield from k.clock.pass_time(milliseconds * 1_000_000)


@TABLE.export(fidelity=_MODEL)
def __udelay(k: BareGuest, microseconds: ulong) -> None:
    """Model: the time is over at once."""
    k.machine.clock.now += microseconds * 1000


@TABLE.export(fidelity=_MODEL)
def ktime_get(k: BareGuest) -> ulong:
    return k.machine.clock.now
