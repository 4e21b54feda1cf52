"""Unloading: the steps of ``delete_module``, the mirror of ``loader``. Follows kernel/module/main.c."""

from __future__ import annotations

import errno

from kobox.errors import Errno
from kobox.kernel.env import Result, Steps
from kobox.kernel.guest import View
from kobox.kernel.loader import GOING, Loader
from kobox.kernel.modules import find_module, state_of
from kobox.kernel.syscalls import Syscalls

O_TRUNC = 0o1000
_REF_BASE = 1
_TAINT_FORCED_RMMOD = 3
_NAME_LEN = 56


class Unloader:
    """Unloads modules from the guest of a loader."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._guest = loader.guest
        self._env = loader.env

    def unload(self, name: str, flags: int = 0) -> Result:
        """The system call: 0 or a negative errno. ``flags``: O_TRUNC forces."""
        guest = self._guest
        try:
            if guest.read_uint(guest.symbol("modules_disabled"), 4):
                raise Errno(errno.EPERM, "modules are disabled")
            if not 0 < len(name) < _NAME_LEN:
                raise Errno(errno.ENOENT, f"no module can have the name {name!r}")
            module = find_module(guest, name)
            if module is None:
                raise Errno(errno.ENOENT, f"{name} is not loaded")
            if not self._env.list_empty(module.at("source_list")):
                raise Errno(errno.EAGAIN, f"{name} is used by other modules")
            if state_of(module) != "live":
                raise Errno(errno.EBUSY, f"{name} is {state_of(module)}")
            if module["init"] and not module["exit"] and not (yield from self._force(flags)):
                raise Errno(errno.EBUSY, f"{name} has no exit function: it is permanent")
            yield from self._stop(module, flags)
        except Errno as refusal:
            return -refusal.number
        if module["exit"]:
            yield (module["exit"],)
        self._loader.tell_exited()
        yield from self._loader._notify(module, GOING)
        yield (guest.symbol("klp_module_going"), module.address)
        yield (guest.symbol("ftrace_release_mod"), module.address)
        yield (guest.symbol("async_synchronize_full"),)
        yield from self._remember(module)
        yield from self._loader.free(module)
        yield from self._loader._wake_waiters()
        return 0

    def _stop(self, module: View, flags: int) -> Steps:
        """Drop the reference that says "may stay"; someone else's keeps it alive unless forced."""
        left = module["refcnt"] - _REF_BASE
        if left < 0:
            yield self._own_call(module.text("name"), flags)  # the kernel has BUG_ON here: let its own code say so
        if left:
            if not (yield from self._force(flags)):
                raise Errno(errno.EAGAIN, f"{module.text('name')} is in use")
        else:
            module["refcnt"] = left
        self._loader._set_state(module, GOING)

    def _own_call(self, name: str, flags: int) -> tuple[int, int]:
        """The guest call that makes the kernel's own system call; the name lies behind the registers it reads."""
        guest = self._guest
        entry, regs = Syscalls(guest).prepare("delete_module", 0, flags)
        place = regs + guest.layouts.size("pt_regs")
        guest.write(place, name.encode("latin-1") + b"\0")
        guest.write_uint(regs + guest.layouts.offset("pt_regs", "di"), place)
        return entry, regs

    def _force(self, flags: int) -> Result:
        if not flags & O_TRUNC:
            return 0
        yield from self._env.taint(_TAINT_FORCED_RMMOD, lockdep_off=True)
        return 1

    def _remember(self, module: View) -> Steps:
        """What oops reports call the last unloaded module: its name and flags."""
        guest = self._guest
        place = guest.symbols.get("last_unloaded_module")
        if place is None:
            return
        room = self._name_room()
        guest.write(place, module.text("name").encode("latin-1").ljust(room, b"\0"))
        buffer = self._env.scratch(bytes(64))
        yield (guest.symbol("module_flags"), module.address, buffer, 0)
        guest.write(place + room, guest.read_cstr(buffer, 32) + b"\0")

    def _name_room(self) -> int:
        """How much of ``last_unloaded_module`` is its name: the rest holds a letter for each taint flag, and four
        more.
        """
        guest = self._guest
        whole, table = guest.image.symbols.symbol("last_unloaded_module"), guest.symbols.get("taint_flags")
        if whole is None or table is None or not guest.layouts.has("taint_flag", "c_true"):
            return _NAME_LEN
        size, flags = guest.layouts.size("taint_flag"), 0
        while guest.read(table + flags * size, 1).isalpha():
            flags += 1
        room = whole.size - flags - 4
        return room if room in (_NAME_LEN, _NAME_LEN + 1) else _NAME_LEN
