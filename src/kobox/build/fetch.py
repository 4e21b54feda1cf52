"""Headers of a release through apt, kept in the store; and kbuild's programs among them made to run on this machine.

The programs in a distribution's header packages (modpost, objtool) are linked against its own C library. On an older
host they would not start, so their distribution's C library is fetched too and they are started through its loader.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from kobox.image import Added, apt, data_root
from kobox.image.cache import locked, publish
from kobox.image.deb import extract, read_deb
from kobox.image.image import Progress
from kobox.image.store import headers_home, workspace

_LOADER = Path("/lib64/ld-linux-x86-64.so.2")
_LIBRARIES = ("lib/x86_64-linux-gnu/", "usr/lib/x86_64-linux-gnu/")
_PROGRAMS = ("usr/lib/linux-kbuild-*/scripts", "usr/lib/linux-kbuild-*/tools")
_MODPOST = ("modpost.real-lsb-64", "modpost")
"""Debian's own name for the one of x86-64, and kbuild's."""
_REAL = ".of-its-distribution"
_ELF = b"\x7fELF"


def fetch_headers(release: str, added: Added | None, progress: Progress) -> Path:
    """Fetch the headers of a release into ``headers_home``, from the suite that its image came from; the root they are
    in. UsageError when there are none."""
    home = headers_home(release)
    suite = apt.suite_of(added.source) if added else None
    with workspace() as work:
        got = apt.download_headers(release, work, suite=suite, progress=progress)
        root = work / "root"
        for path in got.files:
            progress(f"unpacking {path.name}")
            extract(read_deb(path), root)
        strangers = [path for path in _programs(root) if not _starts(path)]
        if strangers:
            _bring_library(strangers, root, home, work / "library", suite, progress)
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(data_root(), f"headers-{release}"):
            publish(root, home)
    return home


def runs_here(directory: Path) -> bool:
    """Whether the programs of a tree of headers start on this machine, told by one of them."""
    modposts = (directory / "scripts/mod" / name for name in _MODPOST)
    found = next((path for path in modposts if path.is_file()), None)
    return found is None or _starts(found)


def _programs(root: Path) -> Iterator[Path]:
    for place in _PROGRAMS:
        for folder in root.glob(place):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == _ELF:
                    yield path


def _starts(program: Path) -> bool:
    """Whether this machine's C library is new enough; the loader looks, nothing is run."""
    if not _LOADER.exists() or program.read_bytes()[:4] != _ELF:
        return True
    done = subprocess.run([_LOADER, "--list", program], capture_output=True, text=True, check=False)
    return "version `GLIBC_" not in done.stderr + done.stdout


def _bring_library(
    programs: list[Path], root: Path, home: Path, work: Path, suite: str | None, progress: Progress
) -> None:
    """Put the suite's C library beside the headers and have the programs started through its loader."""
    work.mkdir()
    for path in apt.download_packages(["libc6"], work, suite=suite, progress=progress):
        extract(read_deb(path), root / "libc", _LIBRARIES)
    loader = next((root / "libc").rglob(_LOADER.name))
    final = home / loader.relative_to(root)
    for program in programs:
        program.rename(program.with_name(program.name + _REAL))
        program.write_text(f'#!/bin/sh\nexec "{final}" --library-path "{final.parent}" "$0{_REAL}" "$@"\n')
        program.chmod(0o755)
