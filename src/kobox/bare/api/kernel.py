"""``linux/kernel.h`` and ``asm/bug.h``: what code calls when something is wrong."""

from __future__ import annotations

from kobox.abi.c import char_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest
from kobox.bare.printf import render

_CUT_HERE = "------------[ cut here ]------------"

TABLE = ExportTable("linux/kernel.h")


@TABLE.export()
def __warn_printk(k: BareGuest, fmt: char_p) -> None:
    """The message of a WARN; its invalid instruction comes next."""
    k.log.write(4, _CUT_HERE)
    k.log.printk(b"\x014" + render(k, k.read_cstr(fmt), k.variadic(1)))


@TABLE.export()
def panic(k: BareGuest, fmt: char_p) -> None:
    k.panic(render(k, k.read_cstr(fmt), k.variadic(1)).decode("utf-8", "surrogateescape").rstrip("\n"))


@TABLE.export(fidelity=Fidelity.MODEL)
def __stack_chk_fail(k: BareGuest) -> None:
    """Model: without the trace before the panic."""
    k.panic(f"stack-protector: Kernel stack is corrupted in: {k.symbol_text(k.caller() - 1)}")


@TABLE.export(fidelity=Fidelity.MODEL)
def fortify_panic(k: BareGuest, name: char_p) -> None:
    """Model: ends the kernel, where a real one has a BUG."""
    k.panic(f"detected buffer overflow in {k.read_cstr(name).decode('latin-1')}")
