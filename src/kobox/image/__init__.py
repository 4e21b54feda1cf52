"""A distribution's kernel: from ``vmlinuz`` to mapped tables, and the cache they lie in.

``open_image(release_or_path)`` gives an ``Image``: ``symbols``, ``exports``, ``btf``, ``config``, ``layout``, the flat
kernel. ``Cache`` serves other rooms too. What runs in the kernel is not this room's business.
"""

from kobox.image.btf import Btf, Kind, Member, Type, module_btf
from kobox.image.cache import Cache, Entry, data_root, default_root
from kobox.image.config import Config
from kobox.image.exports import Export, Exports
from kobox.image.image import Image
from kobox.image.store import Added, add_image, find_image, list_images, look_for_kernel, open_image, remove_image
from kobox.image.symbols import Located, Symbol, Symbols
from kobox.image.tables import BugSite, Fixup, Initcall, Unwind
from kobox.image.vmlinux import KernelSection, Layout, Segment

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
