"""A system opened for questions: its tree, its whole configuration and its kernel command line, from one root."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from kobox.depot.config import load_config, search_dirs
from kobox.depot.facts import Config
from kobox.depot.paths import absolute
from kobox.depot.resolve import Resolver
from kobox.depot.tree import ModuleTree, release_of
from kobox.errors import UsageError


class OpenSystem(NamedTuple):
    """``root`` is absolute without a slash at its end; empty for the running system."""

    root: str
    tree: ModuleTree
    config: Config
    cmdline: str

    def resolver(self) -> Resolver:
        return Resolver(self.config, self.tree)


def open_system(
    root: str = "", release: str | None = None, cmdline: str | None = None, sources: Sequence[str] = ()
) -> OpenSystem:
    """Open the system below ``root`` (empty: the running one).

    ``release`` defaults to the running kernel's if the root has it, else to the only one there; ``cmdline`` to
    ``proc/cmdline`` below the root; ``sources`` replace the configuration directories. Raises ``UsageError``.
    """
    if root:
        if not os.path.isdir(root):
            raise UsageError(f"{root}: no such directory")
        root = absolute(root).rstrip("/")
    tree = ModuleTree(root, release if release is not None else release_of(root))
    name = f"{root}/proc/cmdline"
    if cmdline is None:
        cmdline = read_cmdline(name)
    config = load_config(sources or search_dirs(root), tree=tree.directory, cmdline=cmdline, cmdline_name=name)
    return OpenSystem(root, tree, config, cmdline or "")


def read_cmdline(name: str) -> str | None:
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None
