"""``linux/miscdevice.h`` and the helpers of ``linux/fs.h`` that such a device uses."""

from __future__ import annotations

from kobox.abi.c import int_, long_, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest

TABLE = ExportTable("linux/miscdevice.h")


@TABLE.export(gpl=False, fidelity=Fidelity.MODEL)
def misc_register(k: BareGuest, device: void_p) -> int_:
    """Model: /dev has the device at once; there is no class in sysfs."""
    k.devices.register(device)
    return 0


@TABLE.export(fidelity=Fidelity.MODEL)
def misc_deregister(k: BareGuest, device: void_p) -> None:
    k.devices.unregister(device)


@TABLE.export()
def noop_llseek(k: BareGuest, file: void_p, offset: long_, whence: int_) -> long_:
    return k.view("file", file)["f_pos"]


@TABLE.export()
def nonseekable_open(k: BareGuest, inode: void_p, file: void_p) -> int_:
    """Clears what seeking, pread and pwrite need."""
    view = k.view("file", file)
    view["f_mode"] = view["f_mode"] & ~(0x4 | 0x8 | 0x10)
    return 0
