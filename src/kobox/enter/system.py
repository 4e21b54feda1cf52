"""What of a system belongs to the session's kernel: ``/lib/modules/RELEASE`` and the configuration of modprobe.

A folder beside the session's socket, made by the first ``kobox enter`` and shared by all of the session: what depmod,
``modules_install`` or an editor writes there is seen by the next one, and ends with the session. The module files
themselves are the image's or the root's, shown where they are expected.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kobox.build.headers import find_headers
from kobox.depot.tree import ModuleTree
from kobox.errors import UsageError
from kobox.kernel.module_source import with_index

_CONFIGURATION = ("etc/modprobe.d", "lib/modprobe.d", "usr/lib/modprobe.d", "run/modprobe.d", "etc/depmod.d")
_BUILD_LINKS = ("build", "source")
_SUDO = """\
#!/bin/sh
# kobox: whoever is here is root already. Options of sudo are taken and mean nothing.
while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        -u|-g|-U|-p|-C|-r|-t|-T|-h|--user|--group|--prompt) shift 2 ;;
        -i|-s|--login|--shell) shift; [ $# -gt 0 ] || exec "${SHELL:-/bin/sh}" ;;
        -v|-k|-K|--validate) exit 0 ;;
        -*) shift ;;
        *=*) export "$1"; shift ;;
        *) break ;;
    esac
done
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class System:
    """``modules`` is shown at ``/lib/modules/RELEASE``; ``folders`` of it are shown from elsewhere (source by name).
    ``configuration``: (source, place) of folders that replace the host's. ``programs`` is put first in PATH."""

    release: str
    modules: str
    folders: dict[str, str]
    configuration: tuple[tuple[str, str], ...]
    programs: str


def prepare(session: Path, release: str, source: Path | None, root: str | None) -> System:
    """Make the folder if it is not there. ``source``: where the kernel's modules are; ``root``: the session's."""
    home = session / "system"
    if not (home / "modules").is_dir():
        _make(home, release, source)
    folders: dict[str, str] = {}
    if source is not None and source.is_dir():
        folders = {entry.name: entry.path for entry in os.scandir(source) if entry.is_dir(follow_symlinks=False)}
    if root is None:
        configuration = [(str(home / "modprobe.d"), "/etc/modprobe.d")]
        configuration += [
            (str(home / "nothing"), f"/{place}") for place in _CONFIGURATION if os.path.isdir(f"/{place}")
        ]
        configuration = [row for row in configuration if row[1] != "/etc/modprobe.d" or row[0].endswith("modprobe.d")]
    else:
        configuration = [
            (where if os.path.isdir(where := f"{root}/{place}") else str(home / "nothing"), f"/{place}")
            for place in _CONFIGURATION
            if os.path.isdir(f"{root}/{place}") or os.path.isdir(f"/{place}")
        ]
    return System(release, str(home / "modules"), folders, tuple(configuration), str(home / "bin"))


def _make(home: Path, release: str, source: Path | None) -> None:
    """All of it in a folder aside, then in place at once: another ``kobox enter`` may do the same."""
    work = home.with_name(f"system.{os.getpid()}")
    for name in ("modules", "modprobe.d", "nothing", "bin"):
        (work / name).mkdir(parents=True)
    modules = work / "modules"
    if source is not None and source.is_dir():
        for entry in os.scandir(source):
            if entry.is_dir(follow_symlinks=False):
                (modules / entry.name).mkdir()
            elif entry.name not in _BUILD_LINKS:
                (modules / entry.name).symlink_to(os.path.realpath(entry.path))
        index = Path(with_index(ModuleTree.at(source)).indexes)
        for entry in os.scandir(index):
            if entry.name.startswith("modules.") and not (modules / entry.name).exists():
                (modules / entry.name).symlink_to(os.path.realpath(entry.path))
    _show_headers(modules, release)
    shim = work / "bin/sudo"
    shim.write_text(_SUDO)
    shim.chmod(0o755)
    try:
        work.rename(home)
    except OSError:
        if not (home / "modules").is_dir():
            raise
        shutil.rmtree(work)


def _show_headers(modules: Path, release: str) -> None:
    """``build``: the kernel's headers, where this machine has them. Debian's are unpacked anywhere, but their Makefile
    names another by an absolute path; ours names the real one."""
    try:
        headers = find_headers(release, fetch=False)
    except UsageError:
        return
    build = modules / "build"
    if headers.makefile.parent == headers.directory:
        build.symlink_to(headers.directory)
    else:
        build.mkdir()
        for entry in os.scandir(headers.directory):
            if entry.name != "Makefile":
                (build / entry.name).symlink_to(entry.path)
        (build / "Makefile").write_text(f"include {headers.makefile}\n")
    (modules / "source").symlink_to("build")
