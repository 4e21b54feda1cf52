"""``linux/printk.h``."""

from __future__ import annotations

from kobox.abi.c import char_p, int_
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest
from kobox.bare.printf import render

TABLE = ExportTable("linux/printk.h")


@TABLE.export(fidelity=Fidelity.MODEL)
def _printk(k: BareGuest, fmt: char_p) -> int_:
    """Model: of the kernel's own ``%p`` extensions only symbols and strings of bytes are known."""
    text = render(k, k.read_cstr(fmt), k.variadic(1))
    k.log.printk(text)
    return len(text)


@TABLE.export(fidelity=Fidelity.MODEL)
def dump_stack(k: BareGuest) -> None:
    """Model: one line, without the trace."""
    k.log.write(4, f"dump_stack() of {k.symbol_text(k.caller())}")


@TABLE.export()
def __printk_ratelimit(k: BareGuest, function: char_p) -> int_:
    """Nothing is ever too much."""
    return 1
