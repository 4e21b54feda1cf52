"""A copy of the sources to build in, kept in step: the folder itself is never written to.

What kbuild would write anyway is left out, so that nothing built elsewhere is mistaken for built here. A changed file
is copied with a new time stamp, an equal one is left alone: make then rebuilds what must be, whatever the time stamps
of the sources say.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kobox.errors import UsageError

RECORD = "kobox-build.json"
"""In a folder of results: such a folder is no source."""

_MOST_FILES = 20_000
_GENERATED = ("*.ko", "*.mod", "*.mod.c", "*.mod.o", "Module.symvers", "modules.order", "*~", "#*#", "*.pyc")
_COMPILED_FROM = (".c", ".S", ".rs")
_NO_INPUT = ("test_*.py", "*_test.py", "conftest.py", "*.md", "*.rst", "*.txt", "*.orig", "*.rej", "LICENSE*")
"""Files that no build reads: a change of theirs is copied and otherwise passed over."""
_MODULE = re.compile(rb"^\s*MODULE_LICENSE\s*\(", re.MULTILINE)

Stamps = dict[str, tuple[int, int]]
"""Path below the folder to size and time stamp (ns) of each source that was copied."""


class Changes(NamedTuple):
    """What a ``sync`` found: paths below the folder whose content is new, of files that were there, and of others."""

    modified: frozenset[str]
    others: frozenset[str]
    """Added and removed files."""

    @property
    def inputs(self) -> frozenset[str]:
        """Those that a build may read."""
        return frozenset(path for path in self.modified | self.others if is_input(path))


def is_input(path: str) -> bool:
    """Whether a build may read the file."""
    name = path.rsplit("/", 1)[-1]
    return not any(fnmatch.fnmatch(name, pattern) for pattern in _NO_INPUT)


def is_source(name: str, beside: frozenset[str]) -> bool:
    """Whether a file is somebody's work and not kbuild's. ``beside`` are the names in its directory."""
    if name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in _GENERATED):
        return False
    if f".{name}.cmd" in beside:
        return False
    stem, dot, ending = name.rpartition(".")
    return not (dot and ending == "o" and any(f"{stem}{suffix}" in beside for suffix in _COMPILED_FROM))


def sources(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every source below the folder: its path there and its status."""
    seen: set[tuple[int, int]] = set()
    count = 0
    stack = [""]
    while stack:
        place = stack.pop()
        with os.scandir(folder / place) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        beside = frozenset(entry.name for entry in listed)
        if place and RECORD in beside:
            continue
        for entry in listed:
            path = f"{place}/{entry.name}" if place else entry.name
            try:
                status = entry.stat()
            except OSError:
                continue  # gone meanwhile, or a link to nothing
            if entry.is_dir():
                identity = (status.st_dev, status.st_ino)
                if not entry.name.startswith(".") and entry.name != "__pycache__" and identity not in seen:
                    seen.add(identity)
                    stack.append(path)
            elif entry.is_file() and is_source(entry.name, beside):
                count += 1
                if count > _MOST_FILES:
                    raise UsageError(
                        f"{folder}: more than {_MOST_FILES} files", "name the folder of the module's sources"
                    )
                yield path, status


def sync(
    folder: Path, tree: Path, known: Mapping[str, tuple[int, int]], since: int | None = None
) -> tuple[Changes, Stamps]:
    """Make ``tree`` hold the sources of ``folder``. ``known`` are the stamps of the last time, noted at ``since`` (ns);
    the new ones are returned with what changed. A copy that is newer than the note was made by a build that was killed:
    its change has had no effect yet."""
    stamps: Stamps = {}
    modified: set[str] = set()
    others: set[str] = set()
    for path, status in sources(folder):
        stamp = (status.st_size, status.st_mtime_ns)
        copy = tree / path
        before = known.get(path)
        if before == stamp and copy.is_file():
            stamps[path] = stamp
            continue
        try:
            data = (folder / path).read_bytes()
        except FileNotFoundError:
            continue
        stamps[path] = stamp
        if before is not None and copy.is_file() and copy.read_bytes() == data:
            if since is not None and copy.stat().st_mtime_ns > since:
                modified.add(path)
            continue
        (others if before is None else modified).add(path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        copy.write_bytes(data)
        shutil.copymode(folder / path, copy)
    for path in known.keys() - stamps.keys():
        others.add(path)
        (tree / path).unlink(missing_ok=True)
    return Changes(frozenset(modified), frozenset(others)), stamps


def kbuild_for(folder: Path, stamps: Stamps) -> str | None:
    """The Kbuild of a folder that has neither Kbuild nor Makefile: each file with a licence is a module. None where the
    folder has its own; UsageError where there is nothing to build."""
    if "Kbuild" in stamps or "Makefile" in stamps:
        return None
    candidates = sorted(path for path in stamps if path.endswith(".c") and "/" not in path)
    if not candidates:
        raise UsageError(f"{folder}: no Kbuild, Makefile or .c file in it", "name the folder of the module's sources")
    modules = [path for path in candidates if _MODULE.search((folder / path).read_bytes())]
    if not modules:
        said = ", ".join(candidates[:4])
        raise UsageError(f"{folder}: none of {said} has a MODULE_LICENSE: which is the module?", "write a Kbuild")
    return "".join(f"obj-m += {path.removesuffix('.c')}.o\n" for path in modules)
