"""What a module can call on the bare kernel: one table of typed functions per kernel header.

A header is imported when a name is looked for and no earlier one has it, so that a small module pays for a small
kernel.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from kobox.abi.declare import Declared, ExportTable

HEADERS = ("printk", "slab", "lists", "strings", "locks", "time", "work", "uaccess", "misc", "modules", "kernel")
"""The files of this folder, those that most modules need first; each holds one table, ``TABLE``."""


def tables() -> Iterator[ExportTable]:
    """Every table, imported as it is reached."""
    for header in HEADERS:
        yield importlib.import_module(f"{__name__}.{header}").TABLE


def find(name: str) -> Declared | None:
    """The declaration that serves a kernel function's name."""
    for table in tables():
        for declared in table:
            if name == declared.name or name in declared.also:
                return declared
    return None
