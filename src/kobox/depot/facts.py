"""The facts of a configuration, each with the file and line it stands at. Records only; reading them is ``config``'s.

Named tuples, not dataclasses: a modprobe must start in milliseconds, and importing ``dataclasses`` takes a fifth of
them.
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a fact stands. ``line`` is 1-based; 0 means the whole file."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Alias(NamedTuple):
    pattern: str
    module: str
    place: Place


class Blacklist(NamedTuple):
    module: str
    place: Place


class Options(NamedTuple):
    module: str
    options: str
    place: Place


class Command(NamedTuple):
    """An ``install`` or ``remove`` line. ``pattern`` may be a wildcard; the first match counts."""

    pattern: str
    command: str
    place: Place


class Softdep(NamedTuple):
    pattern: str
    pre: tuple[str, ...]
    post: tuple[str, ...]
    place: Place

    def text(self) -> str:
        """As kmod prints it: nothing separates the last ``pre`` from ``post:``."""
        return ("pre: " + " ".join(self.pre) if self.pre else "") + (
            "post: " + " ".join(self.post) if self.post else ""
        )


class Weakdep(NamedTuple):
    pattern: str
    weak: tuple[str, ...]
    place: Place

    def text(self) -> str:
        return " ".join(self.weak)


class Complaint(NamedTuple):
    """Something the reader did not accept. ``text`` is kmod's wording, without a newline; so is the reader's name."""

    place: Place
    text: str
    reader: str = "kmod_config_parse"


class SourceFile(NamedTuple):
    """A file that was read, or a file that another directory's file of the same name hides."""

    path: str
    hidden_by: str = ""


class Config(NamedTuple):
    """All facts, each list in the order in which kmod looks at it."""

    aliases: list[Alias]
    blacklists: list[Blacklist]
    options: list[Options]
    install: list[Command]
    remove: list[Command]
    softdeps: list[Softdep]
    weakdeps: list[Weakdep]
    complaints: list[Complaint]
    files: list[SourceFile]


def empty_config() -> Config:
    return Config([], [], [], [], [], [], [], [], [])
