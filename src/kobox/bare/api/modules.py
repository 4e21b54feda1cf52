"""``linux/module.h``: references on modules."""

from __future__ import annotations

from kobox.abi.c import bool_, int_, void_p
from kobox.abi.declare import ExportTable
from kobox.bare.guest import BareGuest

TABLE = ExportTable("linux/module.h")


@TABLE.export()
def try_module_get(k: BareGuest, module: void_p) -> bool_:
    return k.modules.get(module)


@TABLE.export()
def __module_get(k: BareGuest, module: void_p) -> None:
    k.modules.get(module)


@TABLE.export()
def module_put(k: BareGuest, module: void_p) -> None:
    k.modules.put(module)


@TABLE.export()
def module_refcount(k: BareGuest, module: void_p) -> int_:
    return k.modules.references(module)
