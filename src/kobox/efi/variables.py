"""Firmware variables in a directory: one file each, ``NAME-GUID``, four bytes of attributes before the value.

That is the form of Linux's efivarfs, and of what libefivar reads when ``EFIVARFS_PATH`` names a directory: mokutil,
efivar and efibootmgr work on it as they are.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from enum import IntFlag
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from kobox.efi.siglist import SHIM
from kobox.errors import BadFile, UsageError

GLOBAL: Final = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
SECURITY_DATABASE: Final = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_FILE: Final = re.compile(r"(?P<name>.+)-(?P<guid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
_ATTRIBUTES_SIZE: Final = 4


class Attribute(IntFlag):
    """EFI_VARIABLE_… without the prefix."""

    NON_VOLATILE = 1
    BOOTSERVICE_ACCESS = 2
    RUNTIME_ACCESS = 4
    TIME_BASED_AUTHENTICATED_WRITE_ACCESS = 0x20
    APPEND_WRITE = 0x40


BOOT = Attribute.NON_VOLATILE | Attribute.BOOTSERVICE_ACCESS
"""What a running system neither sees nor changes: shim's own lists."""
SHOWN = Attribute.BOOTSERVICE_ACCESS | Attribute.RUNTIME_ACCESS
KEPT = Attribute.NON_VOLATILE | SHOWN
SIGNED = KEPT | Attribute.TIME_BASED_AUTHENTICATED_WRITE_ACCESS


class Key(NamedTuple):
    """A variable's name and its owner's namespace."""

    name: str
    guid: UUID

    def __str__(self) -> str:
        return f"{self.name}-{self.guid}"


class Variable(NamedTuple):
    attributes: Attribute
    value: bytes


PK, KEK = Key("PK", GLOBAL), Key("KEK", GLOBAL)
DB, DBX = Key("db", SECURITY_DATABASE), Key("dbx", SECURITY_DATABASE)
SECURE_BOOT, SETUP_MODE = Key("SecureBoot", GLOBAL), Key("SetupMode", GLOBAL)


def shim(name: str) -> Key:
    """A variable of shim's, ``MokList`` or the like."""
    return Key(name, SHIM)


class Variables(dict[Key, Variable]):
    """All variables of a machine. A plain dictionary: files are read and written by ``load`` and ``save``."""

    def value(self, key: Key) -> bytes:
        """Empty where there is no such variable."""
        found = self.get(key)
        return found.value if found is not None else b""

    def flag(self, key: Key) -> bool:
        return self.value(key)[:1] == b"\x01"

    def store(self, key: Key, value: bytes, attributes: Attribute) -> None:
        """Set; an empty value removes, as in the firmware."""
        if value:
            self[key] = Variable(attributes, value)
        else:
            self.pop(key, None)


def load(folder: str | os.PathLike[str]) -> Variables:
    """The variables of a directory. ``UsageError`` when there is none, ``BadFile`` for a file that is none."""
    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"{place}: no directory of firmware variables", "kobox mok --init makes one")
    found = Variables()
    for path in sorted(place.iterdir()):
        named = _FILE.fullmatch(path.name)
        if named is None or not path.is_file():
            continue
        data = path.read_bytes()
        if len(data) < _ATTRIBUTES_SIZE:
            raise BadFile(str(path), "", "a variable without attributes", len(data), "at least 4 bytes")
        attributes = Attribute(int.from_bytes(data[:_ATTRIBUTES_SIZE], "little"))
        found[Key(named["name"], UUID(named["guid"]))] = Variable(attributes, data[_ATTRIBUTES_SIZE:])
    return found


def save(folder: str | os.PathLike[str], variables: Mapping[Key, Variable]) -> None:
    """Make the directory hold exactly these; each file is replaced whole, what did not change is not touched."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    wanted = {str(key): variable for key, variable in variables.items()}
    for path in list(place.iterdir()):
        if path.name not in wanted and _FILE.fullmatch(path.name):
            path.unlink()
    for name, variable in wanted.items():
        data = _file(variable)
        path = place / name
        if not path.is_file() or path.read_bytes() != data:
            _replace(path, data)


def keep(folder: str | os.PathLike[str], key: Key, variable: Variable | None) -> None:
    """Write one variable to the directory, or remove it (None); the others are left alone."""
    path = Path(folder) / str(key)
    if variable is None:
        path.unlink(missing_ok=True)
    else:
        _replace(path, _file(variable))


def _file(variable: Variable) -> bytes:
    return int(variable.attributes).to_bytes(_ATTRIBUTES_SIZE, "little") + variable.value


def _replace(path: Path, data: bytes) -> None:
    handle, beside = tempfile.mkstemp(prefix=".", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(beside, path)


def rows(variables: Mapping[Key, Variable]) -> Iterator[tuple[str, int, str]]:
    """Name with GUID, attributes, value in hex: a form that can be a part of a key and of JSON."""
    for key, variable in sorted(variables.items()):
        yield str(key), int(variable.attributes), variable.value.hex()


def from_rows(listed: object) -> Variables:
    """Back from ``rows``."""
    found = Variables()
    for name, attributes, value in listed:  # type: ignore[attr-defined]  # rows, from JSON
        named = _FILE.fullmatch(name)
        if named is None:
            raise ValueError(f"no name of a variable: {name!r}")
        found[Key(named["name"], UUID(named["guid"]))] = Variable(Attribute(attributes), bytes.fromhex(value))
    return found
