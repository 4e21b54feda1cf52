"""What may stand at the cursor: commands, options, paths of the kernel's tree, files, modules and their parameters."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from kobox.errors import Errno, KoboxError
from kobox.shell.interpreter import Shell
from kobox.shell.syntax import SyntaxFault, tokens
from kobox.shell.tree import HOST

_SPECIAL = re.compile(r"([ \t\n;|<>&()\\'\"$`*?\[#~])")
_MODULE_FILES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_AFTER_COMMAND = frozenset({";", "|", "&&", "||", "newline"})


class ModuleNames(Protocol):
    """What can be loaded. Whoever opens a shell knows where from."""

    def names(self) -> Iterable[str]:
        """Modules that ``modprobe`` finds."""

    def parameters(self, module: str) -> Iterable[str]:
        """Names of the parameters of a module: its name, or a file's path."""


class Found(NamedTuple):
    """What may replace the text from ``start`` to the cursor. A word that is complete ends with a blank."""

    start: int
    words: list[str]


class _At(NamedTuple):
    """Where the cursor is: the words of this command so far, the one under it, and what is in front of that."""

    words: list[str]
    word: str
    start: int
    before: str


class Completer:
    """Completion for one shell."""

    def __init__(self, shell: Shell, modules: ModuleNames) -> None:
        self._shell, self._modules = shell, modules
        self._names: list[str] = []

    def complete(self, line: str) -> Found:
        """For the end of ``line``; errors of the kernel mean that there is nothing to offer."""
        at = _locate(line)
        if at is None:
            return Found(len(line), [])
        try:
            return Found(at.start, sorted(set(self._words(at))))
        except (KoboxError, OSError):
            return Found(at.start, [])

    def _words(self, at: _At) -> Iterable[str]:
        if at.before in ("<", ">", ">>"):
            return self._paths(at.word)
        if at.word.startswith("$") and "/" not in at.word:
            names = (f"${name} " for name in self._shell.variables)
            return [name for name in names if name.startswith(at.word)]
        if not at.words:
            return _starting(at.word, self._shell.names)
        command = self._shell.commands.get(at.words[0])
        if at.word.startswith("-") and command is not None:
            return _starting(at.word, command.options)
        kind = command.completes if command is not None else "paths"
        return self._operands(kind, at)

    def _operands(self, kind: str, at: _At) -> Iterable[str]:
        operands = [word for word in at.words[1:] if not word.startswith("-")]
        offers: dict[str, Callable[[], Iterable[str]]] = {
            "paths": lambda: self._paths(at.word),
            "files": lambda: self._parameters(operands[0], at.word) if operands else _host_files(at.word),
            "modules": lambda: self._parameters(operands[0], at.word) if operands else self._loadable(at.word),
            "loaded": lambda: _starting(at.word, (module.name for module in self._shell.kernel.modules)),
            "commands": lambda: _starting(at.word, self._shell.names),
        }
        return offers[kind]() if kind in offers else []

    def _loadable(self, word: str) -> Iterable[str]:
        if "/" in word:
            return _host_files(word)
        if not self._names:
            self._names = sorted(self._modules.names())
        plain = word.replace("-", "_")
        return [f"{name} " for name in self._names if name.startswith(plain)]

    def _parameters(self, module: str, word: str) -> Iterable[str]:
        return [f"{name}=" for name in self._modules.parameters(module) if name.startswith(word)]

    def _paths(self, word: str) -> Iterable[str]:
        if word.startswith(HOST):
            return [HOST + name for name in _host_files(word.removeprefix(HOST), suffixes=())]
        folder, slash, name = word.rpartition("/")
        try:
            entries = self._shell.tree.entries(folder + slash or ".")
        except Errno:
            return []
        base = quoted(folder + slash)
        found = []
        for entry in entries:
            if not entry.name.startswith(name) or (entry.name.startswith(".") and not name):
                continue
            is_folder = entry.kind == "dir" or (
                entry.kind == "link" and self._shell.tree.is_folder(folder + slash + entry.name)
            )
            found.append(f"{base}{quoted(entry.name)}{'/' if is_folder else ' '}")
        return found


def quoted(text: str) -> str:
    """``text`` so that the shell reads it as one word."""
    return _SPECIAL.sub(r"\\\1", text)


def _starting(word: str, names: Iterable[str]) -> list[str]:
    return [f"{name} " for name in names if name.startswith(word)]


def _host_files(word: str, suffixes: tuple[str, ...] = _MODULE_FILES) -> list[str]:
    """Directories and files of this host that end so."""
    folder, slash, name = word.rpartition("/")
    found = []
    with os.scandir(folder + slash or ".") as entries:
        for entry in entries:
            if not entry.name.startswith(name) or (entry.name.startswith(".") and not name):
                continue
            if entry.is_dir():
                found.append(f"{quoted(folder + slash + entry.name)}/")
            elif not suffixes or entry.name.endswith(suffixes):
                found.append(f"{quoted(folder + slash + entry.name)} ")
    return found


def _locate(line: str) -> _At | None:
    """Where the end of a line is in its command; None inside quotes, where nothing is offered."""
    try:
        found = tokens(line)
    except SyntaxFault:
        return None
    words: list[str] = []
    before = ""
    last, start = "", len(line)
    for token in found[:-1]:
        if token.kind == "word":
            text = "".join(f"${part.text}" if part.variable else part.text for part in token.word)
            if token.end == len(line):
                last, start = text, token.start
            elif before not in ("<", ">", ">>"):
                words.append(text)
                before = "word"
            else:
                before = "word"
        else:
            before = token.kind
            if token.kind in _AFTER_COMMAND:
                words = []
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        words.pop(0)
    return _At(words, last, start, before)
