"""Module parameters: what ``.modinfo`` says about them for people, and ``__param`` for the kernel.

``parm=name:text`` and ``parmtype=name:type`` describe; an entry of ``__param`` (the kernel's ``struct kernel_param``)
is four relocated pointers around permission, level and flags.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kobox.elf import ElfFile
from kobox.errors import BadFile
from kobox.ko.modinfo import ModInfo
from kobox.ko.pointers import Pointers

UNSAFE: Final = 1
HWPARAM: Final = 2
_FLAG_NAMES: Final = {UNSAFE: "unsafe", HWPARAM: "hwparam"}
_PERM_LEVEL_FLAGS: Final = {order: Struct(f"{order}HbB") for order in "<>"}


class Param(NamedTuple):
    """One parameter. ``None`` stands for what the file does not say; without ``ops`` it is only described."""

    name: str
    type: str | None
    description: str | None
    perm: int | None = None
    ops: str | None = None
    """The kernel's ``param_ops_*`` symbol, or the module's own."""
    level: int | None = None
    flags: int = 0
    arg: str | None = None
    """The variable (or array or string descriptor) that it sets."""

    @property
    def is_unsafe(self) -> bool:
        """Setting it taints the kernel."""
        return bool(self.flags & UNSAFE)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """``unsafe``, ``hwparam``, and the number of any other bit."""
        return tuple(_FLAG_NAMES.get(1 << bit, hex(1 << bit)) for bit in range(8) if self.flags >> bit & 1)


def read_params(elf: ElfFile, modinfo: ModInfo) -> tuple[Param, ...]:
    """Parameters in ``__param``'s order, then those that ``.modinfo`` describes and ``__param`` lacks."""
    types = _by_name(modinfo.get_all("parmtype"))
    texts = _by_name(modinfo.get_all("parm"))
    found = _from_section(elf, types, texts)
    known = {param.name for param in found}
    described = [name for name in dict.fromkeys((*texts, *types)) if name not in known]
    return (*found, *(Param(name, types.get(name), texts.get(name)) for name in described))


def _by_name(entries: tuple[str, ...]) -> dict[str, str]:
    pairs = (entry.partition(":") for entry in reversed(entries))
    return {name: value for name, _, value in pairs}


def _from_section(elf: ElfFile, types: dict[str, str], texts: dict[str, str]) -> list[Param]:
    section = elf.alloc_section("__param")
    if section is None or not section.has_bytes or not section.size:
        return []
    pointer = elf.layout.bits // 8
    entry_size = 5 * pointer if pointer == 8 else 20
    raw = elf.bytes_of(section)
    pointers = Pointers(elf, section)
    form = _PERM_LEVEL_FLAGS[elf.layout.order]
    found = []
    for start in range(0, len(raw) - entry_size + 1, entry_size):
        name_slot = pointers.slots.get(start)
        if name_slot is None:
            raise BadFile(elf.name, f"__param+{start:#x}", "the name of a parameter has no relocation")
        name = pointers.string_at(name_slot)
        ops, arg = pointers.slots.get(start + 2 * pointer), pointers.slots.get(start + entry_size - pointer)
        fixed = start + 3 * pointer
        perm, level, flags = form.unpack(raw[fixed : fixed + form.size])
        found.append(
            Param(
                name=name,
                type=types.get(name),
                description=texts.get(name),
                perm=perm,
                ops=pointers.symbol_at(ops) if ops else None,
                level=level,
                flags=flags,
                arg=pointers.symbol_at(arg) if arg else None,
            )
        )
    return found
