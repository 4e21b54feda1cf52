"""Differential fuzzing of the module loader: mutants go through kobox's own and the image's own, in one process.

``python -m tools.fuzz_loader FILE.ko… --count 1000``: each mutant has a number, and the number alone (with the files)
makes it again: ``--only NUMBER``. Errno, log text and level, taint and /proc/modules must be the same. Where the
image's loader crashes, kobox's may refuse or crash. A difference with a reason is counted by its name (``REASONS``).
The last line is ``N of M agree``, and how many differ for a named reason.
"""

from __future__ import annotations

import argparse
import random
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kobox import link
from kobox.elf import parse
from kobox.errors import BadFile, GuestError, KoboxError
from kobox.link import Refusal
from kobox.link.rules import default_rules
from tools.golden_compare import normal_log, normal_text
from tools.golden_kernel import Answer

_SETTLE_MS = 50
_REAL_LIMIT = 0.5
"""Seconds of processor time that damaged code may loop; several times as much while it calls the kernel."""
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SECTION_FIELDS = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8))
_HEADER_FIELDS = ((0, 4), (4, 1), (16, 2), (18, 2), (20, 4), (24, 8), (40, 8), (52, 2), (58, 2), (60, 2), (62, 2))
_ODD = (0, 1, 2, 3, 4, 7, 8, 11, 15, 16, 63, 64, 255, 0x1000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)


class Mutant(NamedTuple):
    data: bytes
    what: str


class Seen(NamedTuple):
    """What a loader did with a mutant, as it is compared. ``errno`` None: it crashed, and the log tells where."""

    errno: str | None
    log: list[tuple[int | None, str]]
    tainted: int | None
    modules: list[str] | None


def mutate(data: bytes, rng: random.Random) -> Mutant:
    """One change, or a few of one kind, to a well-formed module."""
    kinds: tuple[tuple[int, Callable[[bytearray, random.Random], str]], ...] = (
        (8, section_field),
        (4, symbol),
        (4, relocation),
        (3, modinfo),
        (2, elf_header),
        (3, some_bytes),
        (1, truncated),
        (1, version),
    )
    chosen = rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
    changed = bytearray(data)
    what = chosen(changed, rng)
    return Mutant(bytes(changed), f"{chosen.__name__}: {what}")


def _number(rng: random.Random, old: int, size: int) -> int:
    choice = rng.randrange(4)
    if choice == 0:
        new = old + rng.choice((-64, -16, -8, -1, 1, 8, 16, 64, 4096))
    elif choice == 1:
        new = old ^ 1 << rng.randrange(size * 8)
    else:
        new = rng.choice(_ODD)
    return new & (1 << size * 8) - 1


def _field(data: bytearray, rng: random.Random, at: int, size: int) -> str:
    old = int.from_bytes(data[at : at + size], "little")
    new = _number(rng, old, size)
    data[at : at + size] = new.to_bytes(size, "little")
    return f"{size} bytes at {at:#x}: {old:#x} becomes {new:#x}"


def section_field(data: bytearray, rng: random.Random) -> str:
    elf = parse(bytes(data), "mutant")
    section = rng.choice(elf.sections)
    offset, size = rng.choice(_SECTION_FIELDS)
    return f"{section.name}: " + _field(data, rng, elf.header.e_shoff + section.index * _SECTION.size + offset, size)


