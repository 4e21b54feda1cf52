"""depmod.d: which of several modules of one name wins, which further directories are searched, which are left out.

Follows depmod.d(5) and kmod's reading of it. Lists are kept in kmod's order, which is the reverse of the files': the
first directory of a ``search`` line has the highest priority.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kobox.depot.lines import logical_lines

DEPMOD_DIRS: tuple[str, ...] = ("/etc/depmod.d", "/run/depmod.d", "/usr/local/lib/depmod.d", "/lib/depmod.d")
"""Highest precedence first. The host's, whatever tree is indexed, unless the caller asks for those below a root."""

BUILT_IN, EXTERNAL = "built-in", "external"

Report = Callable[[str, str], None]
"""Told of what is wrong: a level (``FATAL`` … ``DEBUG``) and a text."""


class SearchRules(NamedTuple):
    """Everything depmod.d says for one kernel release."""

    overrides: tuple[str, ...] = ()
    """``directory/module``, relative to the tree."""
    searches: tuple[str, ...] = ("updates",)
    """Directories relative to the tree, ``built-in`` and ``external``; a later one is preferred."""
    externals: tuple[str, ...] = ()
    excludes: frozenset[str] = frozenset()

    def keeps(self, tree: str, old_path: str, new_path: str, name: str) -> bool:
        """Whether a module already found stays when another file of the same name comes up."""
        new, old = (_bare(path, name) for path in (new_path, old_path))
        relative_new, relative_old = _below(tree, new), _below(tree, old)
        for override in self.overrides:
            if relative_new == override:
                return False
            if relative_old == override:
                return True
        new_rank, old_rank = self._ranks(new, relative_new, old, relative_old)
        return new_rank <= old_rank

    def _ranks(self, new: str, relative_new: str | None, old: str, relative_old: str | None) -> tuple[int, int]:
        rank = built_in = new_rank = old_rank = -1
        for search in self.searches:
            rank += 1
            if search == BUILT_IN:
                built_in = rank
            elif search == EXTERNAL:
                for external in self.externals:
                    if new.startswith(external + "/"):
                        new_rank = rank
                    if old.startswith(external + "/"):
                        old_rank = rank
                    rank += 1
            elif relative_new is not None and relative_new.startswith(search + "/"):
                new_rank = rank
            elif relative_old is not None and relative_old.startswith(search + "/"):
                old_rank = rank
        return (built_in if new_rank < 0 else new_rank), (built_in if old_rank < 0 else old_rank)


def read_search_rules(paths: Sequence[str], release: str, report: Report) -> SearchRules:
    """Read files and directories of files. Of files with the same name the first counts; then by name."""
    chosen: dict[str, str] = {}
    for path in paths:
        for name, file in _files(path, report):
            chosen.setdefault(name, file)
    found = _Collected(release, report)
    for _, file in sorted(chosen.items(), key=lambda item: os.fsencode(item[0])):
        found.read(file)
    return found.rules()


class _Collected:
    def __init__(self, release: str, report: Report) -> None:
        self.release, self.report = release, report
        self.overrides: list[str] = []
        self.searches: list[str] = []
        self.externals: list[str] = []
        self.excludes: list[str] = []

    def rules(self) -> SearchRules:
        return SearchRules(
            tuple(reversed(self.overrides)),
            tuple(reversed(self.searches)) or ("updates",),
            tuple(reversed(self.externals)),
            frozenset(self.excludes),
        )

    def read(self, file: str) -> None:
        try:
            with open(file, "rb") as opened:
                data = opened.read()
        except OSError as error:
            self.report("ERROR", f"file parse {file}: {error.strerror}")
            return
        for line in logical_lines(data):
            words = [word for word in re.split("[\t ]", line.text) if word]
            if not words or line.text.startswith("#"):
                continue
            if not self._take(words, f"{file}:{line.last}"):
                self.report("ERROR", f"{file}:{line.last}: ignoring bad line starting with '{words[0]}'")

    def _take(self, words: list[str], place: str) -> bool:
        """One line; False when it is none that depmod knows."""
        command, values = words[0], words[1:]
        if command == "search":
            self.searches += values
        elif command == "exclude":
            self.excludes += values
        elif command == "override" and len(values) >= 3:
            if self._is_for_release(values[1]):
                self.overrides.append(f"{values[2]}/{values[0]}")
            else:
                self.report("INFO", f"{place}: override kernel did not match {values[1]}")
        elif command == "external" and len(values) >= 2:
            if self._is_for_release(values[0]):
                self.externals.append(values[1])
            else:
                self.report("INFO", f"{place}: external directory did not match {values[0]}")
        elif command in ("include", "make_map_files"):
            self.report("INFO", f"{place}: command {command} not implemented yet")
        else:
            return False
        return True

    def _is_for_release(self, pattern: str) -> bool:
        """``*``, or an extended regular expression found anywhere in the release."""
        if pattern == "*":
            return True
        try:
            return re.search(pattern, self.release) is not None
        except re.error:
            return False


def _files(path: str, report: Report) -> list[tuple[str, str]]:
    """(name, path) of the files that a configuration path stands for; none when it is missing."""
    if not os.path.isdir(path):
        return [(os.path.basename(path), path)] if os.path.exists(path) else []
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        report("ERROR", f"files list {path}: {error.strerror}")
        return []
    found: list[tuple[str, str]] = []
    for name in names:
        if name.startswith("."):
            continue
        if len(name) < 6 or not name.endswith(".conf"):
            report("INFO", f"All cfg files need .conf: {path}/{name}")
        elif os.path.isdir(f"{path}/{name}"):
            report("ERROR", f"Directories inside directories are not supported: {path}/{name}")
        else:
            found.append((name, f"{path}/{name}"))
    return found


def _bare(path: str, name: str) -> str:
    """A module's path without its suffix: as long as the directory and the module's name."""
    directory = path.rfind("/") + 1
    return path[: directory + len(name)]


def _below(tree: str, path: str) -> str | None:
    return path[len(tree) + 1 :] if path.startswith(tree) else None
