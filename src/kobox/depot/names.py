"""How kmod spells module names and aliases, and how it matches a wildcard: the rules that every tool shares.

Nothing here reads a file. The rules follow what kmod's tools do on real trees: a dash is an underscore except inside
a character class, a module's name ends at the first dot, an alias is matched as POSIX ``fnmatch`` without flags does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache

MODULE_SUFFIXES: tuple[str, ...] = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")
"""File names that count as modules, the plain one first."""

_POSIX_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "xdigit": "0-9A-Fa-f",
    "space": " \\t\\n\\r\\f\\v",
    "blank": " \\t",
    "punct": "!-/:-@\\[-`{-~",
    "print": " -~",
    "graph": "!-~",
    "cntrl": "\\x00-\\x1f\\x7f",
}
_NOT_ONLY_STARS = re.compile(r"[?\[\\]")


def is_module_file(name: str) -> bool:
    """Whether a file name (without directories) is a module's: something, then one of the suffixes."""
    return any(name.endswith(suffix) and len(name) > len(suffix) for suffix in MODULE_SUFFIXES)


def module_name(text: str) -> str:
    """A module's name as indexes hold it: ``snd-hda-intel.ko.xz`` is ``snd_hda_intel``."""
    return text.partition(".")[0].replace("-", "_")


def module_name_of_path(path: str) -> str:
    """The module name of a file's path; empty when the path ends in a slash."""
    return module_name(path.rpartition("/")[2])


def absolute_path(path: str) -> str:
    """A path below the current directory made absolute as kmod does: joined, never tidied up."""
    if path.startswith("/"):
        return path
    here = os.environ.get("PWD", "")
    if not here.startswith("/") or not os.path.exists(here) or not os.path.samefile(here, "."):
        here = os.getcwd()
    return f"{here}/{path}"


def normal_alias(alias: str) -> str | None:
    """An alias with underscores for dashes, except inside ``[...]``; None when a bracket has no partner."""
    if "[" not in alias and "]" not in alias:
        return alias.replace("-", "_")
    out: list[str] = []
    rest = alias
    while rest:
        before, opened, tail = rest.partition("[")
        if "]" in before:
            return None
        out.append(before.replace("-", "_"))
        if not opened:
            break
        inside, closed, rest = tail.partition("]")
        if not closed:
            return None
        out.append(f"[{inside}]")
    return "".join(out)


@lru_cache(maxsize=65536)
def wildcard(pattern: str) -> re.Pattern[str]:
    """A compiled ``fnmatch`` pattern; use ``.fullmatch``. ``*`` crosses slashes and leading dots, ``\\`` quotes."""
    return re.compile(_translated(pattern), re.DOTALL)


def matcher(pattern: str) -> Callable[[str], object]:
    """A test of whether a whole text matches, true or false. Quick to make; ``wildcard`` is quicker to use often."""
    if _NOT_ONLY_STARS.search(pattern):
        return wildcard(pattern).fullmatch
    head, *pieces = pattern.split("*")
    last = pieces.pop() if pieces else None

    def matches(text: str) -> bool:
        if last is None:
            return text == head
        if not (text.startswith(head) and text.endswith(last)):
            return False
        at = len(head)
        for piece in pieces:
            at = text.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
        return at + len(last) <= len(text)

    return matches


def _translated(pattern: str) -> str:
    out: list[str] = []
    at, end = 0, len(pattern)
    while at < end:
        char = pattern[at]
        at += 1
        if char == "*":
            if out[-1:] != [".*"]:
                out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "[":
            close = _class_end(pattern, at)
            if close is None:
                if _ends_in_a_range(pattern[at:]):
                    return "(?!)"
                out.append("\\[")
            else:
                out.append(_class(pattern[at:close]))
                at = close + 1
        elif char == "\\":
            if at == end:  # a lone backslash at the end matches nothing
                return "(?!)"
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _class_end(pattern: str, start: int) -> int | None:
    """Where the ``]`` of a class is: a ``]`` right after ``[``, ``[!`` or ``[^`` is a member, not the end."""
    at = start
    if pattern[at : at + 1] in ("!", "^"):
        at += 1
    first = True
    while at < len(pattern):
        if pattern[at] == "]" and not first:
            return at
        if pattern[at] == "\\":
            at += 1
        elif pattern.startswith("[:", at) and ":]" in pattern[at + 2 :]:
            at = pattern.index(":]", at + 2) + 1
        first = False
        at += 1
    return None


def _ends_in_a_range(rest: str) -> bool:
    """Of a class without an end: whether it stops behind a dash or a backslash; the C library then matches nothing."""
    at = int(rest[:1] in ("!", "^"))
    while at < len(rest):
        if rest[at] == "\\":
            at += 1
            if at == len(rest):
                return True
        at += 1
        if rest[at : at + 1] == "-":
            if at + 1 == len(rest):
                return True
            at += 2
    return False


def _class(body: str) -> str:
    negated = body[:1] in ("!", "^")
    members: list[str] = []
    at = int(negated)
    while at < len(body):
        if body.startswith("[:", at) and ":]" in body[at:]:
            close = body.index(":]", at)
            known = _POSIX_CLASSES.get(body[at + 2 : close])
            if known is None:
                return "(?!)"
            members.append(known)
            at = close + 2
            continue
        low, at = _member(body, at)
        if body[at : at + 1] == "-" and at + 1 < len(body):
            high, at = _member(body, at + 1)
            if low <= high:
                members.append(f"{_quoted(low)}-{_quoted(high)}")
            continue
        members.append(_quoted(low))
    if not members:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(members)}]"


def _member(body: str, at: int) -> tuple[str, int]:
    if body[at] == "\\" and at + 1 < len(body):
        at += 1
    return body[at], at + 1


def _quoted(char: str) -> str:
    return "\\" + char if char in "\\]^-[&~|" else char
