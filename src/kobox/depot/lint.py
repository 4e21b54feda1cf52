"""A linter for modprobe.d: lines that kmod passes over, lines that never match, lines that others override.

Each rule is a function from the configuration (and the tree, to know which names exist) to findings. What a policy as a
whole stops or lets through is ``kobox.audit``'s question.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from kobox.depot.facts import Command, Place, Softdep, SourceFile
from kobox.depot.findings import Finding
from kobox.depot.resolve import Resolver
from kobox.depot.rules import glob_match

RULES: dict[str, str] = {
    "bad-line": "a line that kmod does not accept and passes over",
    "hidden-file": "a file that another directory's file of the same name replaces as a whole",
    "unread-file": "a file in a modprobe.d directory whose name does not end in .conf",
    "no-such-module": "a line about a module that neither the tree nor the kernel has",
    "command-overridden": "an install or remove line that an earlier one replaces",
    "command-ignored": "an install line that never runs because the module has soft dependencies",
    "softdep-overridden": "a softdep line that an earlier one for the same module replaces",
    "softdep-empty": "a softdep line without pre: or post:, which means nothing",
    "dash-in-blacklist": "modprobe.blacklist= with a dash: compared with underscores, it never matches",
    "alias-to-nothing": "an alias to a module that does not exist (which blocks the name)",
    "duplicate-line": "a line that says what an earlier line says",
    "carriage-return": "a line that ends in a carriage return, which becomes part of its value",
}
"""Identifier to meaning; the order is that of the report's rules."""


def lint(resolver: Resolver) -> list[Finding]:
    """All findings, in the order of files and lines."""
    found = [finding for rule in _CHECKS for finding in rule(resolver)]
    return sorted(found, key=lambda finding: finding.place or Place(""))


def _bad_lines(resolver: Resolver) -> Iterator[Finding]:
    for complaint in resolver.config.complaints:
        text = complaint.text.removeprefix(f"{complaint.place.file} ").removeprefix(f"{complaint.place.file}: ")
        yield Finding("bad-line", "error", f"kmod says: {text}", complaint.place, "correct or remove the line")


def _hidden_files(resolver: Resolver) -> Iterator[Finding]:
    for source in resolver.config.files:
        if source.hidden_by and not _same_content(source):
            said = f"nothing of this file counts: {source.hidden_by} has the same name and precedence"
            yield Finding("hidden-file", "warning", said, Place(source.path), "merge the two, or rename one")


def _same_content(source: SourceFile) -> bool:
    try:
        with open(source.path, "rb") as one, open(source.hidden_by, "rb") as other:
            return one.read() == other.read()
    except OSError:
        return False


def _unread_files(resolver: Resolver) -> Iterator[Finding]:
    directories = dict.fromkeys(os.path.dirname(source.path) for source in resolver.config.files)
    for directory in directories:
        if not directory.endswith("modprobe.d"):
            continue
        for name in sorted(os.listdir(directory)):
            if not name.endswith((".conf", ".alias")) and not name.startswith((".", "README")):
                path = Place(f"{directory}/{name}")
                yield Finding("unread-file", "warning", "kmod does not read this file", path, "name it *.conf")


def _unknown_modules(resolver: Resolver) -> Iterator[Finding]:
    config = resolver.config
    lines: list[tuple[str, str, Place]] = [("blacklist", fact.module, fact.place) for fact in config.blacklists]
    lines += [("options", fact.module, fact.place) for fact in config.options]
    lines += [("softdep", fact.pattern, fact.place) for fact in config.softdeps]
    known: dict[str, bool] = {}
    for keyword, name, place in lines:
        if any(char in name for char in "*?[") or not name:
            continue
        if os.path.basename(place.file) == "cmdline":  # parts of the kernel have parameters there without being modules
            continue
        if name not in known:
            known[name] = _exists(resolver, name)
        if not known[name]:
            said = f"{keyword} {name}: there is no such module here"
            yield Finding("no-such-module", "note", said, place, "check the spelling; else nothing", name)


def _exists(resolver: Resolver, name: str) -> bool:
    tree = resolver.tree
    if tree.dep_line(name) is not None or tree.is_builtin(name):
        return True
    return any(name in (alias.pattern, alias.module) for alias in resolver.config.aliases)


def _commands(resolver: Resolver) -> Iterator[Finding]:
    config = resolver.config
    for keyword, commands in (("install", config.install), ("remove", config.remove)):
        for at, command in enumerate(commands):
            earlier = _earlier(commands[:at], command)
            if earlier is not None:
                said = f"{keyword} {command.pattern} is never used: {earlier.place} comes first"
                fix = "remove one of the two, or give this file a name that sorts first"
                yield Finding("command-overridden", "warning", said, command.place, fix, command.pattern)


