"""The shell's tools on text: echo, head, tail, wc, as in coreutils."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from kobox.errors import Errno
from kobox.shell.command import Command, Failed, Io, Output, lines_of, split_options
from kobox.shell.interpreter import reason

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:([ntrabfve\\])|0([0-7]{1,3})|x([0-9a-fA-F]{1,2}))")


class Source(NamedTuple):
    """One input of a command: its name (``-`` for the pipe) and its chunks."""

    name: str
    chunks: Iterator[bytes]


def sources(io: Io, operands: Sequence[str], command: str) -> Iterator[Source]:
    """The inputs that operands name, else the pipe. What cannot be read is complained of, and counts as a failure."""
    for path in operands or ["-"]:
        if path == "-":
            if io.input is None:
                raise Failed("nothing to read", hint="name a file, or put a pipe in front")
            yield Source("-", io.input)
            continue
        try:
            chunks = io.tree.chunks(path)
        except (Errno, OSError) as error:
            io.complain(f"{command}: {path}: {reason(error)}")
            continue
        with closing(chunks):
            yield Source(path, _as_they_come(io, chunks, f"{command}: {path}"))


def _as_they_come(io: Io, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    try:
        yield from chunks
    except (Errno, OSError) as error:
        io.complain(f"{name}: {reason(error)}")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- echo ------------------------------------------------------------------------------------------------------------


def echo(io: Io, arguments: Sequence[str]) -> Output:
    words = list(arguments)
    newline, escapes = True, False
    while words and re.fullmatch(r"-[neE]+", words[0]):
        for letter in words.pop(0)[1:]:
            newline = newline and letter != "n"
            escapes = letter == "e" if letter in "eE" else escapes
    text = " ".join(words)
    if escapes:
        text, cut, _ = text.partition("\\c")
        newline = newline and not cut
        text = _ESCAPE.sub(_unescaped, text)
    yield encoded(text + ("\n" if newline else ""))
    return 0


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        return _ESCAPES[found[1]]
    byte = (int(found[2], 8) if found[2] else int(found[3], 16)) & 255
    return bytes([byte]).decode("utf-8", "surrogateescape")


# --- head, tail, wc --------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What head and tail are asked for: ``unit`` ``n`` or ``c``, the amount as it was written."""

    unit: str
    amount: str
    operands: list[str]
    titles: bool


def _asked(arguments: Sequence[str]) -> _Asked:
    """``-5`` included."""
    words = list(arguments)
    if words and re.fullmatch(r"-\d+", words[0]):
        words[0] = f"-n{words[0][1:]}"
    options, operands = split_options(words, "qv", "nc")
    unit = "c" if "c" in options else "n"
    count = options.get(unit, "10")
    if not re.fullmatch(r"[+-]?\d+", count):
        raise Failed(f"invalid number of {'bytes' if unit == 'c' else 'lines'}: '{count}'")
    return _Asked(unit, count, operands, ("v" in options or len(operands) > 1) and "q" not in options)


def _with_titles(io: Io, command: str, asked: _Asked, part: Callable[[Iterator[bytes]], Iterable[bytes]]) -> Output:
    for number, source in enumerate(sources(io, asked.operands, command)):
        if asked.titles:
            yield encoded("\n" * bool(number) + f"==> {source.name if source.name != '-' else 'standard input'} <==\n")
        yield from part(source.chunks)
    return int(io.failures > 0)


def head(io: Io, arguments: Sequence[str]) -> Output:
    asked = _asked(arguments)
    number = abs(int(asked.amount))

    def part(chunks: Iterator[bytes]) -> Iterable[bytes]:
        pieces = _units(chunks, asked.unit)
        return _all_but(pieces, number) if asked.amount[0] == "-" else islice(pieces, number)

    return (yield from _with_titles(io, "head", asked, part))


def tail(io: Io, arguments: Sequence[str]) -> Output:
    asked = _asked(arguments)
    number = abs(int(asked.amount))

    def part(chunks: Iterator[bytes]) -> Iterable[bytes]:
        pieces = _units(chunks, asked.unit)
        return islice(pieces, max(number - 1, 0), None) if asked.amount[0] == "+" else deque(pieces, number)

    return (yield from _with_titles(io, "tail", asked, part))


def _units(chunks: Iterator[bytes], unit: str) -> Iterator[bytes]:
    return lines_of(chunks) if unit == "n" else (bytes([byte]) for chunk in chunks for byte in chunk)


def _all_but(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    held: deque[bytes] = deque()
    for piece in pieces:
        held.append(piece)
        if len(held) > count:
            yield held.popleft()


def wc(io: Io, arguments: Sequence[str]) -> Output:
    options, operands = split_options(arguments, "lwcm")
    columns = [letter for letter in "lwmc" if letter in options] or list("lwc")
    rows: list[tuple[list[int], str]] = []
    sizes = 0
    for source in sources(io, operands, "wc"):
        data = b"".join(source.chunks)
        sizes += len(data)
        counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
        counts["m"] = len(data.decode("utf-8", "ignore"))
        rows.append(
            ([counts[letter] for letter in columns], "" if source.name == "-" and not operands else source.name)
        )
    if len(operands) > 1:
        rows.append(([sum(row[0][at] for row in rows) for at in range(len(columns))], "total"))
    of_pipe = io.input is not None and not io.input_is_file and (not operands or "-" in operands)
    single = len(columns) == 1 and len(operands) <= 1
    width = 1 if single else 7 if of_pipe else len(str(sizes))  # as coreutils: a pipe's size is not known beforehand
    for row, name in rows:
        yield encoded(" ".join(f"{count:{width}}" for count in row) + (f" {name}" if name else "") + "\n")
    return int(io.failures > 0)


TEXT_TOOLS = (
    Command("echo", "[-n] [-e] [TEXT ...]", "Print the words; -n without a newline, -e with \\n, \\t, \\x1b …", echo,
            ("echo Y > /sys/module/printk/parameters/time",), ("-n", "-e"), "paths"),
    Command("head", "[-n N | -c N] [FILE ...]", "The first ten lines, or N; -n -N leaves out the last N.", head,
            ("head -n 3 /proc/meminfo", "dmesg | head"), ("-n", "-c")),
    Command("tail", "[-n N | -c N] [FILE ...]", "The last ten lines, or N; -n +N begins at line N.", tail,
            ("dmesg | tail -5", "tail -n +2 /proc/filesystems"), ("-n", "-c")),
    Command("wc", "[-lwcm] [FILE ...]", "Lines, words and bytes (-m: characters).", wc,
            ("wc -l /proc/modules", "dmesg | wc -l"), ("-l", "-w", "-c", "-m")),
)  # fmt: skip