def _entry(data: bytearray, rng: random.Random, wanted: int, size: int) -> int | None:
    elf = parse(bytes(data), "mutant")
    found = [section for section in elf.sections if section.type == wanted and section.size >= size]
    if not found:
        return None
    section = rng.choice(found)
    return int(section.offset + rng.randrange(section.size // size) * size)


def symbol(data: bytearray, rng: random.Random) -> str:
    at = _entry(data, rng, 2, 24)
    offset, size = rng.choice(((0, 4), (4, 1), (6, 2), (8, 8), (16, 8)))
    return "no symbols" if at is None else _field(data, rng, at + offset, size)


def relocation(data: bytearray, rng: random.Random) -> str:
    at = _entry(data, rng, 4, 24)
    offset, size = rng.choice(((0, 8), (8, 4), (12, 4), (16, 8)))
    return "no relocations" if at is None else _field(data, rng, at + offset, size)


def modinfo(data: bytearray, rng: random.Random) -> str:
    section = parse(bytes(data), "mutant").section(".modinfo")
    if section is None or not section.size:
        return "no modinfo"
    at = section.offset + rng.randrange(section.size)
    data[at] = rng.choice((0, 32, 61, 65, 97, 255, data[at] ^ 1))
    return f"byte at {at:#x} becomes {data[at]:#x}"


def elf_header(data: bytearray, rng: random.Random) -> str:
    return _field(data, rng, *rng.choice(_HEADER_FIELDS))


def some_bytes(data: bytearray, rng: random.Random) -> str:
    places = sorted(rng.randrange(len(data)) for _ in range(rng.randrange(1, 4)))
    for at in places:
        data[at] = rng.randrange(256)
    return "random bytes at " + ", ".join(f"{at:#x}" for at in places)


def truncated(data: bytearray, rng: random.Random) -> str:
    size = rng.randrange(len(data))
    del data[size:]
    return f"{size} bytes left"


def version(data: bytearray, rng: random.Random) -> str:
    section = parse(bytes(data), "mutant").section("__versions")
    if section is None or not section.size:
        return "no versions"
    return _field(data, rng, section.offset + rng.randrange(max(1, section.size // 64)) * 64, 8)


def look(kernel: Any, data: bytes) -> tuple[Seen, Answer]:
    """Load a mutant into a fresh kernel."""
    kernel.log()
    kernel.tasks.real_limit = _REAL_LIMIT
    answer: Answer = kernel.finit_module(data, b"", 0)
    if answer.died or answer.killed_by is not None or answer.hung:
        report = [] if answer.died else normal_log(kernel.log(), with_traces=True)
        return Seen(None, report, None, None), answer
    try:
        kernel.sleep(_SETTLE_MS)  # the two loaders take different times; threads and work of the module come to rest
    except GuestError:  # the module stopped the kernel for good
        return Seen(None, normal_log(kernel.log(), with_traces=True), None, None), answer
    modules = kernel.proc_modules()
    listed = None if modules is None else [normal_text(line) for line in modules]
    return Seen(answer.errno_name, normal_log(kernel.log()), kernel.tainted(), listed), answer


def agree(own: tuple[Seen, Answer], image: tuple[Seen, Answer]) -> bool:
    """Whether two outcomes are one. What crashed the image's loader may be refused, or crash too."""
    if image[0].errno is None:
        return own[0].errno != "OK"
    return own[0] == image[0]


class Outcome(NamedTuple):
    """One mutant in both loaders; ``why`` is what kobox says of its refusal."""

    mutant: Mutant
    own: Seen
    image: Seen
    why: str


def _reads_outside(one: Outcome) -> bool:
    return "a real kernel would oops" in one.why


def _name_from_elsewhere(one: Outcome) -> bool:
    def without_names(seen: Seen) -> list[tuple[int | None, str]]:
        return [(level, re.sub(r"(Unknown symbol ).*( \(err)", r"\1\2", text)) for level, text in seen.log]

    moved = one.mutant.what.startswith(("symbol", "section_field: .symtab"))
    return moved and without_names(one.own) == without_names(one.image)


def _out_of_memory(one: Outcome) -> bool:
    return all(any("invoked oom-killer" in text for _, text in seen.log) for seen in (one.own, one.image))


def _code_reads_what_callers_left(one: Outcome) -> bool:
    """The module's own code was changed, and got as far as running."""
    ran = {one.own.errno, one.image.errno} <= {"OK", None}
    return one.mutant.what.startswith("some_bytes") and ran and not one.why


def _one_log_is_longer(one: Outcome) -> bool:
    own, image = one.own, one.image
    short, long = sorted((own.log, image.log), key=len)
    return own._replace(log=[]) == image._replace(log=[]) and long[: len(short)] == short and own.errno == "OK"


def _image_crashed_in_its_loader(one: Outcome) -> bool:
    return one.image.errno is None and any("load_module+" in text for _, text in one.image.log)


def _uses_the_file_given_back(one: Outcome) -> bool:
    """The kernel's copy of the file is gone when init runs, but the CPU may still remember where it was."""
    refused = {"OK", None}
    return _points_into_the_file(one.mutant.data) and one.own.errno in refused and one.image.errno in refused


def _points_into_the_file(data: bytes) -> bool:
    """Whether a symbol or table lies in the kernel's copy of the file."""
    try:
        rules = default_rules()
        view = link.load_view(data, rules)
        return bool(link.left_behind(view, link.lay_out(view, rules)))
    except (Refusal, KoboxError):
        return False


def _prints_other_memory(one: Outcome) -> bool:
    """The same happened and as many lines were said, but what the module printed holds pointers."""

    def without_words(seen: Seen) -> Seen:
        return seen._replace(log=[(level, "") for level, _ in seen.log])

    moved = one.mutant.what.startswith(("relocation", "symbol"))
    return moved and one.own.errno == "OK" and without_words(one.own) == without_words(one.image)


def _table_reaches_behind_its_section(one: Outcome) -> bool:
    """Both warn of the same place in the same words, but for what the memory behind the table holds."""

    def without_numbers(seen: Seen) -> Seen:
        return seen._replace(log=[(level, re.sub(r"\b(0x)?[0-9a-f]+\b", "N", text)) for level, text in seen.log])

    return one.mutant.what.startswith("section_field") and without_numbers(one.own) == without_numbers(one.image)


REASONS: dict[str, Callable[[Outcome], bool]] = {
    "the kernel reads outside its copy of the file and takes what lies there; kobox refuses": _reads_outside,
    "a symbol's name lies outside the string table, where memory differs": _name_from_elsewhere,
    "the report of exhausted memory names sizes and tasks of the moment": _out_of_memory,
    "the module's own timer or thread spoke before one of the two logs was read": _one_log_is_longer,
    "the image's load_module crashes on tables that the file made overlap; kobox keeps its own apart": (
        _image_crashed_in_its_loader
    ),
    "code or data of the module lies in the kernel's copy of the file, which is given back before init runs": (
        _uses_the_file_given_back
    ),
    "a table reaches behind its section, where memory differs": _table_reaches_behind_its_section,
    "the module prints memory with pointers in it, where it meant a text": _prints_other_memory,
    "damaged code uses registers that its caller left": _code_reads_what_callers_left,
}


def reason_of(one: Outcome) -> str | None:
    """The name of the reason for a difference, None where there is none."""
    return next((name for name, holds in REASONS.items() if holds(one)), None)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz_loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="modules to mutate")
    parser.add_argument("--image", help="release or root of the image to boot")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="mutants")
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make and compare this one mutant")
    args = parser.parse_args(argv)
    from tools.golden_box import BoxBooter

    boots = BoxBooter(args.image, "kobox"), BoxBooter(args.image, "kernel")
    numbers = range(args.seed, args.seed + args.count) if args.only is None else [args.only]
    good = done = 0
    named: Counter[str] = Counter()
    began = time.perf_counter()
    for number in numbers:
        rng = random.Random(number)
        path = rng.choice(args.files)
        try:
            mutant = mutate(path.read_bytes(), rng)
        except BadFile as bad:
            print(f"fuzz_loader: {bad}", file=sys.stderr)
            return 1
        own, image = (look(boot(""), mutant.data) for boot in boots)
        done += 1
        good += agree(own, image)
        if not agree(own, image):
            why = boots[0]("").refusal(mutant.data) if own[0].errno not in (None, "OK") else ""
            reason = reason_of(Outcome(mutant, own[0], image[0], why))
            named[reason or ""] += 1
            print(f"{number} {path.name} {mutant.what}: {reason or 'differs'}", flush=True)
            if reason is None:
                print(f"  kobox: {own[0]} {own[1]} {why}\n  image: {image[0]} {image[1]}", flush=True)
    seconds = time.perf_counter() - began
    unexplained = named.pop("", 0)
    for reason, count in named.most_common():
        print(f"{count:5} differ: {reason}")
    print(f"{good} of {done} agree, {sum(named.values())} differ for a named reason ({done / seconds:.1f} a second)")
    return 1 if unexplained else 0


if __name__ == "__main__":
    raise SystemExit(main())
