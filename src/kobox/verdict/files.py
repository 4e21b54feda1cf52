"""Where the modules lie that another one needs: beside it, and in the tree of its release; by name and by symbol."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property

from kobox.depot.module_facts import facts_of_file
from kobox.depot.names import MODULE_SUFFIXES, is_module_file, module_name_of_path
from kobox.depot.tree import ModuleTree


class ModuleFiles:
    """``folders`` are looked at first, as a build directory is; ``tree`` may be None."""

    def __init__(self, folders: Sequence[str] = (), tree: ModuleTree | None = None) -> None:
        self._folders = folders
        self._tree = tree if tree is not None and os.path.isdir(tree.directory) else None

    @property
    def place(self) -> str:
        """Where was looked, for messages."""
        tree = [self._tree.directory] if self._tree is not None else []
        return ", ".join([*(folder or "." for folder in self._folders), *tree]) or "no directory"

    def file_of(self, name: str) -> str | None:
        """The file of a module by its name in any spelling."""
        plain = name.replace("-", "_")
        for folder in self._folders:
            for spelled in (plain, plain.replace("_", "-")):
                for suffix in MODULE_SUFFIXES:
                    path = os.path.join(folder, spelled + suffix)
                    if os.path.isfile(path):
                        return path
        if self._tree is None:
            return None
        found = self._tree.find(plain)
        return found if found is not None and os.path.isfile(found) else self._by_name.get(plain)

    def names_like(self, name: str) -> list[str]:
        """Modules of the tree whose names are alike."""
        import difflib  # for names that are not there only

        plain = name.replace("-", "_")
        return [] if self._tree is None else difflib.get_close_matches(plain, self._by_name, n=3)

    def is_builtin(self, name: str) -> bool:
        return self._tree is not None and self._tree.is_builtin(name.replace("-", "_"))

    def exporters_of(self, symbol: str) -> list[str]:
        """Names of the modules that export it: those that lie beside, then by the tree's index, or by reading every
        module when it has none."""
        if symbol in self._beside:
            return self._beside[symbol]
        if self._tree is None:
            return []
        indexed = self._tree.modules_of_symbol(f"symbol:{symbol}")
        return list(dict.fromkeys(indexed)) or ([] if self._has_index else self._by_symbol.get(symbol, []))

    @cached_property
    def _has_index(self) -> bool:
        assert self._tree is not None
        return any(os.path.isfile(f"{self._tree.directory}/modules.symbols{suffix}") for suffix in ("", ".bin"))

    @cached_property
    def _by_name(self) -> dict[str, str]:
        assert self._tree is not None
        return {module_name_of_path(path): path for path in self._tree.module_files()}

    @cached_property
    def _by_symbol(self) -> dict[str, list[str]]:
        return _exporters(self._by_name)

    @cached_property
    def _beside(self) -> dict[str, list[str]]:
        paths = [
            os.path.join(folder, name)
            for folder in self._folders
            if self._tree is None or not os.path.realpath(folder).startswith(os.path.realpath(self._tree.directory))
            for name in sorted(os.listdir(folder or "."))
            if is_module_file(name)
        ]
        return _exporters({module_name_of_path(path): path for path in paths})


def _exporters(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Symbol to the names of the modules that export it."""
    found: dict[str, list[str]] = {}
    for name, path in files.items():
        for symbol in facts_of_file(path).exports.split(b"\0"):
            if symbol:
                found.setdefault(os.fsdecode(symbol), []).append(name)
    return found
