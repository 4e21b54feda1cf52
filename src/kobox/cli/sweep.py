"""``kobox sweep``: every module of a tree loaded and unloaded on a booted kernel, each in a fresh state."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kobox.sweep import SweepReport

EPILOG = """\
examples:
  kobox sweep --image 6.1.0-56-amd64                     all modules of the distribution, on all CPUs
  kobox sweep --select 'kernel/fs/*' --html report.html  file systems only, with a page to look at
  kobox sweep --select ext4 btrfs --json
  kobox sweep --image bare --root DIR                    which functions the bare kernel would need, by demand

Each module is loaded after what it depends on, looked at, and unloaded again; then the kernel goes back to its fresh
state. A module that refuses to load (a driver without its device) has given its answer. Exit status 0: nothing crashed,
hung, or met something that kobox lacks; 1: something did.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, a vmlinuz, or 'bare'")
    parser.add_argument("--root", metavar="DIR", help="tree whose lib/modules is swept (default: the image's own)")
    parser.add_argument(
        "--select", metavar="GLOB", action="extend", nargs="+", default=[],
        help="only modules whose name or path fits one of these",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: one for each CPU)")
    parser.add_argument(
        "--cluster", default="", metavar="ADDRESS",
        help="have the workers of this Dask scheduler do it (pip install 'kobox[cluster]')",
    )  # fmt: skip
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.sweep import SweepOptions, sweep

    options = SweepOptions(args.image, args.root, tuple(args.select), args.jobs, args.append, args.cluster)
    with Progress() as progress:
        report = sweep(options, progress, lambda result, done, total: progress(f"{done}/{total} {result.name}"))
    if args.html is not None:
        from kobox.sweep.page import page

        _write(args.html, page(report))
    if args.junit is not None:
        from kobox.sweep.junit import junit

        _write(args.junit, junit(report))
    if args.json:
        print(json.dumps(report.as_data(), indent=1))
    else:
        _show(report)
    return 0 if report.ok else 1


def _show(report: SweepReport) -> None:
    from kobox.sweep.text import line_of, summary

    for module in report.modules:
        if module.verdict != "loaded" or module.unload or module.leftover or module.warn or len(report.modules) == 1:
            print(line_of(module))
    for line in summary(report):
        print(line)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
