"""Where the modules of a running kernel come from: a system's root directory, or the module tree of the image.

An index (``modules.dep`` and its like) that the tree does not have is made by kobox's depmod and kept in the cache, for
as long as no file of the tree changes: the packages of a distribution leave that to their installation.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kobox.depot.config import load_config, search_dirs
from kobox.depot.depmod import DepmodOptions, depmod
from kobox.depot.paths import absolute
from kobox.depot.resolve import Resolver
from kobox.depot.tree import ModuleTree, releases
from kobox.errors import UsageError
from kobox.image import Cache, Image

KIND = "modindex"
_GIVEN = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
"""What depmod reads besides the modules."""


def check_root(root: str, release: str) -> str:
    """A root as an absolute path; ``UsageError`` when it cannot have modules of this release."""
    if not os.path.isdir(root):
        raise UsageError(f"{root}: no such directory")
    path = absolute(root).rstrip("/")
    if release not in (found := releases(path)):
        raise UsageError(
            f"{root}: has no modules of {release}: found {', '.join(found) or 'none'} in lib/modules",
            hint="--root takes a system with the modules of the kernel that is booted",
        )
    return path


def open_source(
    image: Image, root: str | None, command_line: str, progress: Callable[[str], None] = lambda text: None
) -> Resolver:
    """What modprobe of the system would read: ``root``'s configuration and modules, or without a root the image's own
    modules and no configuration. ``command_line`` is the kernel's."""
    if root is not None:
        tree = ModuleTree(root, image.release)
    elif image.modules is not None:
        tree = ModuleTree.at(image.modules)
    else:
        raise UsageError(
            f"image {image.release} has no modules beside it", hint="boot it with a root that has them (--root DIR)"
        )
    tree = with_index(tree, progress)
    sources = search_dirs(root) if root is not None else []
    config = load_config(sources, tree=tree.indexes, cmdline=command_line)
    return Resolver(config, tree)


def with_index(tree: ModuleTree, progress: Callable[[str], None] = lambda text: None) -> ModuleTree:
    """The same tree, by its own index or by one from the cache."""
    return tree if _is_indexed(tree) else ModuleTree.at(tree.directory, indexed(tree, Cache(), progress))


def _is_indexed(tree: ModuleTree) -> bool:
    return any(os.path.isfile(f"{tree.directory}/modules.dep{suffix}") for suffix in (".bin", ""))


def index_modules(image: Image, progress: Callable[[str], None] = lambda text: None) -> None:
    """Make the index of an image's modules before somebody waits for it."""
    if image.modules is not None and not _is_indexed(tree := ModuleTree.at(image.modules)):
        indexed(tree, Cache(), progress)


def indexed(tree: ModuleTree, cache: Cache, progress: Callable[[str], None]) -> Path:
    """The index of a tree that has none, from the cache or made now."""

    def fill(folder: Path) -> Mapping[str, Any]:
        progress(f"indexing the modules of {tree.release}")
        depmod(DepmodOptions(tree.directory, tree.release, output=str(folder), config=()))
        return {"tree": tree.directory}

    return cache.build(KIND, _key(tree), fill).path


def _key(tree: ModuleTree) -> str:
    """Changes with every module file of the tree, which is known by where it really lies."""
    place = os.path.realpath(tree.directory)
    digest = hashlib.sha256(os.fsencode(place))
    for path in [*(f"{place}/{name}" for name in _GIVEN), *ModuleTree.at(place).module_files()]:
        if os.path.exists(path):
            status = os.stat(path)
            digest.update(os.fsencode(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return f"{tree.release}-{digest.hexdigest()[:16]}"