def _earlier(commands: Iterable[Command], later: Command) -> Command | None:
    return next((command for command in commands if glob_match(command.pattern, later.pattern)), None)


def _ignored_commands(resolver: Resolver) -> Iterator[Finding]:
    for command in resolver.config.install:
        if any(char in command.pattern for char in "*?["):
            continue
        softdep = resolver.effective_softdep(command.pattern)
        if softdep is not None:
            said = f"install {command.pattern} is never run: the soft dependency at {softdep.place} takes precedence"
            first = os.path.basename(softdep.place.file)
            fix = f"add 'softdep {command.pattern} pre:' to a file that sorts before {first}"
            yield Finding("command-ignored", "error", said, command.place, fix, command.pattern)


def _softdeps(resolver: Resolver) -> Iterator[Finding]:
    yield from _softdeps_of_modules(resolver)
    softdeps = resolver.config.softdeps
    for at, softdep in enumerate(softdeps):
        if _from_module(softdep):
            continue
        if not softdep.pre and not softdep.post:
            said = f"softdep {softdep.pattern} names no dependency (all it does is to hide later softdep lines of it)"
            yield Finding("softdep-empty", "note", said, softdep.place, "", softdep.pattern)
        earlier = next((other for other in softdeps[:at] if glob_match(other.pattern, softdep.pattern)), None)
        if earlier is not None:
            said = f"softdep {softdep.pattern} is never used: {earlier.place} comes first"
            fix = "put all soft dependencies of a module on its first line"
            yield Finding("softdep-overridden", "warning", said, softdep.place, fix, softdep.pattern)


def _softdeps_of_modules(resolver: Resolver) -> Iterator[Finding]:
    """What modules say of themselves can't be corrected here: one note for each."""
    lines: dict[str, list[Softdep]] = {}
    for softdep in filter(_from_module, resolver.config.softdeps):
        lines.setdefault(softdep.pattern, []).append(softdep)
    for name, own in lines.items():
        if not own[0].pre and not own[0].post:
            said = f"{name}'s own softdep line names no pre: or post: dependency and means nothing"
            yield Finding("softdep-empty", "note", said, own[0].place, "", name)
        if len(own) > 1:
            said = f"only the first of {name}'s own {len(own)} softdep lines counts"
            yield Finding("softdep-overridden", "note", said, own[1].place, "", name)


def _from_module(softdep: Softdep) -> bool:
    return os.path.basename(softdep.place.file) == "modules.softdep"


def _dashes(resolver: Resolver) -> Iterator[Finding]:
    for fact in resolver.config.blacklists:
        if "-" in fact.module:
            said = f"modprobe.blacklist={fact.module} never matches: module names have underscores"
            fix = f"write modprobe.blacklist={fact.module.replace('-', '_')}"
            yield Finding("dash-in-blacklist", "error", said, fact.place, fix, fact.module)


def _aliases_to_nothing(resolver: Resolver) -> Iterator[Finding]:
    for alias in resolver.config.aliases:
        if resolver.tree.dep_line(alias.module) is None and not resolver.tree.is_builtin(alias.module):
            said = f"alias {alias.pattern} leads to {alias.module}, which does not exist: the name is blocked"
            severity = "note" if alias.module in ("off", "null") else "warning"
            yield Finding("alias-to-nothing", severity, said, alias.place, "", alias.module)


def _duplicates(resolver: Resolver) -> Iterator[Finding]:
    config = resolver.config
    facts: list[tuple[tuple[str, ...], Place]] = [
        (("blacklist", fact.module), fact.place) for fact in config.blacklists
    ]
    facts += [(("options", fact.module, fact.options), fact.place) for fact in config.options]
    facts += [(("alias", fact.pattern, fact.module), fact.place) for fact in config.aliases]
    first: dict[tuple[str, ...], Place] = {}
    for key, place in facts:
        if key in first:
            said = f"{' '.join(key)} stands at {first[key]} already"
            yield Finding("duplicate-line", "note", said, place, "remove one of the two", key[1])
        first.setdefault(key, place)


def _carriage_returns(resolver: Resolver) -> Iterator[Finding]:
    config = resolver.config
    places = [fact.place for fact in config.options if fact.options.endswith("\r")]
    places += [fact.place for fact in (*config.install, *config.remove) if fact.command.endswith("\r")]
    places += [fact.place for fact in config.blacklists if fact.module.endswith("\r")]
    for place in places:
        said = "the line ends in a carriage return, which kmod takes as part of the value"
        yield Finding("carriage-return", "error", said, place, "save the file with plain newlines")


_CHECKS: tuple[Callable[[Resolver], Iterator[Finding]], ...] = (
    _bad_lines,
    _hidden_files,
    _unread_files,
    _unknown_modules,
    _commands,
    _ignored_commands,
    _softdeps,
    _dashes,
    _aliases_to_nothing,
    _duplicates,
    _carriage_returns,
)
