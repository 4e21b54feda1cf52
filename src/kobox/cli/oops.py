"""``kobox oops``: decode a pasted report of the kernel."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kobox.errors import UsageError

if TYPE_CHECKING:
    from kobox.debug.sources import Sources

EPILOG = """\
example:
  dmesg | kobox oops --module hello.ko
  kobox oops --module hello.ko hello_init+0x18

Every .ko given must be the build that crashed, not stripped of its debug data; then each address in it becomes a file
and line, and the variable behind a bad pointer gets its name. Without one the report is still decoded and explained.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "log", nargs="*", metavar="FILE", help="log to read (default: standard input), or symbol+0xoffset"
    )
    parser.add_argument(
        "-m", "--module", action="append", default=[], metavar="X.ko", help="module file with debug data"
    )
    parser.add_argument("-s", "--source", action="append", default=[], metavar="DIR", help="folder with the C sources")
    parser.add_argument(
        "--image", metavar="R", help="kernel image: names arguments and members where there is no debug data"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything as JSON: a list of reports")
    form.add_argument("--sarif", action="store_true", help="the crashes as SARIF 2.1.0, at their lines of source")


def run(args: argparse.Namespace) -> int:
    from kobox.debug.parse import parse_log, parse_symbols
    from kobox.debug.report import as_data, make_report, render

    text = _read(args.log)
    found = parse_log(text) or parse_symbols(text)
    if not found:
        print("kobox oops: nothing in this text looks like a kernel report or symbol+0xoffset", file=sys.stderr)
        return 1
    sources = _sources(args) if args.module or args.image else None
    reports = [make_report(oops, sources) for oops in found]
    if args.json:
        print(json.dumps([as_data(report) for report in reports], indent=2))
    elif args.sarif:
        from kobox.cli.sarif_face import of_crashes, print_sarif

        print_sarif("kobox oops", of_crashes(reports))
    else:
        print("\n".join(render(report) for report in reports), end="")
    return 0


def _sources(args: argparse.Namespace) -> Sources:
    from kobox.debug.sources import Sources

    kernel = None
    if args.image:
        from kobox.debug.kernel_functions import ImageFunctions
        from kobox.image import open_image

        kernel = ImageFunctions(open_image(args.image))
    return Sources.of_files(args.module, [Path(folder) for folder in args.source], kernel)


def _read(names: list[str]) -> str:
    if not names or names == ["-"]:
        if sys.stdin.isatty():
            print("kobox oops: paste the report, then press Ctrl-D", file=sys.stderr)
        return sys.stdin.buffer.read().decode(errors="replace")
    texts = []
    for name in names:
        path = Path(name)
        if path.is_file():
            texts.append(path.read_text(errors="replace"))
        elif "+0x" in name:
            texts.append(name)
        else:
            raise UsageError(f"{name}: no such file, and not symbol+0xoffset")
    return "\n".join(texts)
