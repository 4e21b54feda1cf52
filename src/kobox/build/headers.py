"""Kernel headers: what a prepared tree says of itself, where one is looked for, and fetching one through apt.

A tree is what ``make -C`` is given for an external module: ``Makefile``, ``include/config/auto.conf``,
``Module.symvers``. Debian's trees name each other by absolute paths; handing make the common tree's Makefile directly
steps around the only one that matters, so that an unpacked root can be used where it is, without privileges.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kobox.build.fetch import fetch_headers, runs_here
from kobox.errors import KoboxError, UsageError
from kobox.image import Added, find_image
from kobox.image.config import Config
from kobox.image.image import Progress
from kobox.image.store import headers_home

_HOST = Path("/")
_PLACES = ("lib/modules/{}/build", "usr/lib/modules/{}/build", "usr/src/linux-headers-{}", "usr/src/kernels/{}")
"""Where a root has the headers of a release: by the kernel's own convention, Debian's, Fedora's."""
_NEEDED = ("Makefile", "include/config/auto.conf")
_UTS = re.compile(r'#define\s+UTS_RELEASE\s+"([^"]+)"')
_INCLUDE = re.compile(r"^include\s+(/\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Headers:
    """One prepared tree. ``makefile`` is what make is given with ``-f``; ``where`` says who has it, for people."""

    release: str
    directory: Path
    makefile: Path
    where: str = ""

    @property
    def config(self) -> Config:
        """The kernel's build configuration, as kbuild reads it."""
        return Config((self.directory / "include/config/auto.conf").read_bytes())

    @property
    def identity(self) -> list[object]:
        """Changes when the tree is replaced: what was built against it is then out of date."""
        facts: list[object] = [str(self.directory)]
        for name in (*_NEEDED, "Module.symvers"):
            file = self.directory / name
            status = file.stat() if file.exists() else None
            facts += [status.st_size, status.st_mtime_ns] if status else [0, 0]
        return facts


def read_headers(directory: Path, root: Path = _HOST, where: str = "") -> Headers:
    """The tree in ``directory``; its absolute paths are meant below ``root``. UsageError names what is not there."""
    for name in _NEEDED:
        if not (directory / name).is_file():
            raise UsageError(f"{directory}: no prepared kernel headers: no {name} in it")
    return Headers(_release_of(directory), directory, _makefile_of(directory, root), where or str(directory))


def find_headers(
    release: str,
    *,
    given: Path | None = None,
    root: Path | None = None,
    fetch: bool = True,
    progress: Progress = lambda text: None,
) -> Headers:
    """The headers of a release: ``given`` (a tree, or a root that has it), else below ``root``, else the added image's
    own, those fetched before, this host's, and at last Debian's packages through apt, kept for the next time."""
    if given is not None:
        return _given(release, given)
    added = find_image(release)
    for place, where in _roots(release, root, added):
        own = place in (headers_home(release), Path(added.root) if added else None)
        for directory in _trees(place, release):
            if _complete(directory) and (not own or runs_here(directory)):  # else they are fetched with what they need
                return read_headers(directory, place, where)
    if not fetch:
        raise UsageError(f"no headers of {release} on this machine")
    return _fetched(release, added, progress)


def _given(release: str, given: Path) -> Headers:
    if not given.is_dir():
        raise UsageError(f"{given}: no such directory")
    candidates = [(given, _HOST), *((tree, given) for tree in _trees(given, release))]
    for directory, root in candidates:
        if _complete(directory):
            headers = read_headers(directory.resolve(), root.resolve(), f"{given}, given with --headers")
            if headers.release != release:
                raise UsageError(
                    f"{given}: headers of {headers.release}, not of {release}", hint=f"--image {headers.release}"
                )
            return headers
    raise UsageError(
        f"{given}: no prepared kernel headers of {release} in it", "it should have include/config/auto.conf"
    )


def _roots(release: str, root: Path | None, added: Added | None) -> Iterator[tuple[Path, str]]:
    if root is not None:
        yield root.absolute(), f"{root}, given with --root"
    if added is not None and added.root:
        yield Path(added.root), f"the image {release}"
    yield headers_home(release), "fetched with apt"
    yield _HOST, "this host"


def _trees(root: Path, release: str) -> Iterator[Path]:
    """Where a root may have the headers; an absolute link is meant below the root."""
    for place in _PLACES:
        path = root / place.format(release)
        if path.is_symlink() and os.path.isabs(target := os.readlink(path)):
            path = root / target.lstrip("/")
        if path.is_dir():
            yield path.resolve()


def _complete(directory: Path) -> bool:
    return all((directory / name).is_file() for name in _NEEDED)


def _fetched(release: str, added: Added | None, progress: Progress) -> Headers:
    try:
        home = fetch_headers(release, added, progress)
    except UsageError as error:
        raise UsageError(f"no headers of {release} on this machine, and {error.text}", "give --headers DIR") from error
    except KoboxError as error:
        raise type(error)(
            f"no headers of {release} on this machine, and fetching them failed: {error.text}", "give --headers DIR"
        ) from error
    for directory in _trees(home, release):
        if _complete(directory):
            return read_headers(directory, home, "fetched with apt")
    raise UsageError(f"the packages of linux-headers-{release} hold no prepared headers", "give --headers DIR")


def _release_of(directory: Path) -> str:
    """As ``uname -r`` says it: what the tree was prepared for."""
    header = directory / "include/generated/utsrelease.h"
    found = _UTS.search(header.read_text("utf-8", "replace")) if header.is_file() else None
    if found is None:
        raise UsageError(f"{directory}: no prepared kernel headers: include/generated/utsrelease.h names no release")
    return found[1]


def _makefile_of(directory: Path, root: Path) -> Path:
    """The Makefile that the one in ``directory`` would include by an absolute path, else that one."""
    own = directory / "Makefile"
    included = _INCLUDE.search(own.read_text("utf-8", "replace"))
    if included is None:
        return own
    below = root / included[1].lstrip("/")
    return below if below.is_file() else Path(included[1])
