"""Who exports symbols in a running kernel: the image itself, and each module on its list, as the linking rules see
them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence

from kobox.kernel.demands import KernelExports
from kobox.kernel.guest import Guest, View
from kobox.kernel.modules import module_views, state_of
from kobox.ko.exports import FLAG_GPL_ONLY
from kobox.link import Export

_ROW = struct.Struct("<iii")


class ModuleExports:
    """What a loaded module exports, read from its tables in guest memory when first asked."""

    def __init__(self, guest: Guest, view: View) -> None:
        self._guest, self.view = guest, view
        self.name = view.text("name")
        self._table: dict[str, Export] | None = None

    @property
    def taints(self) -> int:
        return self.view["taints"]

    @property
    def unavailable(self) -> int:
        """As ``strong_try_module_get`` answers: EBUSY while it is being loaded, ENOENT while it goes."""
        state = state_of(self.view)
        if state == "coming":
            return errno.EBUSY
        return 0 if state == "live" else errno.ENOENT

    def export(self, name: str) -> Export | None:
        return self._exports().get(name)

    def names(self) -> list[str]:
        """Everything it exports."""
        return list(self._exports())

    def _exports(self) -> dict[str, Export]:
        if self._table is None:
            self._table = {export.name: export for export in self._read()}
        return self._table

    def _read(self) -> Iterator[Export]:
        view = self.view
        if self._guest.layouts.has("module", "flagstab"):  # one table, with a byte of flags for each symbol
            count = view["num_syms"]
            flags = self._guest.read(view["flagstab"], count) if count and view["flagstab"] else bytes(count)
            yield from self._read_table(view["syms"], view["crcs"], [bool(flag & FLAG_GPL_ONLY) for flag in flags])
            return
        # the plain table is searched first, so it is read last: it wins where both have a name
        yield from self._read_table(view["gpl_syms"], view["gpl_crcs"], [True] * view["num_gpl_syms"])
        yield from self._read_table(view["syms"], view["crcs"], [False] * view["num_syms"])

    def _read_table(self, table: int, crcs: int, gpl: Sequence[bool]) -> Iterator[Export]:
        count = len(gpl)
        guest = self._guest
        if not count:
            return
        size = guest.layouts.size("kernel_symbol")
        rows = guest.read(table, count * size)
        sums = guest.read(crcs, 4 * count) if crcs else b""
        for index in range(count):
            value, name, space = _ROW.unpack_from(rows, index * size)
            place = table + index * size
            namespace = guest.read_cstr(place + 8 + space).decode("latin-1") if space else ""
            crc = int.from_bytes(sums[index * 4 : index * 4 + 4], "little") if sums else None
            text = guest.read_cstr(place + 4 + name).decode("latin-1")
            yield Export(text, place + value & (1 << 64) - 1, gpl[index], namespace, crc)


class ExporterList:
    """The kernel and its modules, in the order of ``find_symbol``: the kernel first, then modules newest first."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.kernel = KernelExports(guest.image)
        self._known: dict[tuple[int, int, str], ModuleExports] = {}

    def all(self, skip: int = 0) -> list[KernelExports | ModuleExports]:
        """Everything that is formed; ``skip`` is the address of a ``struct module`` to leave out."""
        found: list[KernelExports | ModuleExports] = [self.kernel]
        known: dict[tuple[int, int, str], ModuleExports] = {}
        for view in module_views(self._guest):
            if view.address == skip or state_of(view) == "unformed":
                continue
            key = (view.address, view["syms"], view.text("name"))
            known[key] = self._known.get(key) or ModuleExports(self._guest, view)
            found.append(known[key])
        self._known = known
        return found

    def forget(self) -> None:
        """After a reset: modules may lie where others lay."""
        self._known.clear()
