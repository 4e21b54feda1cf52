"""Configuration files split into logical lines, as kmod splits modprobe.d's and depmod.d's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Line(NamedTuple):
    """A logical line: continued lines joined, and the first and last physical line it came from."""

    text: str
    first: int
    last: int


def logical_lines(data: bytes) -> Iterator[Line]:
    """Split a configuration file. A backslash before a newline joins lines; before anything else it only vanishes."""
    text = data.decode("utf-8", "surrogateescape")
    if "\\" not in text:
        plain = text.split("\n")
        if plain[-1] == "":
            plain.pop()
        for number, line in enumerate(plain, start=1):
            yield Line(line.partition("\0")[0], number, number)
        return
    yield from _joined_lines(text)


def _joined_lines(text: str) -> Iterator[Line]:
    number = first = 1
    current: list[str] = []
    i, end = 0, len(text)
    while i < end:
        char = text[i]
        i += 1
        if char == "\n":
            yield Line("".join(current).partition("\0")[0], first, number)
            number += 1
            first, current = number, []
            continue
        if char == "\\":
            char = text[i : i + 1] or "\udcff"  # at the end of the file kmod stores its end-of-file mark as a character
            i += 1
            if char == "\n":
                number += 1
                continue
        current.append(char)
    if current:
        yield Line("".join(current).partition("\0")[0], first, number)
