"""``linux/list.h``: the checks of a kernel built with CONFIG_DEBUG_LIST. Follows lib/list_debug.c."""

from __future__ import annotations

from kobox.abi.c import bool_, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest

_POISON1, _POISON2 = 0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122

TABLE = ExportTable("linux/list.h")


@TABLE.export(fidelity=Fidelity.MODEL)
def __list_add_valid(k: BareGuest, new: void_p, prev: void_p, next: void_p) -> bool_:
    """Model: corruption is logged; there is no BUG."""
    if not prev or not next:
        return _corrupt(k, f"list_add corruption. {'next' if prev else 'prev'} is NULL.")
    before, after = k.read_uint(next + 8), k.read_uint(prev)
    if before != prev:
        return _corrupt(k, f"list_add corruption. next->prev should be prev ({prev:016x}), but was {before:016x}.")
    if after != next:
        return _corrupt(k, f"list_add corruption. prev->next should be next ({next:016x}), but was {after:016x}.")
    if new in (prev, next):
        return _corrupt(k, f"list_add double add: new={new:016x}, prev={prev:016x}, next={next:016x}.")
    return True


@TABLE.export(fidelity=Fidelity.MODEL)
def __list_del_entry_valid(k: BareGuest, entry: void_p) -> bool_:
    """Model: as ``__list_add_valid``."""
    after, before = k.read_uint(entry), k.read_uint(entry + 8)
    if not after or not before:
        return _corrupt(k, f"list_del corruption, {entry:016x}->{'prev' if after else 'next'} is NULL")
    if after == _POISON1 or before == _POISON2:
        which, value = ("next", "LIST_POISON1") if after == _POISON1 else ("prev", "LIST_POISON2")
        return _corrupt(k, f"list_del corruption, {entry:016x}->{which} is {value} ({after:016x})")
    if k.read_uint(before) != entry or k.read_uint(after + 8) != entry:
        return _corrupt(k, f"list_del corruption. the neighbours of {entry:016x} do not point to it.")
    return True


def _corrupt(k: BareGuest, text: str) -> bool:
    k.log.write(3, text)
    return False
