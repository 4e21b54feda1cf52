"""``linux/uaccess.h``: user memory is the window through which Python passes buffers to a module's file operations."""

from __future__ import annotations

from collections.abc import Callable

from kobox.abi.c import bool_, int_, ulong, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest
from kobox.errors import GuestError
from kobox.machine.unicorn_abi import REG

_USER_END = (1 << 47) - 4096
_PAGE = 4096
_EFAULT = -14

TABLE = ExportTable("linux/uaccess.h")


@TABLE.export()
def _copy_from_user(k: BareGuest, to: void_p, source: void_p, size: ulong) -> ulong:
    """Returns how many bytes were not copied; those are zeroed."""
    data = _readable(k, source, size)
    k.write(to, data.ljust(size, b"\0"))
    return size - len(data)


@TABLE.export()
def _copy_to_user(k: BareGuest, to: void_p, source: void_p, size: ulong) -> ulong:
    """Returns how many bytes were not copied."""
    room = len(_readable(k, to, size))
    k.write(to, k.read(source, room))
    return size - room


@TABLE.export(fidelity=Fidelity.MODEL)
def __check_object_size(k: BareGuest, address: void_p, size: ulong, to_user: bool_) -> None:
    """Model: only memory of the heap is checked, and an overrun is a report, not the end of the task."""
    k.heap.check_range(address, size)


@TABLE.export(fidelity=Fidelity.MODEL)
def __copy_overflow(k: BareGuest, size: int_, count: ulong) -> None:
    """Model: the line of the warning, without its trace."""
    k.log.write(4, f"Buffer overflow detected ({size} < {count})!")


def _readable(k: BareGuest, address: int, size: int) -> bytes:
    """The bytes of a user range up to the first page that is not there."""
    parts = []
    while size > 0 and address < _USER_END:
        count = min(size, _PAGE - address % _PAGE)
        try:
            parts.append(k.read(address, count))
        except GuestError:
            break
        address, size = address + count, size - count
    return b"".join(parts)


def _get_user(size: int) -> Callable[[BareGuest], None]:
    """``__get_user_N``: address in rax; error in eax, value in rdx."""

    def handle(k: BareGuest) -> None:
        cpu = k.machine.cpu
        data = _readable(k, cpu.read(REG["rax"]), size)
        whole = len(data) == size
        cpu.write(REG["rdx"], int.from_bytes(data, "little") if whole else 0)
        cpu.write(REG["rax"], 0 if whole else _EFAULT & (1 << 64) - 1)

    return handle


def _put_user(size: int) -> Callable[[BareGuest], None]:
    """``__put_user_N``: address in rcx, value in rax; error in ecx."""

    def handle(k: BareGuest) -> None:
        cpu = k.machine.cpu
        address = cpu.read(REG["rcx"])
        whole = len(_readable(k, address, size)) == size
        if whole:
            k.write(address, (cpu.read(REG["rax"]) & (1 << 8 * size) - 1).to_bytes(size, "little"))
        cpu.write(REG["rcx"], 0 if whole else _EFAULT & 0xFFFF_FFFF)

    return handle


SPECIAL: dict[str, Callable[[BareGuest], None]] = {
    **{f"__get_user_{size}": _get_user(size) for size in (1, 2, 4, 8)},
    **{f"__put_user_{size}": _put_user(size) for size in (1, 2, 4, 8)},
}
"""Functions with a calling convention of their own."""
