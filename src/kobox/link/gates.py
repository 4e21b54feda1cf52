"""What a module's file is asked before it gets memory: the checks of its metadata, in the kernel's order, as a table.

The loader walks the table and stops at the first refusal; whoever explains a module walks on. Follows
``early_mod_check`` and ``layout_and_allocate`` of kernel/module/main.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from typing import NamedTuple

from kobox.link.findings import Finding, Level, LogLine, Refusal
from kobox.link.policy import Exporter, blacklisted, check_modinfo, check_modstruct_version
from kobox.link.rules import Rules
from kobox.link.validity import LoadView, enforce_rwx


class Against(NamedTuple):
    """The kernel that a file is held against, at one moment. ``blacklist`` is its ``module_blacklist=``, ``spectre_v2``
    whether it relies on a mitigation of Spectre v2, ``taints`` its mask so far."""

    rules: Rules
    exporters: Collection[Exporter]
    vermagic: str
    blacklist: str = ""
    taints: int = 0
    ignore_vermagic: bool = False
    spectre_v2: bool = True


class Gate(NamedTuple):
    """``check`` gives what the kernel says and taints, or raises ``Refusal``."""

    name: str
    check: Callable[[LoadView, Against], tuple[Finding, ...]]


def _blacklist(view: LoadView, kernel: Against) -> tuple[Finding, ...]:
    if blacklisted(view.name, kernel.blacklist):
        raise Refusal(errno.EPERM, (LogLine(Level.ERR, f"Module {view.name} is blacklisted"),))
    return ()


def _struct_module(view: LoadView, kernel: Against) -> tuple[Finding, ...]:
    return check_modstruct_version(view, kernel.exporters, kernel.rules, kernel.taints)


def _metadata(view: LoadView, kernel: Against) -> tuple[Finding, ...]:
    return check_modinfo(
        view,
        kernel.vermagic,
        kernel.rules,
        kernel.taints,
        ignore_vermagic=kernel.ignore_vermagic,
        spectre_v2=kernel.spectre_v2,
    )


def _protection(view: LoadView, kernel: Against) -> tuple[Finding, ...]:
    enforce_rwx(view, kernel.rules)
    return ()


FILE_GATES: tuple[Gate, ...] = (
    Gate("blacklist", _blacklist),
    Gate("struct module", _struct_module),
    Gate("metadata", _metadata),
    Gate("protection", _protection),
)
