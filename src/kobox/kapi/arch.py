"""x86 functions behind which hardware would stand: clock calibration, patching of kernel text.

Text patching goes through kobox because translated code must be dropped with it. Clearing and copying pages is the
kernel's own: its unrolled loops take a twentieth of what a trap costs.
"""

from __future__ import annotations

from kobox.abi.c import fn_p, size_t, ulong, void_p
from kobox.abi.declare import ExportTable
from kobox.errors import GuestError
from kobox.kernel.guest import Guest

arch = ExportTable("asm/arch.h")


@arch.export()
def native_calibrate_tsc(k: Guest) -> ulong:
    """Ticks of the stated CPU, in kHz; there is no other clock to measure against."""
    return k.pc.model.tsc_khz


@arch.export()
def native_calibrate_cpu(k: Guest) -> ulong:
    return k.pc.model.tsc_khz


@arch.export()
def native_calibrate_cpu_early(k: Guest) -> ulong:
    return k.pc.model.tsc_khz


@arch.export()
def __text_poke(k: Guest, func: fn_p, addr: void_p, src: void_p, length: size_t) -> void_p:
    """Store code where the kernel would map the page a second time, writable. Follows arch/x86/kernel/alternative.c."""
    if func == k.symbols.get("text_poke_memset"):
        code = bytes([src & 0xFF]) * length
    else:
        code = k.read(src, length)
    k.machine.patch(addr, code)
    return addr


@arch.export(also=("text_poke_bp",))
def text_poke_queue(k: Guest, addr: void_p, opcode: void_p, length: size_t, emulate: void_p) -> None:
    """Store an instruction in one step. The kernel needs three, with a breakpoint in between, and collects many of
    them, for the sake of other CPUs; here nothing runs meanwhile. Follows arch/x86/kernel/alternative.c."""
    k.machine.patch(addr, k.read(opcode, length))


@arch.export()
def clear_bss(k: Guest) -> None:
    """Memory is zero at power-on."""


class Restarted(GuestError):
    """The guest gave the machine back to a firmware that is not there."""


@arch.export()
def native_machine_emergency_restart(k: Guest) -> None:
    """Every restart ends here, also that of a panic: the kernel is gone. Follows arch/x86/kernel/reboot.c."""
    raise Restarted("the kernel restarted the machine", hint="reset() it, or boot anew")
