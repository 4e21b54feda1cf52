"""``kobox build``: modules from source, for one or more kernels; what the compiler said as text or JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kobox.cli import colour

if TYPE_CHECKING:
    from kobox.build import BuildOptions, BuildReport

EPILOG = """\
examples:
  kobox build .                                       for the newest added image, into ./build/RELEASE
  kobox build hello --image 6.1.0-56-amd64 --image 6.12.107+deb13-amd64
  kobox build user --symvers exporter                 a module that uses another one's symbols
  kobox build . CONFIG_HELLO_DEBUG=y KCFLAGS=-O1      variables for make

The folder has a Kbuild or a Makefile with obj-m, or only .c files. Nothing is written beside the sources but the folder
of results: kbuild works in a copy in kobox's cache. Headers that are not on this machine are fetched with apt-get.
Exit status 0: built, or nothing to do; 1: the sources do not build; 3: compiler, make or headers are missing.
"""
MIXES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the module's sources")
    parser.add_argument("variables", nargs="*", metavar="NAME=VALUE", help="variables for make")
    add_build_options(parser)
    parser.add_argument(
        "--image", action="append", default=[], metavar="R",
        help="kernel release to build for; may be repeated (default: the newest added image)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one record for each kernel, as JSON")


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """What ``kobox watch`` takes too."""
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="results: OUT/RELEASE (default: DIR/build)")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="compilers at once (default: all processors)")
    parser.add_argument("--headers", type=Path, metavar="DIR", help="prepared headers, or a root that has them")
    parser.add_argument("--root", type=Path, metavar="DIR", help="root with lib/modules/RELEASE/build")
    parser.add_argument("--cc", metavar="PROGRAM", help="compiler (default: the one the kernel's configuration names)")
    parser.add_argument(
        "--symvers", action="append", default=[], type=Path, metavar="PATH",
        help="a module that is needed: its folder, or its Module.symvers; may be repeated",
    )  # fmt: skip
    parser.add_argument("--in-place", action="store_true", help="let kbuild work beside the sources, as make does")


def run(args: argparse.Namespace) -> int:
    from kobox.build import build_modules
    from kobox.build.choose import releases_of
    from kobox.cli.progress import Progress

    with Progress() as progress:
        progress(f"building {args.folder}")
        options = options_of(args, progress)
        reports = build_modules(args.folder, releases_of(args.image), options)
    if args.json:
        print(json.dumps([report.as_data() for report in reports], indent=2))
    else:
        for report in reports:
            show(report)
    return 0 if all(report.ok for report in reports) else 1


def options_of(args: argparse.Namespace, progress: object) -> BuildOptions:
    """The options of the command line as the build room takes them."""
    from kobox.build import BuildOptions
    from kobox.errors import UsageError

    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"-j {args.jobs}: at least one compiler is needed")
    return BuildOptions(
        headers=args.headers, root=args.root, out=args.output, in_place=args.in_place, compiler=args.cc,
        variables=tuple(args.variables), symvers=tuple(args.symvers), jobs=args.jobs or os.cpu_count() or 1,
        progress=progress,  # type: ignore[arg-type]  # a callable that takes the text
    )  # fmt: skip


def show(report: BuildReport) -> None:
    """Remarks on standard error, as a compiler's; the outcome on standard output."""
    from kobox.build.render import diagnostic_lines, outcome_line

    for line in diagnostic_lines(report.diagnostics, colour.wanted(sys.stderr)):
        print(line, file=sys.stderr)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    sys.stderr.flush()
    print(outcome_line(report))
