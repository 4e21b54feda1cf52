"""What is swept and in what order: modules of a tree, those with the same dependencies together, in handy portions."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kobox.depot.depmod import DepmodOptions, depmod
from kobox.depot.tree import ModuleTree, release_of, releases
from kobox.errors import UsageError
from kobox.sweep.records import Item, ModuleResult

_PORTIONS = 24
"""How many portions each process gets, about: the last ones should end together."""
_LARGEST = 64


def find_tree(root: str | None, release: str, own: Path | None) -> Path:
    """The folder of the modules: below ``root``, that of the kernel's release if there; else the image's ``own``."""
    if root is None:
        if own is None:
            raise UsageError("this kernel comes without modules", hint="--root DIR, a tree with lib/modules/RELEASE")
        return own
    known = releases(root)
    chosen = release if release in known else release_of(root, hint=f"none of them is this kernel's, {release}")
    for base in ("lib/modules", "usr/lib/modules"):
        folder = Path(root, base, chosen)
        if folder.is_dir():
            return folder
    raise UsageError(f"{root}: no modules of release {chosen}")


@contextlib.contextmanager
def indexed(folder: Path) -> Iterator[ModuleTree]:
    """The indexes of a folder of modules; made for the moment where nobody has run depmod there, as in a package."""
    if any((folder / name).is_file() for name in ("modules.dep", "modules.dep.bin")):
        with ModuleTree.at(folder) as tree:
            yield tree
        return
    with tempfile.TemporaryDirectory(prefix="kobox-sweep-") as place:
        depmod(DepmodOptions(str(folder), folder.name, output=place, config=()))
        with ModuleTree.at(place) as tree:
            yield tree


def items_of(tree: ModuleTree, select: Sequence[str]) -> list[Item]:
    """The modules that one of the patterns fits (all without patterns), in the order of their paths."""
    found = [
        Item(name, line.path, tuple(reversed(line.needs)))
        for name, line in tree.all_deps()
        if not select or any(_fits(name, line.path, pattern) for pattern in select)
    ]
    if not found:
        what = f"no module fits {' '.join(select)}" if select else "the tree has no modules"
        raise UsageError(what, hint="names or paths as modules.dep has them")
    return sorted(found, key=lambda item: item.path)


def _fits(name: str, path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern.replace("-", "_")) or fnmatch.fnmatchcase(path, pattern)


def portions(items: Sequence[Item], jobs: int) -> list[list[Item]]:
    """The work in pieces for ``jobs`` processes. Modules whose dependencies begin alike are neighbours, so that states
    with these loaded serve several."""
    ordered = sorted(items, key=lambda item: (item.needs, item.path))
    size = max(1, min(_LARGEST, -(-len(ordered) // (jobs * _PORTIONS))))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def forget_known(results: Sequence[ModuleResult], tree: ModuleTree) -> None:
    """Leave among the missing symbols those that no module of the tree exports: a refused dependency lacks nothing."""
    exported: dict[str, bool] = {}
    for result in results:
        for symbol in result.missing:
            if symbol not in exported:
                exported[symbol] = bool(tree.modules_of_symbol(f"symbol:{symbol}"))
        result.missing = tuple(symbol for symbol in result.missing if not exported[symbol])


def processors() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
