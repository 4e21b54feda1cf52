"""Option parsing with the manners of glibc's ``getopt_long``, for the commands that scripts call as kmod's tools.

argparse differs where it shows: permutation of operands, abbreviated long options, ``-vvn``, the wording of errors.
Follows getopt_long(3). Not here: what an option means.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Long(NamedTuple):
    """A long option: the name it is reported under, and whether it takes an argument."""

    name: str
    argument: bool = False


class Parsed(NamedTuple):
    options: list[tuple[str, str]]
    """In the order given; the value is empty for an option without an argument."""
    operands: list[str]


class GetoptError(Exception):
    """A wrong option; the text is glibc's, without the program's name."""


def getopt_long(argv: Sequence[str], short: str, long: Mapping[str, Long]) -> Parsed:
    """Split ``argv`` (without the program) into options and operands.

    ``short`` is the classic string (``"ab:"``). A leading ``+``, or POSIXLY_CORRECT in the environment, ends the
    options at the first operand.
    """
    in_order = short.startswith("+") or "POSIXLY_CORRECT" in os.environ
    takes_value = _short_table(short.lstrip("+"))
    options: list[tuple[str, str]] = []
    operands: list[str] = []
    rest = list(argv)
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if word == "--":
            operands += rest[position:]
            break
        if word.startswith("--"):
            position = _long_option(word[2:], rest, position, long, options)
        elif word.startswith("-") and word != "-":
            position = _short_cluster(word, rest, position, takes_value, options)
        elif in_order:
            operands += rest[position - 1 :]
            break
        else:
            operands.append(word)
    return Parsed(options, operands)


def _short_table(short: str) -> dict[str, bool]:
    return {letter: short[i + 1 : i + 2] == ":" for i, letter in enumerate(short) if letter != ":"}


def _short_cluster(
    word: str, rest: list[str], position: int, takes_value: dict[str, bool], options: list[tuple[str, str]]
) -> int:
    for i, letter in enumerate(word[1:], start=1):
        if letter not in takes_value:
            raise GetoptError(f"invalid option -- '{letter}'")
        if not takes_value[letter]:
            options.append((letter, ""))
            continue
        if i + 1 < len(word):
            options.append((letter, word[i + 1 :]))
        elif position < len(rest):
            options.append((letter, rest[position]))
            position += 1
        else:
            raise GetoptError(f"option requires an argument -- '{letter}'")
        break
    return position


def _long_option(
    word: str, rest: list[str], position: int, long: Mapping[str, Long], options: list[tuple[str, str]]
) -> int:
    given, has_value, value = word.partition("=")
    full, option = _find_long(given, word, long)
    if not option.argument:
        if has_value:
            raise GetoptError(f"option '--{full}' doesn't allow an argument")
        options.append((option.name, ""))
    elif has_value:
        options.append((option.name, value))
    elif position < len(rest):
        options.append((option.name, rest[position]))
        position += 1
    else:
        raise GetoptError(f"option '--{full}' requires an argument")
    return position


def _find_long(given: str, word: str, long: Mapping[str, Long]) -> tuple[str, Long]:
    if given in long:
        return given, long[given]
    candidates = [name for name in long if name.startswith(given)]
    if not candidates:
        raise GetoptError(f"unrecognized option '--{word}'")
    if len({long[name] for name in candidates}) > 1:
        listed = " ".join(f"'--{name}'" for name in candidates)
        raise GetoptError(f"option '--{word}' is ambiguous; possibilities: {listed}")
    return candidates[0], long[candidates[0]]
