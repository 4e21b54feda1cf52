"""What there is to say about an image: one record for ``kobox kernel show`` and ``list``, as text or JSON.

Boot results come from cache entries of kind ``boot`` whose facts name the image (``facts["image"] == image.key``): the
other facts, and the entry's ``boot.json`` if it has one. This room shows them, oldest first, and does not judge them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobox.image.cache import Cache
from kobox.image.image import KIND, Image
from kobox.image.store import Added, key_of

_MODULE_ENDS = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
BOOT_KIND, BOOT_FILE = "boot", "boot.json"

OPTIONS = (
    "SMP",
    "PREEMPT_RT",
    "PREEMPT_DYNAMIC",
    "MODVERSIONS",
    "MODULE_SIG",
    "MODULE_SIG_FORCE",
    "MODULE_FORCE_LOAD",
    "MODULE_UNLOAD",
    "SECURITY_LOCKDOWN_LSM",
    "LIVEPATCH",
    "KALLSYMS_ALL",
    "DEBUG_INFO_BTF_MODULES",
    "X86_KERNEL_IBT",
    "CFI_CLANG",
    "KASAN",
    "PROVE_LOCKING",
)
"""Options of the build that decide what a module meets."""


@dataclass(frozen=True, slots=True)
class BootRecord:
    """A boot snapshot in the cache: its key, bytes on disk, when it was made, and the boot's own report."""

    key: str
    size: int
    created: float
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list: ``modules`` counts files; ``ready``: the cache has the image; ``booted``: and a boot."""

    release: str
    kind: str
    source: str
    checked: str
    added: float
    modules: int
    cache_size: int
    ready: bool
    booted: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything about one image. Sizes are bytes; ``config`` maps the options of ``OPTIONS`` to values, ``n`` when not
    set; ``exports_by_namespace`` counts those outside the common one; ``kind`` is ``host`` when it was not added."""

    release: str
    banner: str
    vermagic: str
    build_id: str
    is_rt: bool
    kind: str
    source: str
    checked: str
    added: float | None
    root: str
    packing: str
    modules: str
    module_count: int
    symbols: int
    exports: int
    exports_gpl: int
    exports_with_crc: int
    exports_by_namespace: Mapping[str, int]
    types: int
    initcalls: int
    certificates_size: int
    memory_size: int
    cache_size: int
    key: str
    features: tuple[str, ...]
    config: Mapping[str, str]
    boots: tuple[BootRecord, ...]


def list_line(added: Added, cache: Cache) -> Listed:
    """What ``list`` says; opens nothing but manifests."""
    entry = cache.entry(KIND, key_of(added))
    boots = _boots(cache, key_of(added))
    size = (entry.size if entry else 0) + sum(boot.size for boot in boots)
    modules = _count(Path(added.modules)) if added.modules else 0
    return Listed(
        added.release,
        added.kind,
        added.source,
        added.checked,
        added.added,
        modules,
        size,
        entry is not None,
        bool(boots),
    )


def overview(image: Image, added: Added | None, cache: Cache) -> Overview:
    """What ``show`` says; takes some 50 ms, most of it for counting."""
    exports = list(image.exports.values())
    namespaces: dict[str, int] = {}
    for export in exports:
        if export.namespace:
            namespaces[export.namespace] = namespaces.get(export.namespace, 0) + 1
    entry = cache.entry(KIND, image.key)
    return Overview(
        release=image.release,
        banner=image.banner,
        vermagic=image.vermagic,
        build_id=image.build_id,
        is_rt=image.is_rt,
        kind=added.kind if added else "host",
        source=added.source if added else "",
        checked=added.checked if added else "",
        added=added.added if added else None,
        root=added.root if added else "",
        packing=str(image.facts["packing"]),
        modules=str(image.modules or ""),
        module_count=_count(image.modules) if image.modules else 0,
        symbols=len(image.symbols),
        exports=len(exports),
        exports_gpl=sum(export.gpl for export in exports),
        exports_with_crc=sum(export.crc is not None for export in exports),
        exports_by_namespace=dict(sorted(namespaces.items())),
        types=len(image.btf) - 1,
        initcalls=sum(1 for _ in image.initcalls()),
        certificates_size=len(image.certificates()),
        memory_size=image.layout.flat_size,
        cache_size=entry.size if entry else 0,
        key=image.key,
        features=tuple(sorted(image.features)),
        config={name: image.config.get(name, "n") for name in OPTIONS},
        boots=_boots(cache, image.key),
    )


def _boots(cache: Cache, key: str) -> tuple[BootRecord, ...]:
    found = []
    for entry in cache.entries():
        if entry.kind == BOOT_KIND and entry.facts.get("image") == key:
            report = {name: value for name, value in entry.facts.items() if name != "image"}
            with contextlib.suppress(OSError, ValueError):
                report |= json.loads((entry.path / BOOT_FILE).read_text())
            found.append(BootRecord(entry.key, entry.size, entry.created, report))
    return tuple(sorted(found, key=lambda boot: boot.created))


def _count(modules: Path) -> int:
    """Module files in a tree, packed or not."""
    return sum(name.endswith(_MODULE_ENDS) for _, _, names in os.walk(modules) for name in names)
