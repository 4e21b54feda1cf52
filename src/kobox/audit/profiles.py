"""Profiles: named lists of modules that a policy wants out of reach, read from TOML files.

    title = "File systems that few need"
    [[module]]
    name = "cramfs"
    why = "an unmaintained parser of untrusted images"
    severity = "warning"

The ones that come with kobox lie in ``profiles/``; a path names the user's own.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kobox.depot.findings import SEVERITIES
from kobox.depot.names import module_name
from kobox.errors import BadFile, UsageError


class Unwanted(NamedTuple):
    """A module that should be out of reach, and why."""

    name: str
    why: str
    severity: str


class Profile(NamedTuple):
    name: str
    title: str
    modules: tuple[Unwanted, ...]


def built_in_profiles() -> list[str]:
    """The names of the profiles that come with kobox."""
    folder = resources.files("kobox.audit") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    """A profile by its name, or by the path of a ``.toml`` file."""
    if name.endswith(".toml") or "/" in name:
        return parse_profile(Path(name).read_bytes(), name, Path(name).stem)
    if name not in built_in_profiles():
        known = ", ".join(built_in_profiles())
        raise UsageError(f"no profile {name!r}; there are: {known}", hint="or give the path of a .toml file")
    data = (resources.files("kobox.audit") / "profiles" / f"{name}.toml").read_bytes()
    return parse_profile(data, f"{name}.toml", name)


def parse_profile(data: bytes, file: str, name: str) -> Profile:
    """Check and read a profile. Raises ``BadFile`` that names the entry at fault."""
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadFile(file, "", f"no TOML: {error}") from error
    entries = content.get("module", [])
    if not isinstance(entries, list) or not entries:
        raise BadFile(file, "", "has no [[module]] entry")
    modules = tuple(_unwanted(entry, file, number) for number, entry in enumerate(entries, start=1))
    return Profile(name, str(content.get("title", name)), modules)


def _unwanted(entry: object, file: str, number: int) -> Unwanted:
    place = f"module {number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise BadFile(file, place, "has no name")
    unknown = set(entry) - {"name", "why", "severity"}
    if unknown:
        raise BadFile(file, place, f"unknown key {sorted(unknown)[0]!r}", expected="name, why or severity")
    severity = entry.get("severity", "warning")
    if severity not in SEVERITIES:
        raise BadFile(file, place, "severity", severity, ", ".join(SEVERITIES))
    return Unwanted(module_name(entry["name"]), str(entry.get("why", "")), severity)
