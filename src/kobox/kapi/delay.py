"""``linux/delay.h``: busy waiting costs virtual time and nothing else."""

from __future__ import annotations

from kobox.abi.c import ulong
from kobox.abi.declare import ExportTable
from kobox.kernel.guest import Guest

delay = ExportTable("linux/delay.h")


@delay.export()
def __const_udelay(k: Guest, xloops: ulong) -> None:
    """``xloops`` is microseconds times 2**32 / 10**6. Follows arch/x86/lib/delay.c."""
    k.machine.clock.wait(xloops * 1_000_000_000 >> 32)


@delay.export()
def __udelay(k: Guest, usecs: ulong) -> None:
    k.machine.clock.wait(usecs * 1000)


@delay.export()
def __ndelay(k: Guest, nsecs: ulong) -> None:
    k.machine.clock.wait(nsecs)


@delay.export()
def __delay(k: Guest, loops: ulong) -> None:
    """Loops are counted in ticks of the time stamp counter."""
    k.machine.clock.wait(loops * 1_000_000 // k.pc.model.tsc_khz)
