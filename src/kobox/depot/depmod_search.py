"""The modules that depmod indexes: found in the tree, one of each name, in the order that gives them their priority.

Follows kmod: directories are walked in the order in which the file system lists them, ``build`` and ``source`` are
left out, the rules of depmod.d decide between files of one name, and ``modules.order`` says which module comes
first. Modules that it doesn't name come last, in the order of kmod's hash table.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from kobox.depot.depmod_config import Report, SearchRules
from kobox.depot.khash import hash_order
from kobox.depot.names import MODULE_SUFFIXES
from kobox.errors import KoboxError

_NAME_BUCKETS = 512


class DepmodError(KoboxError):
    """What ends a depmod run; kmod calls it FATAL. ``told`` when the text has been reported already."""

    def __init__(self, text: str, told: bool = False) -> None:
        self.told = told
        super().__init__(text)


class Module:
    """A module file to index. ``shown`` is how index files name it: relative to the tree if ``in_tree``.

    A path outside of the tree is shown as the system below ``root`` sees it.
    """

    __slots__ = ("in_tree", "index", "name", "path", "shown")

    def __init__(self, name: str, path: str, tree: str, root: str = "") -> None:
        self.name = name
        self.path = path
        self.in_tree = path.startswith(tree + "/")
        self.shown = path[len(tree if self.in_tree else root) + self.in_tree :]
        self.index = -1

    def __repr__(self) -> str:
        return f"Module({self.shown!r})"


def find_modules(tree: str, rules: SearchRules, report: Report, root: str = "") -> dict[str, Module]:
    """Every module of the tree and of the external directories, by name. Raises ``DepmodError`` without a tree.

    ``root``: where the system lies whose external directories are meant; empty for this host's.
    """
    rules = rules._replace(externals=tuple(root + external for external in rules.externals))
    walk = _Walk(tree, rules, report, root)
    try:
        walk.directory(tree, tree + "/")
    except OSError as error:
        report("ERROR", f"could not open directory {tree}: {error.strerror}")
        raise DepmodError(f"could not search modules: {error.strerror}") from error
    for external in rules.externals:
        try:
            walk.directory(external, external + "/")
        except OSError as error:
            report("ERROR", f"could not open directory {external}: {error.strerror}")
    return walk.found


def modules_of_paths(paths: Sequence[str], tree: str, report: Report) -> dict[str, Module]:
    """The modules of files given one by one. Raises ``DepmodError`` for a path that can't be taken."""
    found: dict[str, Module] = {}
    for path in paths:
        if not path.startswith("/"):
            raise DepmodError(f"{path}: not absolute path.")
        name = _name(path.rpartition("/")[2])
        try:
            os.stat(path)
        except OSError as error:
            raise DepmodError(f"could not create module {path}: {error.strerror}") from error
        if name in found:
            old = found[name].path
            if old != path:
                report(
                    "ERROR",
                    f"kmod_module '{name}' already exists with different path: new-path='{path}' old-path='{old}'",
                )
                raise DepmodError(f"could not create module {path}: File exists")
            report("ERROR", f"hash_add_unique {name}: File exists")
            raise DepmodError(f"could not add module {path}: File exists")
        found[name] = Module(name, path, tree)
    return found


def in_load_order(modules: dict[str, Module], tree: str, report: Report) -> list[Module]:
    """The modules with ``index`` set: those of ``modules.order`` by their last line there, then the others."""
    lines = _order_lines(tree, report)
    places = {line: place for place, line in enumerate(lines)}
    listed: list[tuple[int, Module]] = []
    others: list[bytes] = []
    for module in modules.values():
        place = places.get(_order_line(module)) if places and module.in_tree else None
        if place is None:
            others.append(os.fsencode(module.name))
        else:
            listed.append((place, module))
    listed.sort(key=lambda item: item[0])
    ordered = [module for _, module in listed]
    ordered += [modules[os.fsdecode(name)] for name in hash_order(others, _NAME_BUCKETS)]
    for index, module in enumerate(ordered):
        module.index = index
    return ordered


class _Walk:
    def __init__(self, tree: str, rules: SearchRules, report: Report, root: str) -> None:
        self.tree, self.rules, self.report, self.root = tree, rules, report, root
        self.skip = frozenset((".", "..", "build", "source")) | rules.excludes
        self.found: dict[str, Module] = {}

    def directory(self, path: str, prefix: str) -> None:
        """Walk one directory; ``OSError`` only for the directory itself."""
        found, skip, tree, root = self.found, self.skip, self.tree, self.root
        with os.scandir(path) as entries:
            for entry in entries:
                file = entry.name
                if file in skip:
                    continue
                if entry.is_dir():
                    self._below(prefix + file)
                elif not file.endswith(MODULE_SUFFIXES):
                    if not entry.is_file():
                        self._check(prefix + file)
                elif file not in MODULE_SUFFIXES and (entry.is_file() or self._check(prefix + file)):
                    name = _name(file)
                    module = Module(name, prefix + file, tree, root)
                    known = found.setdefault(name, module)
                    if known is not module and not self.rules.keeps(tree, known.path, module.path, name):
                        del found[name]
                        found[name] = module

    def _below(self, path: str) -> None:
        try:
            self.directory(path, path + "/")
        except OSError as error:
            self.report("ERROR", f"could not open directory {path}: {error.strerror}")

    def _check(self, path: str) -> bool:
        """What is neither file nor directory is reported."""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            self.report("ERROR", f"could not stat {path}: {error.strerror}")
            return False
        if not stat.S_ISREG(mode):
            self.report("ERROR", f"unsupported file type {path}: {stat.S_IFMT(mode):o}")
            return False
        return True


def _name(file: str) -> str:
    return file.partition(".")[0].replace("-", "_")


def _order_line(module: Module) -> str:
    """A module's line in modules.order: its path, cut where the plain suffix ends."""
    directory = module.shown.rfind("/") + 1
    return module.shown[: directory + len(module.name) + 3]


def _order_lines(tree: str, report: Report) -> list[str]:
    try:
        with open(f"{tree}/modules.order", "rb") as file:
            data = file.read()
    except OSError as error:
        report("WARNING", f"could not open modules.order at {tree}: {error.strerror}")
        return []
    if data and not data.endswith(b"\n"):
        number = data.count(b"\n") + 1
        report("ERROR", f"{tree}/modules.order:{number} corrupted line misses '\\n'")
        return []
    return os.fsdecode(data).split("\n")[:-1]
