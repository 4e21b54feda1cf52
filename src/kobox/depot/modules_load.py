"""What is loaded at boot because a list says so: modules-load.d, /etc/modules and ``modules_load=``.

Follows modules-load.d(5): the first directory wins per file name, files are read in the order of their names, one
module a line, the whole of which is its name, ``#`` and ``;`` start comments. systemd applies blacklists to these
names even when they are no aliases. ``/etc/modules``, where no list leads to it, is read as Debian's older scripts do:
a name and its options.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from kobox.depot.config import conf_files
from kobox.depot.facts import Complaint, Place

LOAD_DIRS = (
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
    "/lib/modules-load.d",
)

_KEYS = ("modules_load", "rd.modules_load")


class BootModule(NamedTuple):
    """A module that is asked for at boot, as written."""

    name: str
    place: Place


def boot_modules(root: str = "", cmdline: str = "") -> list[BootModule]:
    """The kernel command line's first, then the files', in the order in which they are loaded."""
    place = Place(f"{root}/proc/cmdline", 1)
    found = [BootModule(name, place) for name in _from_cmdline(cmdline)]
    complaints: list[Complaint] = []
    sources = conf_files([f"{root}{directory}" for directory in LOAD_DIRS], complaints)
    paths = [source.path for source in sources if not source.hidden_by and source.path.endswith(".conf")]
    for path in paths:
        found += _from_file(path)
    old_list = f"{root}/etc/modules"
    if os.path.realpath(old_list) not in map(os.path.realpath, paths):
        found += (entry._replace(name=entry.name.split()[0]) for entry in _from_file(old_list))
    return found


def _from_cmdline(cmdline: str) -> list[str]:
    names: list[str] = []
    for word in cmdline.split():
        key, _, value = word.partition("=")
        if key.replace("-", "_") in _KEYS:
            names += [name for name in value.strip('"').split(",") if name]
    return names


def _from_file(path: str) -> list[BootModule]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError:
        return []
    found = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if name and name[0] not in "#;":
            found.append(BootModule(name, Place(path, number)))
    return found
