"""A distribution's kernel: from ``vmlinuz`` to mapped tables, and the cache they lie in.

``open_image(release_or_path)`` gives an ``Image``: ``symbols``, ``exports``, ``btf``, ``config``, ``layout``, the flat
kernel. ``Cache`` serves other rooms too. What runs in the kernel is not this room's business.

A name is imported from its file when it is first asked for: who wants one reader does not pay for all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kobox.image.btf import Btf, Kind, Member, Type, module_btf
    from kobox.image.cache import Cache, Entry, data_root, default_root
    from kobox.image.config import Config
    from kobox.image.exports import Export, Exports
    from kobox.image.image import Image
    from kobox.image.store import Added, add_image, find_image, list_images, look_for_kernel, open_image, remove_image
    from kobox.image.symbols import Located, Symbol, Symbols
    from kobox.image.tables import BugSite, Fixup, Initcall, Unwind
    from kobox.image.vmlinux import KernelSection, Layout, Segment

_HOME = {
    "btf": ("Btf", "Kind", "Member", "Type", "module_btf"),
    "cache": ("Cache", "Entry", "data_root", "default_root"),
    "config": ("Config",),
    "exports": ("Export", "Exports"),
    "image": ("Image",),
    "store": ("Added", "add_image", "find_image", "list_images", "look_for_kernel", "open_image", "remove_image"),
    "symbols": ("Located", "Symbol", "Symbols"),
    "tables": ("BugSite", "Fixup", "Initcall", "Unwind"),
    "vmlinux": ("KernelSection", "Layout", "Segment"),
}
_FILE = {name: file for file, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _FILE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_FILE[name]}"), name)
    globals()[name] = found
    return found


__all__ = [
    "Added",
    "Btf",
    "BugSite",
    "Cache",
    "Config",
    "Entry",
    "Export",
    "Exports",
    "Fixup",
    "Image",
    "Initcall",
    "KernelSection",
    "Kind",
    "Layout",
    "Located",
    "Member",
    "Segment",
    "Symbol",
    "Symbols",
    "Type",
    "Unwind",
    "add_image",
    "data_root",
    "default_root",
    "find_image",
    "list_images",
    "look_for_kernel",
    "module_btf",
    "open_image",
    "remove_image",
]
