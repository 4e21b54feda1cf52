"""``kobox run``: one module's whole life, as text or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from kobox.cli import colour

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kobox.runner import RunReport

EPILOG = """\
examples:
  kobox run hello.ko my_param=7
  kobox run --image 6.1.0-56-amd64 --json bonding.ko.xz miimon=100

The module is loaded after what it depends on, its log is shown, and everything is unloaded again. Exit status 0: loaded
and unloaded, nothing leaked, no oops (a permanent module is not unloaded, and that is no failure); 1: something failed.
"""
MIXES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.ko", help="module file, plain or .xz .zst .gz")
    parser.add_argument("parameters", nargs="*", metavar="name=value", help="module parameters")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, a vmlinuz, or 'bare'")
    parser.add_argument("--root", metavar="DIR", help="system whose modules it may need and whose modprobe.d holds")
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--cpu", default="qemu64", metavar="MODEL", help="CPU model (default: qemu64)")
    parser.add_argument(
        "--loader", default="kobox", choices=("kobox", "kernel"),
        help="who loads: kobox, or the image's own loader as a second opinion",
    )  # fmt: skip
    parser.add_argument("--steps", action="store_true", help="show each step of the load with its time")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-q", "--quiet", action="store_true", help="print nothing but what went wrong")
    form.add_argument("--json", action="store_true", help="the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.runner import run_module

    with Progress() as progress:
        report = run_module(
            args.file, args.parameters, image=args.image, root=args.root, append=args.append, cpu=args.cpu,
            loader=args.loader, progress=progress,
        )  # fmt: skip
    if args.json:
        print(json.dumps(report.as_data(), indent=2))
    elif not args.quiet:
        show(report, args.steps)
    elif not report.ok:
        print(f"{report.module}: {_verdict(report)}")
    return 0 if report.ok else 1


def show(report: RunReport, steps: bool) -> None:
    coloured = colour.wanted(sys.stdout)
    print(f"kernel {report.image} ({report.why_image}), CPU {report.cpu}")
    if report.dependencies:
        print(f"loaded first: {', '.join(report.dependencies)}")
    for when, level, text in report.log:
        print(colour.of_level(f"[{when:12.6f}] {text}", level, coloured))
    for request in report.autoloaded:
        print(f"asked for {request.name}: {', '.join(request.modules) or '; '.join(request.said) or 'loaded already'}")
    if report.parameters:
        shown = " ".join(f"{name}={value}" for name, value in report.parameters.items())
        print(f"parameters: {shown}")
    if steps:
        for name, ms in report.steps:
            print(f"  {name:<12} {ms:8.3f} ms")
    if report.oops_text:
        print(report.oops_text, end="")
    for line in _memory_lines(report):
        print(line)
    print(f"{report.module}: {_verdict(report)}")


def _memory_lines(report: RunReport) -> Iterator[str]:
    """What the memory checker found, each with the traces that belong to it."""
    for fault in report.memory:
        yield fault["text"].removeprefix("kobox: ")
        for what in ("allocated", "freed", "found"):
            if fault[what]:
                yield f"  {what}:"
                yield from _frame_lines(fault[what])
    for leak in report.leaks:
        yield f"leak: {leak['size']} bytes at {leak['address']}, never freed; allocated {leak['age']:.3f} s ago by"
        yield from _frame_lines(leak["trace"])


def _frame_lines(trace: list[dict[str, Any]]) -> Iterator[str]:
    for frame in trace:
        yield f"    {frame['symbol']}" + (f"  {frame['source']}" if frame["source"] else "")


def _verdict(report: RunReport) -> str:
    from kobox.abi.taint import letters

    if report.result:
        said = f"not loaded: {report.errno_name}"
        return f"{said} ({report.reason})" if report.reason else said
    if report.oops is not None:
        return f"crashed: {report.reason}"
    if report.reason:
        return f"failed: {report.reason}"
    parts = ["loaded"]
    if report.permanent:
        parts.append("permanent")
    else:
        parts.append("unloaded" if report.unloaded else "not unloaded")
    parts.append(f"{len(report.leaks)} leaked allocations" if report.leaks else "nothing leaked")
    if report.memory:
        parts.append(f"memory misused: {', '.join(sorted({fault['kind'] for fault in report.memory}))}")
    if report.unwatched:
        parts.append(f"frees not seen: {', '.join(report.unwatched)}")
    if report.stubs:
        parts.append(f"stubs hit: {', '.join(report.stubs)}")
    parts.append(f"taint {letters(report.tainted) or 'none'}")
    return ", ".join(parts)
