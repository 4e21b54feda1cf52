"""``kobox man``: manual pages in roff (man(7) macros), made from what the commands accept."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from kobox.cli.described import usage_of
from kobox.cli.options import Option, Usage
from kobox.cli.table import COMMANDS
from kobox.errors import UsageError

EPILOG = """\
examples:
  kobox man modprobe | man -l -
  kobox man --dir ~/.local/share/man/man1     every page, for man kobox-modprobe
without a command the page of kobox itself"""

_EXIT_CODES = (
    ("0", "Done."),
    ("1", "The input is wrong, or what was asked for failed."),
    ("2", "Wrong usage."),
    ("3", "kobox lacks something that this needs."),
)
_ENVIRONMENT = (
    ("KOBOX_CACHE_DIR", "Where what can be made again is kept, instead of ~/.cache/kobox."),
    ("KOBOX_DATA_DIR", "Where added images are kept, instead of ~/.local/share/kobox."),
    ("NO_COLOR", "Set to anything but nothing: no colour on a terminal either."),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="whose page; without it kobox's own")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="write every page into this folder")


def run(args: argparse.Namespace) -> int:
    """Print one page, or write all."""
    if args.dir is not None:
        if args.command is not None:
            raise UsageError("--dir writes every page: give no command with it")
        args.dir.mkdir(parents=True, exist_ok=True)
        for name in (None, *COMMANDS):
            file = args.dir / f"{title_of(name)}.1"
            beside = file.with_name(f".{file.name}.{os.getpid()}")
            beside.write_text(page_of(name))
            beside.replace(file)
        print(f"{len(COMMANDS) + 1} pages in {args.dir}")
        return 0
    if args.command is not None and args.command not in COMMANDS:
        raise UsageError(f"no command {args.command!r}", hint="'kobox --help' lists them")
    sys.stdout.write(page_of(args.command))
    return 0


def title_of(name: str | None) -> str:
    """The name of a command's page, without its section."""
    return "kobox" if name is None else f"kobox-{name}"


def page_of(name: str | None) -> str:
    """A command's page; ``None`` for the one that lists them."""
    lines = _overview() if name is None else _command(usage_of(name))
    return "\n".join(lines) + "\n"


def _overview() -> Iterator[str]:
    yield from _head("kobox", "real Linux kernel modules in a kernel inside a process")
    yield from (".SH SYNOPSIS", ".B kobox", r"\fICOMMAND\fR [\fIARGUMENT\fR .\|.\|.]")
    yield ".SH DESCRIPTION"
    yield _text(
        "kobox loads unmodified modules into a distribution's own kernel, booted in this process on an emulated CPU,"
        " and serves as kmod's tools on any root directory. It needs no root and no reboot."
    )
    yield ".SH COMMANDS"
    for name, command in COMMANDS.items():
        yield from _tagged(rf"\fBkobox\-{_text(name)}\fR(1)", command.help)
    yield from _tail([f"kobox-{name}" for name in COMMANDS])


def _command(usage: Usage) -> Iterator[str]:
    yield from _head(title_of(usage.name), usage.help)
    yield ".SH SYNOPSIS"
    ways = [(one.name, line) for one in (usage, *usage.verbs) for line in one.lines]
    yield "\n.br\n".join(rf"\fBkobox {_text(name)}\fR {_text(line)}" for name, line in ways)
    yield from (".SH DESCRIPTION", _text(_sentence(usage.help)))
    if usage.text:
        yield from (".PP", *_paragraphs(usage.text))
    yield from _arguments(usage, ".SH")
    for verb in usage.verbs:
        yield from (f".SH {_text(verb.name.upper())}", _text(_sentence(verb.help)))
        yield from _arguments(verb, ".SS")
    if usage.epilog:
        yield from (".SH EXAMPLES", ".nf", *(_line(line) for line in usage.epilog.strip("\n").splitlines()), ".fi")
    yield from _tail(["kobox", *_relatives(usage.name)])


def _arguments(usage: Usage, heading: str) -> Iterator[str]:
    if any(operand.help for operand in usage.operands):
        yield f"{heading} {'ARGUMENTS' if heading == '.SH' else 'Arguments'}"
        for operand in usage.operands:
            if operand.help:
                yield from _tagged(rf"\fI{_text(operand.name)}\fR", operand.help)
    if usage.options:
        yield f"{heading} {'OPTIONS' if heading == '.SH' else 'Options'}"
    for number, (group, options) in enumerate(usage.groups.items()):
        if group and options:
            yield from ([".PP"] * bool(number)) + [rf"\fI{_text(_sentence(group, ':'))}\fR"]
        for one in options:
            yield from _tagged(_spelling(one), one.help)


def _spelling(one: Option) -> str:
    names = ", ".join(rf"\fB{_text(name)}\fR" for name in one.names)
    if not one.argument:
        return names
    argument = rf"\fI{_text(one.argument)}\fR"
    return f"{names} {argument}" if one.values else f"{names} [{argument}]"


def _head(title: str, help: str) -> Iterator[str]:
    from kobox import __version__

    day = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    yield rf'.TH "{_text(title.upper())}" 1 "{day}" "kobox {_text(__version__)}" "User Commands"'
    yield from (".SH NAME", rf"{_text(title)} \- {_text(help)}")


def _tail(pages: Iterable[str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in _EXIT_CODES:
        yield from _tagged(code, meaning)
    yield ".SH ENVIRONMENT"
    for name, meaning in _ENVIRONMENT:
        yield from _tagged(rf"\fB{_text(name)}\fR", meaning)
    yield ".SH SEE ALSO"
    yield ",\n".join(rf"\fB{_text(page)}\fR(1)" for page in pages)


def _relatives(name: str) -> list[str]:
    """The commands with kmod's names name each other, and kmod's own pages."""
    from kobox.cli.table import COMPAT

    return [f"kobox-{other}" for other in sorted(COMPAT) if other != name] if name in COMPAT else []


def _tagged(tag: str, text: str) -> Iterator[str]:
    yield from (".TP", tag, *_paragraphs(_sentence(text)))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _sentence(text: str, end: str = ".") -> str:
    text = text[:1].upper() + text[1:] if text[:1].islower() and not text.startswith("kobox") else text
    return text if not text or text[-1] in ".:!?" else text + end


def _line(line: str) -> str:
    return _text(line) if line else ".sp"


def _text(text: str) -> str:
    """Text in which nothing means anything to roff; ``-`` is the character that is typed."""
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return rf"\&{text}" if text.startswith((".", "'")) else text


_ESCAPES = (
    ("\\", r"\e"),
    ("-", r"\-"),
    ("'", r"\(aq"),
    ("`", r"\(ga"),
    ("^", r"\(ha"),
    ("~", r"\(ti"),
    ("…", ".\\|.\\|."),
)
