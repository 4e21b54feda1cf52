"""Where a taint came from: a value, a live host or a log, as statements that name the modules behind the letters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kobox.abi import taint
from kobox.debug.pasted import strip_prefix
from kobox.errors import UsageError


@dataclass(frozen=True, slots=True)
class Statement:
    """One taint value and where it was read. ``modules``: what each module carries, as letters."""

    value: int
    source: str
    modules: dict[str, str] = field(default_factory=dict)


def of_text(text: str) -> Statement:
    """A value as people paste it: ``4097``, ``0x1001``, ``OE``, ``G           OE``, ``Tainted: G OE``."""
    stripped = text.strip()
    stated = taint.parse_text(stripped)
    if stated is not None:
        return Statement(stated, stripped)
    try:
        return Statement(_number(stripped), stripped)
    except ValueError:
        pass
    try:
        return Statement(taint.parse_letters(stripped), stripped)
    except ValueError as error:
        raise UsageError(
            f"{stripped!r} is no taint value: {error}", hint="a number such as 4097, letters such as OE, or --live"
        ) from None


def _number(text: str) -> int:
    value = int(text, 16 if text.lower().startswith("0x") else 10)
    if value < 0 or value >> 64:
        raise ValueError("out of range")
    return value


def of_host(root: Path = Path("/")) -> Statement:
    """What the running kernel says, with the modules that carry flags of their own."""
    path = root / "proc/sys/kernel/tainted"
    value = int(path.read_text())
    carried = {}
    for file in sorted((root / "sys/module").glob("*/taint")):
        letters = file.read_text().strip()
        if letters:
            carried[file.parent.name] = letters
    return Statement(value, str(path), carried)


_ACTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(text), letter)
    for text, letter in (
        (r"(?P<name>[\w-]+): loading out-of-tree module taints kernel", "O"),
        (r"(?P<name>[\w-]+): module verification failed: signature", "E"),
        (r"(?P<name>[\w-]+): module license '.*' taints kernel", "P"),
        (r"(?P<name>[\w-]+): module license taints kernel", "P"),
        (r"(?P<name>[\w-]+): module uses symbols .* from proprietary module \S+, inheriting taint", "P"),
        (r"(?P<name>[\w-]+): bad vermagic: kernel tainted", "F"),
        (r"(?P<name>[\w-]+): (?:no versions for exported symbols|[\w.]+): kernel tainted", "F"),
        (r"(?P<name>[\w-]+): module is from the staging directory", "C"),
        (r"(?P<name>[\w-]+): tainting kernel with TAINT_LIVEPATCH", "K"),
        (r"(?P<name>)Setting dangerous option (?P<option>\S+) - tainting kernel", "U"),
    )
)
_LINKED = re.compile(r"Modules linked in:(?P<modules>.*)")


def of_log(lines: Iterable[str]) -> list[Statement]:
    """Every different value that a log states, in order, each with the modules named up to the next one.

    A log that states none but tells of acts that taint gives one statement made from those.
    """
    found: list[Statement] = []
    acts: dict[str, str] = {}
    for line in map(strip_prefix, lines):
        value = taint.parse_text(line)
        if value is not None and (not found or found[-1].value != value):
            found.append(Statement(value, line.strip()))
        for name, letters in _named(line):
            acts[name] = taint.letters(taint.parse_letters(acts.get(name, "")) | taint.parse_letters(letters))
    if not found and acts:
        value = taint.parse_letters("".join(acts.values()))
        found.append(Statement(value, "the messages of the acts themselves"))
    return [Statement(one.value, one.source, acts if one is found[-1] else {}) for one in found]


def _named(line: str) -> Iterator[tuple[str, str]]:
    linked = _LINKED.search(line)
    if linked:
        for name, flags in re.findall(r"([\w-]+)\(([A-Z]+)[+-]?\)", linked["modules"]):
            if all(letter in taint.BY_LETTER for letter in flags):
                yield name, flags
    for pattern, letter in _ACTS:
        act = pattern.search(line)
        if act:
            yield act["name"] or f"option {act['option']}", letter
            return


def render(statement: Statement) -> str:
    """The statement for people, ending in a newline."""
    flags = taint.decode(statement.value)
    if not statement.value:
        return "0: not tainted\n"
    lines = [f"{statement.value}: tainted, {' '.join(flag.letter for flag in flags) or 'unknown bits only'}"]
    for flag in flags:
        lines += [
            f"  {flag.letter}  {flag.meaning}",
            f"     bit {flag.bit}, value {flag.mask}, {flag.name}",
            f"     usual cause   {flag.cause}",
            f"     set by        {flag.set_by}",
            f"     matters?      {flag.matters}",
        ]
        carriers = [name for name, letters in statement.modules.items() if flag.letter in letters]
        if carriers:
            lines.append(f"     here          {', '.join(carriers)}")
    unknown = taint.unknown_bits(statement.value)
    if unknown:
        lines.append(f"  bits {', '.join(map(str, unknown))}: no kernel known to kobox defines them")
    return "\n".join(lines) + "\n"


def as_data(statement: Statement) -> dict[str, Any]:
    return {**taint_data(statement.value), "source": statement.source, "modules": statement.modules}


def taint_data(value: int) -> dict[str, Any]:
    """A taint value with every flag in it explained."""
    return {
        "value": value,
        "letters": taint.letters(value),
        "flags": [
            {
                "letter": flag.letter,
                "bit": flag.bit,
                "value": flag.mask,
                "name": flag.name,
                "meaning": flag.meaning,
                "cause": flag.cause,
                "set_by": flag.set_by,
                "matters": flag.matters,
                "module_carried": flag.module_carried,
            }
            for flag in taint.decode(value)
        ],
        "unknown_bits": list(taint.unknown_bits(value)),
    }
