"""What a kernel's build decides about linking modules: sizes of structures and a few configuration choices.

All of it is data of the kernel at hand (its BTF and its configuration); nothing here knows a release. The sizes for the
case without any kernel come from ``sizes.json``, which says what it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

PAGE_SIZE = 4096


class Rules(NamedTuple):
    """The kernel's side of linking.

    ``memories``: the kernel keeps a module in seven typed memories (``struct module_memory``) instead of one core and
    one init layout; such kernels also insist on exactly one ``this_module`` of the right size and check symbols' taints
    in another order.
    ``name_offset``: of ``module.name``, or None when unknown.
    ``size_offsets``: of the sizes in ``struct module`` that planning adds to, by region; the file may bring some.
    ``sizes``: size in bytes by structure name.
    ``orc_terminator_mask``: the bits of an ORC entry's last two bytes that are all zero in an entry that ends a range.
    """

    strict_rwx: bool = True
    kallsyms_all: bool = True
    modversions: bool = True
    module_unload: bool = True
    force_load: bool = True
    livepatch: bool = True
    allow_missing_namespace: bool = False
    memories: bool = False
    name_offset: int | None = None
    orc_terminator_mask: int = 0
    sizes: Mapping[str, int] = MappingProxyType({})
    size_offsets: Mapping[str, int] = MappingProxyType({})

    @classmethod
    def of(
        cls,
        sizes: Mapping[str, int],
        config: Mapping[str, str],
        *,
        memories: bool = False,
        name_offset: int | None = None,
        orc_terminator_mask: int = 0,
        size_offsets: Mapping[str, int] | None = None,
    ) -> Rules:
        """Rules of a kernel with these structure ``sizes`` and ``CONFIG_*`` values (``{"CONFIG_SMP": "y"}``)."""

        def on(name: str) -> bool:
            return config.get(f"CONFIG_{name}") == "y"

        return cls(
            strict_rwx=on("STRICT_MODULE_RWX"),
            kallsyms_all=on("KALLSYMS_ALL"),
            modversions=on("MODVERSIONS"),
            module_unload=on("MODULE_UNLOAD"),
            force_load=on("MODULE_FORCE_LOAD"),
            livepatch=on("LIVEPATCH"),
            allow_missing_namespace=on("MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS"),
            memories=memories,
            name_offset=name_offset,
            orc_terminator_mask=orc_terminator_mask,
            sizes=sizes,
            size_offsets=size_offsets or {},
        )

    def page_align(self, size: int) -> int:
        """``size`` rounded up to a page where the kernel separates code from data, else as it is."""
        return (size + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1) & 0xFFFFFFFF if self.strict_rwx else size


@cache
def default_rules() -> Rules:
    """Rules for linking without a kernel at hand, from the data file beside this module."""
    data = json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))
    return Rules(name_offset=data["name_offset"], orc_terminator_mask=data["orc_terminator_mask"], sizes=data["sizes"])
