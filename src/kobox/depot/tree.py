"""One release's module tree below a root: where it lies, what its index files say, which module files it has.

Reading only; ``depmod`` writes. A binary index is preferred and read in place; when it is missing or empty the text
twin is read, so that a tree indexed by something else still answers. Paths are joined as text and never normalised:
what the tools print is what the user gave. Follows libkmod's look-ups in kmod 30.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from kobox.depot.alias_table import AliasTable
from kobox.depot.index import IndexEntry, IndexFile, in_kmod_order
from kobox.depot.names import is_module_file, module_name, module_name_of_path, normal_alias, wildcard
from kobox.errors import UsageError

MODULE_DIRECTORIES: tuple[str, ...] = ("lib/modules", "usr/lib/modules")
"""Where releases are looked for below a root, in this order."""
_MANY_SEARCHES = 100
"""After so many questions an index is loaded into memory: by then they took as long as loading does."""


class DepLine(NamedTuple):
    """A line of modules.dep: the module's path and its dependencies, nearest first, as written (mostly relative)."""

    path: str
    needs: tuple[str, ...]


class DevNode(NamedTuple):
    """A line of modules.devname."""

    module: str
    name: str
    kind: str
    major: int
    minor: int


class ModuleTree:
    """The modules of one release. Open indexes are kept until ``close``; a context manager."""

    def __init__(
        self, root: str | os.PathLike[str] = "", release: str | None = None, moduledir: str | None = None
    ) -> None:
        """``root`` is "" for the running system; ``release`` defaults to the running kernel's.

        ``moduledir`` is the directory below the root that holds releases; without it the first of
        ``MODULE_DIRECTORIES`` that has this release, else the first.
        """
        self.root = os.fspath(root)
        self.release = os.uname().release if release is None else release
        candidates = MODULE_DIRECTORIES if moduledir is None else (moduledir.strip("/"),)
        paths = [f"{self.root}/{candidate}/{self.release}" for candidate in candidates]
        self.directory = next((path for path in paths if os.path.isdir(path)), paths[0])
        self.indexes = self.directory
        """Where the files lie that depmod writes."""
        self._open: dict[str, IndexFile] = {}
        self._tables: dict[str, AliasTable] = {}
        self._values: dict[str, dict[str, str]] = {}
        self._searches: dict[str, int] = {}

    @classmethod
    def at(cls, directory: str | os.PathLike[str], indexes: str | os.PathLike[str] | None = None) -> ModuleTree:
        """The tree whose release directory is given (with modules.dep in it, or in the directory ``indexes``)."""
        path = os.fspath(directory)
        tree = cls.__new__(cls)
        tree.root, tree.directory = "", path
        tree.indexes = path if indexes is None else os.fspath(indexes)
        tree.release = path.rstrip("/").rpartition("/")[2]
        tree._open, tree._tables, tree._values, tree._searches = {}, {}, {}, {}
        return tree

    def __enter__(self) -> ModuleTree:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ModuleTree({self.directory!r})"

    def close(self) -> None:
        """Close every index that was opened."""
        for index in self._open.values():
            index.close()
        self._open.clear()
        self._tables.clear()
        self._values.clear()
        self._searches.clear()

    def path(self, name: str) -> str:
        """A path as an index file writes it, made complete: relative to the tree, or absolute and left alone.

        An absolute one that is there below the root is meant there: the system in it wrote it.
        """
        if not name.startswith("/"):
            return f"{self.directory}/{name}"
        return self.root + name if self.root and os.path.exists(self.root + name) else name

    def index(self, name: str) -> IndexFile | None:
        """The open binary index of ``name`` (``modules.dep``, without .bin); None when missing or empty.

        Raises ``BadFile`` when the file is there and broken.
        """
        index = self._open.get(name)
        if index is None:
            path = f"{self.indexes}/{name}.bin"
            try:
                if os.stat(path).st_size == 0:
                    return None
                index = self._open[name] = IndexFile(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return index

    # -- what the indexes say -----------------------------------------------------------------------------------------

    def dep_line(self, name: str) -> DepLine | None:
        """modules.dep's line of a module, by its normalised name."""
        index = self.index("modules.dep")
        if index is None:
            return self._text_deps.get(name)
        line = self._exactly("modules.dep", index, name)
        return None if line is None else _dep_line(line)

    def all_deps(self) -> Iterator[tuple[str, DepLine]]:
        """(module name, line) of every module, in the order of modules.dep."""
        index = self.index("modules.dep")
        if index is None:
            yield from self._text_deps.items()
        else:
            for name, entry in sorted(index.dump(), key=lambda item: item[1].priority):
                yield name, _dep_line(entry.value)

    def modules_of_alias(self, alias: str) -> list[str]:
        """Names of the modules that claim a (normalised) alias, as modules.alias orders them; may repeat a name."""
        return self._wild("modules.alias", alias)

    def modules_of_symbol(self, symbol: str) -> list[str]:
        """Names of the modules that export ``symbol:NAME`` (with that prefix, as in the index)."""
        return self._wild("modules.symbols", symbol)

    def builtins_of_alias(self, alias: str) -> list[str]:
        """Names of built-in modules that claim a (normalised) alias."""
        return self._wild("modules.builtin.alias", alias)

    def is_builtin(self, name: str) -> bool:
        """Whether a module (normalised name) is part of the kernel image."""
        index = self.index("modules.builtin")
        if index is None:
            return name in self._text_builtins
        return self._exactly("modules.builtin", index, name) is not None

    def builtins(self) -> Iterator[str]:
        """Names of all built-in modules, in alphabetical order."""
        index = self.index("modules.builtin")
        if index is None:
            yield from sorted(self._text_builtins)
        else:
            yield from (name for name, _ in index.dump())

    def builtin_info(self, name: str) -> list[str] | None:
        """The ``key=value`` strings of a built-in module; None when modules.builtin.modinfo doesn't know it.

        As kmod reads it: the first unbroken run of that module's strings. ``FileNotFoundError`` without the file.
        """
        return self._builtin_info.get(name)

    def softdeps(self) -> Iterator[tuple[int, str]]:
        """(line number, line) of modules.softdep: modprobe.d lines without comments. Nothing when there is no file."""
        yield from self._config_lines("modules.softdep")

    def weakdeps(self) -> Iterator[tuple[int, str]]:
        """As ``softdeps``, of modules.weakdep."""
        yield from self._config_lines("modules.weakdep")

    def device_nodes(self) -> Iterator[DevNode]:
        """The lines of modules.devname that have its form."""
        for _, line in self._config_lines("modules.devname"):
            words = line.split()
            major, colon, minor = words[2][1:].partition(":") if len(words) == 3 else ("", "", "")
            if colon and major.isdecimal() and minor.isdecimal():
                yield DevNode(words[0], words[1], words[2][0], int(major), int(minor))

    # -- files --------------------------------------------------------------------------------------------------------

    def module_files(self) -> Iterator[str]:
        """Paths of all module files below the tree, each directory in name order; ``build`` and ``source`` skipped."""
        waiting = [self.directory]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                listed = sorted(entries, key=lambda entry: entry.name, reverse=True)
            for entry in reversed(listed):
                if is_module_file(entry.name) and not entry.is_dir():
                    yield entry.path
            waiting += [entry.path for entry in listed if entry.is_dir() and entry.name not in ("build", "source")]

    def find(self, text: str) -> str | None:
        """The path of one module by its name in any spelling; None when modules.dep doesn't have it."""
        line = self.dep_line(module_name(text))
        return None if line is None else self.path(line.path)

    # -- text twins ---------------------------------------------------------------------------------------------------

    def _wild(self, name: str, key: str) -> list[str]:
        table = self._tables.get(name)
        if table is not None:
            return [entry.value for entry in table.search(key)]
        index = self.index(name)
        if index is not None:
            if self._is_asked_often(name):
                self._tables[name] = AliasTable(index)
            return [entry.value for entry in index.search_wild(key)]
        found = [entry for pattern, entry in self._text_aliases(name) if wildcard(pattern).fullmatch(key)]
        return [entry.value for entry in in_kmod_order(found)]

    def _exactly(self, name: str, index: IndexFile, key: str) -> str | None:
        """The first value that an index has for a key."""
        values = self._values.get(name)
        if values is None:
            if self._is_asked_often(name):
                self._values[name] = _first_values(index)
            found = index.lookup(key)
            return found[0].value if found else None
        return values.get(key)

    def _is_asked_often(self, name: str) -> bool:
        """Count a question; true for the one at which it pays to load the index."""
        self._searches[name] = searches = self._searches.get(name, 0) + 1
        return searches == _MANY_SEARCHES

    def keep_in_memory(self) -> None:
        """Load names and aliases now: for thousands of look-ups, which would load them after the first hundred."""
        for name in ("modules.alias", "modules.builtin.alias"):
            index = self.index(name)
            if index is not None and name not in self._tables:
                self._tables[name] = AliasTable(index)
        for name in ("modules.dep", "modules.builtin"):
            index = self.index(name)
            if index is not None and name not in self._values:
                self._values[name] = _first_values(index)

    @cached_property
    def _text_deps(self) -> dict[str, DepLine]:
        lines = (_dep_line(line) for line in self._lines("modules.dep") if ":" in line)
        return {module_name_of_path(line.path): line for line in lines}

    @cached_property
    def _text_builtins(self) -> frozenset[str]:
        return frozenset(module_name_of_path(line) for line in self._lines("modules.builtin") if line[:1].isalpha())

    @cached_property
    def _builtin_info(self) -> dict[str, list[str]]:
        with open(f"{self.directory}/modules.builtin.modinfo", "rb") as file:
            strings = file.read().split(b"\0")
        infos: dict[str, list[str]] = {}
        previous: str | None = None
        run: list[str] = []
        for raw in strings:
            if not raw:
                continue
            name, dot, text = raw.decode("utf-8", "surrogateescape").partition(".")
            if not dot:
                break
            if name != previous:
                run, previous = [], name
                infos.setdefault(name, run)
            run.append(text)
        return infos

    def _text_aliases(self, name: str) -> Iterator[tuple[str, IndexEntry]]:
        priorities: dict[str, int] = {}
        for line in self._lines(name):
            words = line.split()
            if len(words) == 3 and words[0] == "alias":
                pattern = normal_alias(words[1])
                if pattern is not None:
                    yield pattern, IndexEntry(priorities.setdefault(words[2], len(priorities)), words[2])

    def _config_lines(self, name: str) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self._lines(name), 1):
            if line and not line.startswith("#"):
                yield number, line

    def _lines(self, name: str) -> list[str]:
        try:
            with open(f"{self.indexes}/{name}", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                return file.read().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []


def releases(root: str | os.PathLike[str] = "", moduledir: str | None = None) -> list[str]:
    """Names of the releases below a root, sorted; each once, though /lib may be a link to /usr/lib."""
    candidates = MODULE_DIRECTORIES if moduledir is None else (moduledir.strip("/"),)
    names: set[str] = set()
    for candidate in candidates:
        path = f"{os.fspath(root)}/{candidate}"
        if os.path.isdir(path):
            names.update(entry.name for entry in os.scandir(path) if entry.is_dir())
    return sorted(names)


def release_of(root: str | os.PathLike[str], moduledir: str | None = None, hint: str = "choose one with -S") -> str:
    """The running kernel's release if the root has it, or if it has none; else the only one it has.

    Raises ``UsageError`` that names several, with the hint.
    """
    found = releases(root, moduledir)
    running = os.uname().release
    if running in found or not found:
        return running
    if len(found) > 1:
        raise UsageError(f"{os.fspath(root) or '/'}: has several releases: {', '.join(found)}", hint=hint)
    return found[0]


def _first_values(index: IndexFile) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, entry in index.dump():
        values.setdefault(key, entry.value)
    return values


def _dep_line(line: str) -> DepLine:
    path, _, needs = line.partition(":")
    return DepLine(path, tuple(needs.split()))
