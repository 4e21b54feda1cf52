"""``kobox __complete WORD ...``: what can stand in the place of the last word of a command line.

The scripts in ``completions`` ask it at each press of the key and put the answer into their shell's form. The first
line of the answer says which files fit too (``files``, ``dirs``, ``modules``: files of modules, or nothing); each
further line is a word, a tab, and what it is. Nothing heavy is imported: an answer takes less than a tenth of a second.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kobox.cli.described import usage_of
from kobox.cli.options import Option, Usage
from kobox.cli.table import COMMANDS
from kobox.cli.values import Asked, Words, values

_SAFE = re.compile(r"[\w.,:+@%/=-]+")
"""Words that mean themselves to every shell. Others, which a hostile module's file may name, are not offered."""
_LOADED = {"-r", "--remove"}
"""With one of these modprobe takes names of loaded modules."""
_FREE = "--name"
"""Takes a new name, which nothing can know."""
_OF_THE_GUEST = frozenset({"cat", "ls", "write"})
"""Commands whose paths are the session's kernel's."""


class Answer(NamedTuple):
    """Words with what they are, and which files fit beside them."""

    files: str
    words: list[tuple[str, str]]


def main(words: Sequence[str]) -> int:
    """Print the answer for the words behind ``kobox``; the last one is being typed and may be empty."""
    answer = complete(words or [""])
    rows = (f"{word}\t{_printable(about)}" for word, about in answer.words if _SAFE.fullmatch(word))
    text = "\n".join([answer.files, *rows])
    sys.stdout.buffer.write((text + "\n").encode("utf-8", "surrogateescape"))
    return 0


def _printable(text: str) -> str:
    """On one line, and nothing that a terminal would act on: it may come from a module's file."""
    return "".join(char if char.isprintable() else " " for char in text)


def complete(words: Sequence[str]) -> Answer:
    """What fits in the place of the last word."""
    *before, current = words
    if not before:
        options = (("--help", "every command"), ("--version", "kobox's version"))
        return _fitting(current, "", options if current.startswith("-") else _commands())
    if before[0] not in COMMANDS:
        return Answer("", [])
    return _Line(usage_of(before[0]), before[1:], current).answer()


def _commands() -> Iterator[tuple[str, str]]:
    return ((name, command.help) for name, command in COMMANDS.items())


def _fitting(current: str, files: str, words: Words) -> Answer:
    return Answer(files, [(word, about) for word, about in words if word.startswith(current)])


class _Line:
    """A command's words, read as its parser will read them, as far as they have come."""

    def __init__(self, usage: Usage, before: Sequence[str], current: str) -> None:
        self.usage, self.current = usage, current
        self.given: dict[str, str] = {}
        self.operands: list[str] = []
        self.pending: list[tuple[Option, str]] = []
        """Options that still want a word, each with its placeholder."""
        self.only_operands = False
        for word in before:
            self._take(word)

    def answer(self) -> Answer:
        """What fits in the place of the word being typed."""
        asked = Asked(self.given, self.operands, self.current)
        current = self.current
        if self.pending:
            return _fitting(current, *_values_of(*self.pending[0], asked))
        name, equals, _ = current.partition("=")
        one = self._find(name)
        if equals and name.startswith("--") and one is not None:
            files, words = _values_of(one, one.argument, asked)
            return _fitting(current, files, ((f"{name}={word}", about) for word, about in words))
        if current.startswith("-") and not self.only_operands:
            return _fitting(current, "", self._option_words())
        if self.usage.verbs:
            return _fitting(current, "", ((verb.name.split()[-1], verb.help) for verb in self.usage.verbs))
        return _fitting(current, *self._operand_words(asked))

    def _take(self, word: str) -> None:
        if self.pending:
            self._note(self.pending.pop(0)[0], word)
        elif self.only_operands or not word.startswith("-") or word == "-":
            self._take_operand(word)
        elif word == "--":
            self.only_operands = True
        else:
            self._take_option(word)

    def _take_operand(self, word: str) -> None:
        verb = next((verb for verb in self.usage.verbs if verb.name.split()[-1] == word), None)
        if verb is not None:
            self.usage = verb
        else:
            self.operands.append(word)

    def _take_option(self, word: str) -> None:
        name, equals, value = word.partition("=")
        one = self._find(name)
        if one is None and not word.startswith("--"):  # -vn, -Cfile: letters up to the one that takes an argument
            for place in range(1, len(word)):
                one = self._find(f"-{word[place]}")
                if one is not None and one.argument:
                    equals, value = word[place + 1 :], word[place + 1 :]
                    break
        if one is None:
            return
        self._note(one, value)
        if one.argument and one.values and not equals:
            self.pending = [(one, placeholder) for placeholder in one.argument.split()[: one.values]]

    def _note(self, one: Option, value: str) -> None:
        for name in one.names:
            self.given[name] = value

    def _find(self, name: str) -> Option | None:
        return next((one for one in self.usage.options if name in one.names), None)

    def _option_words(self) -> Iterator[tuple[str, str]]:
        for one in self.usage.options:
            yield from ((name, one.help) for name in one.names)

    def _operand_words(self, asked: Asked) -> tuple[str, list[tuple[str, str]]]:
        operands = self.usage.operands
        place = len(self.operands)
        if place < len(operands):
            operand = operands[place]
        elif operands and operands[-1].many:
            operand = operands[-1]
        else:
            return "", []
        if operand.choices:
            return "", [(choice, "") for choice in operand.choices]
        if operand.name == "MODULE" and _LOADED & self.given.keys():
            return values("LOADED", asked)
        if operand.name == "PATH" and self.usage.name in _OF_THE_GUEST:
            return values("GUEST-PATH", asked)
        return values(operand.name, asked)


def _values_of(one: Option, placeholder: str, asked: Asked) -> tuple[str, list[tuple[str, str]]]:
    if one.choices:
        return "", [(choice, "") for choice in one.choices]
    if _FREE in one.names:
        return "", []
    return values(placeholder, asked)
