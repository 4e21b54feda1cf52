"""An ELF file as a Linux kernel module: compression, signature trailer, metadata, parameters, exports, versions.

Reads files and nothing else: linking is ``link``'s, verifying a signature is ``sign``'s. The formats are those that
``modpost`` writes and the kernel's loader reads.
"""

from __future__ import annotations

from kobox.ko.compression import MAX_SIZE, compress, decompress, format_of
from kobox.ko.exports import Export, Import
from kobox.ko.modinfo import ModInfo, parse_modinfo
from kobox.ko.module import KernelModule, ThisModule, module_name, parse_module, read_module
from kobox.ko.params import Param
from kobox.ko.signature import MARKER, SignatureTrailer, split_signature

__all__ = [
    "MARKER",
    "MAX_SIZE",
    "Export",
    "Import",
    "KernelModule",
    "ModInfo",
    "Param",
    "SignatureTrailer",
    "ThisModule",
    "compress",
    "decompress",
    "format_of",
    "module_name",
    "parse_modinfo",
    "parse_module",
    "read_module",
    "split_signature",
]
