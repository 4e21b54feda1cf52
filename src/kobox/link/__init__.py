"""link: an ELF module becomes bytes at addresses, by the kernel's rules and with its words; no kernel, no CPU.

``validity`` checks the file, ``layout`` plans memory, ``policy`` decides who may use which symbol, ``resolve`` gives
symbols their addresses, ``relocate`` writes them in, ``tables`` finds the module's tables, ``patch`` fits the code to
the CPU, ``linked`` does all of it in one go.
"""

from kobox.link.behind import left_behind
from kobox.link.findings import Finding, Level, LogLine, Refusal, Taint, TaintBit
from kobox.link.gates import FILE_GATES, Against, Gate
from kobox.link.kallsyms import Kallsyms, add_kallsyms, symbol_letters
from kobox.link.layout import MEMORIES, Layout, Region, lay_out
from kobox.link.linked import LinkedModule, link_module, link_tree, link_view
from kobox.link.livepatch import VMLINUX
from kobox.link.orc import sort_orc
from kobox.link.patch import Cpu, finalize
from kobox.link.policy import (
    KERNEL,
    Export,
    Exporter,
    Exports,
    Resolver,
    blacklisted,
    check_modinfo,
    check_modstruct_version,
    check_module_license_and_versions,
    check_vermagic,
    has_unversioned_exports,
    metadata_taints,
    unsigned_taint,
    verify_exported_symbols,
)
from kobox.link.relocate import relocate
from kobox.link.resolve import Symbols, simplify, symbol_table, undefined
from kobox.link.rules import Rules
from kobox.link.tables import check_tables, find_tables, sort_extable, table_fields
from kobox.link.validity import Fault, LoadView, enforce_rwx, faults_of, load_view

__all__ = [
    "FILE_GATES",
    "KERNEL",
    "MEMORIES",
    "VMLINUX",
    "Against",
    "Cpu",
    "Export",
    "Exporter",
    "Exports",
    "Fault",
    "Finding",
    "Gate",
    "Kallsyms",
    "Layout",
    "Level",
    "LinkedModule",
    "LoadView",
    "LogLine",
    "Refusal",
    "Region",
    "Resolver",
    "Rules",
    "Symbols",
    "Taint",
    "TaintBit",
    "add_kallsyms",
    "blacklisted",
    "check_modinfo",
    "check_modstruct_version",
    "check_module_license_and_versions",
    "check_tables",
    "check_vermagic",
    "enforce_rwx",
    "faults_of",
    "finalize",
    "find_tables",
    "has_unversioned_exports",
    "lay_out",
    "left_behind",
    "link_module",
    "link_tree",
    "link_view",
    "load_view",
    "metadata_taints",
    "relocate",
    "simplify",
    "sort_extable",
    "sort_orc",
    "symbol_letters",
    "symbol_table",
    "table_fields",
    "undefined",
    "unsigned_taint",
    "verify_exported_symbols",
]
