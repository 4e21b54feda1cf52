"""What a command accepts, as one table: options with their names, arguments and help, in groups.

A command with kmod's manners declares its table (``kmod_options``); getopt's tables and the text of ``--help`` are made
from it. What a command of argparse accepts is read off its parser (``described``). Manual pages and completion see only
these records.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kobox.cli.gnu_getopt import Long

_COLUMN = 27
_WIDTH = 100
_INDENT = "  "


class Option(NamedTuple):
    """``names`` as they are typed, short ones first. ``argument`` is its placeholder, empty where there is none;
    ``values`` how many words it takes (0: perhaps one). ``choices`` are all words that it takes, where these are
    known."""

    names: tuple[str, ...]
    help: str
    argument: str = ""
    group: str = ""
    choices: tuple[str, ...] = ()
    values: int = 1

    @property
    def key(self) -> str:
        """What getopt reports it as: the letter, or the first long name."""
        return self.names[0].lstrip("-")

    @property
    def spelling(self) -> str:
        """``-d, --dirname DIR``; options without a letter are indented by its width."""
        indent = "" if len(self.names[0]) == 2 else " " * 4
        return indent + ", ".join(self.names) + (f" {self.argument}" if self.argument else "")


class Operand(NamedTuple):
    """A word that is no option. ``many``: it may be repeated."""

    name: str
    help: str = ""
    many: bool = False
    choices: tuple[str, ...] = ()


class Usage(NamedTuple):
    """All that a command, or a verb of one, takes. ``lines`` are its ways to be called, without the program's name."""

    name: str
    help: str
    lines: tuple[str, ...]
    options: tuple[Option, ...]
    operands: tuple[Operand, ...] = ()
    verbs: tuple[Usage, ...] = ()
    text: str = ""
    """What stands between the ways to call it and the options."""
    epilog: str = ""
    """Examples, and what else stands behind the options."""

    group_order: tuple[str, ...] = ()
    """Groups in the order of the help; others follow as they appear."""

    @property
    def groups(self) -> dict[str, list[Option]]:
        """Options by their group."""
        groups: dict[str, list[Option]] = {group: [] for group in self.group_order}
        for option in self.options:
            groups.setdefault(option.group, []).append(option)
        return groups


def option(spelling: str, help: str, group: str = "", choices: Iterable[str] = ()) -> Option:
    """``option("-d, --dirname DIR", "…")``: the form in which tables are written."""
    words = spelling.split(", ")
    last, _, argument = words[-1].partition(" ")
    return Option((*words[:-1], last), help, argument, group, tuple(choices))


def getopt_tables(options: Iterable[Option], in_order: bool = False) -> tuple[str, dict[str, Long]]:
    """The short string and the long table that ``getopt_long`` takes. A long name is reported under its option's
    key."""
    short, long = "+" if in_order else "", {}
    for one in options:
        for name in one.names:
            if name.startswith("--"):
                long[name[2:]] = Long(one.key, bool(one.argument))
            else:
                short += name[1:] + ":" * bool(one.argument)
    return short, long


def help_text(usage: Usage) -> str:
    """The text of ``--help``."""
    lines = [f"{'usage:' if not n else '      '} kobox {usage.name} {line}" for n, line in enumerate(usage.lines)]
    if usage.text:
        lines += ["", *textwrap.wrap(usage.text, _WIDTH)]
    for group, options in usage.groups.items():
        lines += ["", *([f"{group}:"] if group else [])]
        for one in options:
            lines += _rows(one)
    if usage.epilog:
        lines += ["", usage.epilog.rstrip("\n")]
    return "\n".join(lines) + "\n"


def _rows(one: Option) -> Iterator[str]:
    head = _INDENT + one.spelling
    wrapped = textwrap.wrap(one.help, _WIDTH - _COLUMN) or [""]
    if len(head) >= _COLUMN:
        yield head
    else:
        wrapped[0] = head.ljust(_COLUMN) + wrapped[0]
        yield wrapped.pop(0)
    yield from (" " * _COLUMN + line for line in wrapped)
