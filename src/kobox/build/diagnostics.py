"""What compiler, linker, modpost, objtool and make say on standard error, as records.

Follows the texts of gcc and clang (``file:line:column: level: text``, then the source line with carets), of
scripts/mod/modpost.c, of objtool, and of make's own ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

_WORDS = 6
LEVELS = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One remark. ``file`` is empty and ``line`` and ``column`` are 0 where the tool names none; ``lines`` are what
    belongs to it as printed: who included the file, the function, the source line with its carets."""

    level: str
    text: str
    file: str = ""
    line: int = 0
    column: int = 0
    before: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """``file:line:column``, as far as it is known."""
        return ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])

    def as_data(self) -> dict[str, Any]:
        """The record of ``kobox build --json``: what is not known is null."""
        return {
            "level": self.level,
            "file": self.file or None,
            "line": self.line or None,
            "column": self.column or None,
            "text": self.text,
            "before": list(self.before),
            "lines": list(self.lines),
        }


_LEVEL = r"(?P<level>fatal error|error|warning|note)"
_GNU = re.compile(rf"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:(?P<column>\d+):)? {_LEVEL}: (?P<text>.*)$")
_CONTEXT = re.compile(r"^(In file included from|\s+from|.*: (In function|At top level|In member)|\s*inlined from).*")
_SOURCE = re.compile(r"^\s*(\d+)?\s*\|")
_MODPOST = re.compile(r"^(?P<level>ERROR|WARNING): modpost: (?P<text>.*)$")
_OBJTOOL = re.compile(rf"^(?P<file>\S+\.o): {_LEVEL}: (?P<text>objtool: .*)$")
_TOOL = re.compile(rf"^(?P<file>\S*?(?:gcc|clang|ld|as|cc1)(?:-[\d.]+)?): {_LEVEL}: (?P<text>.*)$")
_LINKER = re.compile(r"^(?:\S*ld(?:\.\w+)?): (?P<text>.*)$")
_MAKE = re.compile(r"^(?P<file>\S+?)?:?(?P<line>\d+)?:? ?\*\*\* (?P<text>.*)$")
_MAKE_PREFIX = re.compile(r"^make(\[\d+\])?: ")
_FOLLOWS = re.compile(r"^\[[^\]]*\] (Error|Interrupt|Terminated)|Waiting for unfinished jobs|^Deleting file")
_NOISE = re.compile(
    r"Skipping BTF generation|(Entering|Leaving) directory|^\s*$|^compilation terminated\.$|^make.*: warning: job"
)

_HINTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), hint)
    for pattern, hint in {
        r"version `GLIBC_[\d.]+' not found": "the headers' programs are for a newer distribution than this machine's",
        r"libelf\.so": "apt-get install libelf1",
        r"(pahole|bc|perl|python3): (command )?not found": "apt-get install what is named (pahole is in dwarves)",
        r"unrecognized command-line option": "the kernel was configured for another compiler: install it, or give --cc",
        r"\.\./.*: No such file": "files outside the folder are not copied: build the folder above, or give --in-place",
        r'^"\S+" \[.*\] undefined!': "nobody exports it: --symvers names the build of the module that does",
        r"missing MODULE_LICENSE": 'add MODULE_LICENSE("GPL") or what applies',
    }.items()
)
"""What a remark tells about the machine or the command line, and the way out."""


def hint_of(diagnostic: Diagnostic) -> str | None:
    """The way out of remarks that are the machine's fault rather than the source's."""
    return next((hint for pattern, hint in _HINTS if pattern.search(diagnostic.text)), None)


def read_diagnostics(output: str, rename: Callable[[str], str] = lambda text: text) -> tuple[Diagnostic, ...]:
    """The remarks in what a build printed, in order. ``rename`` turns paths of the copy into those of the sources."""
    found = list(_read(rename(output).splitlines()))
    first_hand = [one for one in found if not _FOLLOWS.search(one.text)]
    if any(one.level == "error" for one in first_hand):
        found = first_hand
    elif found:  # a tool whose way of speaking is not known: its last words are shown as they are
        found[0] = replace(found[0], before=(*found[0].before, *_last_words(rename(output).splitlines())))
    return tuple(dict.fromkeys(found))


def _last_words(lines: Sequence[str]) -> list[str]:
    """What was said before make gave up, and is no remark of its own."""
    end = next((at for at, line in enumerate(lines) if "***" in line), len(lines))
    return [line for line in lines[max(0, end - _WORDS) : end] if not _NOISE.search(line) and _parse(line) is None]


def _read(lines: Sequence[str]) -> Iterator[Diagnostic]:
    before: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if _NOISE.search(line):
            continue
        if _CONTEXT.match(line):
            before.append(line)
            continue
        found = _parse(line)
        if found is None:
            continue
        after = at
        while after < len(lines) and _SOURCE.match(lines[after]):
            after += 1
        yield Diagnostic(*found, before=tuple(before), lines=tuple(lines[at:after]))
        before, at = [], after


def _parse(line: str) -> tuple[str, str, str, int, int] | None:
    """Level, text, file, line and column of a line that is a remark of its own."""
    for pattern in (_GNU, _MODPOST, _OBJTOOL, _TOOL):
        if match := pattern.match(line):
            parts = match.groupdict()
            level = parts["level"].lower().rsplit(" ", 1)[-1]
            line_number, column = (int(parts.get(name) or 0) for name in ("line", "column"))
            return level, parts["text"], parts.get("file") or "", line_number, column
    plain = _MAKE_PREFIX.sub("", line)
    if match := _MAKE.match(plain):
        return "error", match["text"], (match["file"] or "").rstrip(":"), int(match["line"] or 0), 0
    if match := _LINKER.match(line):
        return "error" if "warning:" not in line else "warning", match["text"], "", 0, 0
    if any(pattern.search(line) for pattern, _ in _HINTS):
        return "error", line, "", 0, 0
    return None
