"""The shell's grep: the options of GNU grep that people use, POSIX patterns read as Python's."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from kobox.errors import Errno
from kobox.shell.command import Command, Failed, Io, Output, lines_of, split_options
from kobox.shell.text_tools import encoded, sources


def grep(io: Io, arguments: Sequence[str]) -> Output:
    options, operands = split_options(arguments, "ivcnqolEFGwxhHrRs", "eABCm")
    if "e" not in options and not operands:
        raise Failed("no pattern", 2, "grep PATTERN [FILE ...]")
    pattern = options["e"] if "e" in options else operands.pop(0)
    search = _Search(options, _matcher(pattern, options))
    recursive = "r" in options or "R" in options
    files = list(_walk(io, operands or ["."], "s" in options)) if recursive else operands
    named = "H" in options or ((len(files) > 1 or recursive) and "h" not in options)
    any_match = False
    for source in sources(io, files, "grep"):
        name = "(standard input)" if source.name == "-" else source.name
        yield from search.run(source.chunks, name, named)
        any_match = any_match or search.matched
        if any_match and "q" in options:
            return 0
    return 2 if io.failures else int(not any_match)


class _Search:
    """One grep: what it prints of an input."""

    def __init__(self, options: dict[str, str], matches: re.Pattern[str]) -> None:
        self._o, self._pattern = options, matches
        self.matched = False
        around = options.get("C", "0")
        self._after, self._before, self._most = (
            _number(letter, options.get(letter, usual)) for letter, usual in (("A", around), ("B", around), ("m", "-1"))
        )

    def run(self, chunks: Iterator[bytes], name: str, named: bool) -> Iterator[bytes]:
        self.matched = False
        count = 0
        for text in self._lines(chunks, f"{name}" if named else ""):
            if text is None:
                count += 1
                self.matched = True
                if "q" in self._o:
                    return
            elif not ({"c", "l", "q"} & self._o.keys()):
                yield text
        prefix = f"{name}:" if named else ""
        if "l" in self._o:
            yield from [encoded(f"{name}\n")] if count else []
        elif "c" in self._o and "q" not in self._o:
            yield encoded(f"{prefix}{count}\n")

    def _lines(self, chunks: Iterator[bytes], name: str) -> Iterator[bytes | None]:
        """Output lines; None in front of each that matched."""
        before: deque[bytes] = deque(maxlen=self._before)
        after = shown = found = 0
        for number, raw in enumerate(lines_of(chunks), 1):
            line = raw.removesuffix(b"\n").decode("utf-8", "surrogateescape")
            hit = (self._pattern.search(line) is not None) != ("v" in self._o)
            if hit and found != self._most:
                first = number - len(before)
                if (self._before or self._after) and shown and first > shown + 1:
                    yield b"--\n"
                yield from before
                before.clear()
                yield None
                yield from self._hit(line, name, number)
                found, after, shown = found + 1, self._after, number
            elif after:
                after, shown = after - 1, number
                yield self._line(line, name, number, "-")
            elif found == self._most:
                return
            else:
                before.append(self._line(line, name, number, "-"))

    def _hit(self, line: str, name: str, number: int) -> Iterator[bytes]:
        if "o" not in self._o:
            yield self._line(line, name, number, ":")
        elif "v" not in self._o:
            for match in self._pattern.finditer(line):
                if match[0]:
                    yield self._line(match[0], name, number, ":")

    def _line(self, text: str, name: str, number: int, mark: str) -> bytes:
        prefix = f"{name}{mark}" if name else ""
        return encoded(f"{prefix}{f'{number}{mark}' if 'n' in self._o else ''}{text}\n")


def _number(letter: str, text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise Failed(f"-{letter} wants a number, not '{text}'", 2)
    return int(text)


def _walk(io: Io, paths: Iterable[str], quiet: bool) -> Iterator[str]:
    """Every file below; what stands for devices is passed over, and links are not followed."""
    for path in paths:
        try:
            entries = io.tree.entries(path)
        except (Errno, OSError):
            yield path
            continue
        base = "" if path == "." else path.rstrip("/") + "/"
        for entry in sorted(entries):
            if entry.kind == "dir":
                yield from _walk(io, [base + entry.name], quiet)
            elif entry.kind == "file":
                yield base + entry.name


def _matcher(pattern: str, options: dict[str, str]) -> re.Pattern[str]:
    alternatives = pattern.split("\n")
    if "F" in options:
        translated = [re.escape(part) for part in alternatives]
    else:
        translated = [to_python(part, "E" in options) for part in alternatives]
    whole = "|".join(f"(?:{part})" for part in translated)
    if "x" in options:
        whole = rf"\A(?:{whole})\Z"
    elif "w" in options:
        whole = rf"(?<!\w)(?:{whole})(?!\w)"
    try:
        return re.compile(whole, re.IGNORECASE if "i" in options else 0)
    except (re.error, RecursionError, OverflowError) as error:
        raise Failed(f"bad pattern {pattern!r}: {error}", 2) from None


_CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": r"\s",
    "blank": r" \t", "punct": r"!-/:-@\[-`{-~", "xdigit": "0-9a-fA-F", "print": " -~", "graph": "!-~",
    "cntrl": r"\x00-\x1f\x7f",
}  # fmt: skip
_TOKEN = re.compile(r"\\(.)|(\[\^?\]?(?:\[:\w+:\]|[^\]])*\])|(.)", re.DOTALL)


def to_python(pattern: str, extended: bool) -> str:
    """A POSIX pattern (basic, or extended) as Python's. Back references work; collating symbols do not."""
    out: list[str] = []
    for found in _TOKEN.finditer(pattern):
        escaped, bracket, char = found.groups()
        if bracket:
            out.append(_bracket(bracket))
        elif escaped is not None:
            special = escaped in "(){}|+?"
            out.append(
                escaped
                if special and not extended
                else {"<": r"\b(?=\w)", ">": r"\b(?<=\w)"}.get(escaped) or f"\\{escaped}"
            )
        elif char in "(){}|+?" and not extended:
            out.append(f"\\{char}")
        elif char == "*" and (not out or out[-1] in ("(", "|", "^")):
            out.append(r"\*")
        elif char == "*" and out[-1] == "*":
            continue
        elif char == "^" and out and not extended and out[-1] not in ("(", "|"):
            out.append(r"\^")
        elif (
            char == "$"
            and not extended
            and found.end() < len(pattern)
            and not pattern.startswith((r"\)", r"\|"), found.end())
        ):
            out.append(r"\$")
        else:
            out.append(r"\Z" if char == "$" else char)
    return "".join(out)


def _bracket(text: str) -> str:
    inside = text[2:-1] if text.startswith("[^") else text[1:-1]
    body = re.sub(
        r"\[:(\w+):\]|([\\\[&~|])|(\])",
        lambda found: _CLASSES.get(found[1], "") if found[1] else "\\" + found[0],
        inside,
    )
    return f"[{'^' if text.startswith('[^') else ''}{body}]"


GREP = Command(
    "grep",
    "[-E|-F] [-ivcnqolwxhHs] [-r] [-A N] [-B N] [-C N] [-m N] PATTERN [FILE ...]",
    "Print the lines that match a pattern.\n"
    "-i any case, -v those that do not match, -c count, -n with numbers, -o only what matches, -l names of files,\n"
    "-q only the status, -r everything below a directory.",
    grep,
    ("dmesg | grep -i error", "grep -r . /sys/module/hello/parameters", "grep -c =p /proc/dynamic_debug/control"),
    ("-i", "-v", "-c", "-n", "-q", "-o", "-l", "-w", "-x", "-r", "-E", "-F", "-A", "-B", "-C", "-m"),
)
