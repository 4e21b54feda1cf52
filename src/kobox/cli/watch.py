"""``kobox watch``: what the loop says, as text for the one who edits or as one JSON record a line."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.cli import colour
from kobox.cli.build import add_build_options, options_of

if TYPE_CHECKING:
    from kobox.build import BuildReport
    from kobox.runner import RunReport
    from kobox.watch import Event
    from kobox.watch.records import Result, Test

EPILOG = """\
examples:
  kobox watch .                                 build, load and test on every change
  kobox watch hello -- -k parameters -x         with arguments for pytest
  kobox watch hello --param count=3             without tests: load with a parameter, show the log, unload
  kobox watch . --json                          one event a line, for an editor

Tests are the test_*.py files in the folder, or those that are given; a test gets its module by the fixture kobox_build,
kernel.insmod(kobox_build / "hello.ko"). The kernel stays booted, and each round has it pristine. Ctrl-C ends it.
"""


MIXES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the module's sources")
    parser.add_argument("pytest_args", nargs="*", metavar="PYTEST-ARGUMENT", help="behind --: arguments for pytest")
    parser.add_argument(
        "--image", action="append", default=[], metavar="R",
        help="kernel to build for and to run; may be repeated (default: the newest added image)",
    )  # fmt: skip
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="module parameter, where there are no tests"
    )
    parser.add_argument(
        "--make", action="append", default=[], metavar="NAME=VALUE", dest="variables", help="variable for make"
    )
    add_build_options(parser)
    parser.add_argument("--once", action="store_true", help="one round, then exit: 0 when it was a good one")
    parser.add_argument("--poll", action="store_true", help="look for changes instead of being told by the kernel")
    parser.add_argument("--json", action="store_true", help="one event a line, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.build.choose import kernels_of
    from kobox.cli.progress import Progress
    from kobox.watch import Watch, WatchOptions

    show = _as_json if args.json else _Text(colour.wanted(sys.stdout))
    progress = Progress()
    options = WatchOptions(
        images=kernels_of(args.image), pytest_args=tuple(args.pytest_args), parameters=tuple(args.param),
        append=args.append, coloured=not args.json and colour.wanted(sys.stdout), polling=args.poll,
        build=options_of(args, progress),
    )  # fmt: skip

    def told(event: Event) -> None:
        progress.rest()
        show(event)

    try:
        with progress:
            good = Watch(args.folder, options, told).run(rounds=1 if args.once else None)
    except KeyboardInterrupt:
        if not args.json:
            print()
        return 0
    return 0 if good else 1


def _as_json(event: Event) -> None:
    print(json.dumps(event.as_data()), flush=True)


class _Text:
    """Events as they are read at a terminal."""

    def __init__(self, coloured: bool) -> None:
        self._coloured = coloured
        self._tests = 0

    def __call__(self, event: Event) -> None:
        show = getattr(self, f"_{event.kind}")
        show(event.body)
        sys.stdout.flush()

    def _watching(self, body: dict[str, Any]) -> None:
        tests = f"{len(body['tests'])} test files" if len(body["tests"]) != 1 else body["tests"][0]
        what = f"tests: {tests}" if body["tests"] else "no tests: modules are loaded and unloaded"
        print(f"watching {body['folder']} for {', '.join(body['images'])}; {what}; Ctrl-C ends it")

    def _note(self, body: dict[str, Any]) -> None:
        print(f"{self._painted(body['level'] + ':', _CODES.get(body['level'], '1'))} {body['text']}")

    def _ready(self, body: dict[str, Any]) -> None:
        if body["seconds"] > 2:
            print(f"booted in {body['seconds']:.1f} s")

    def _changed(self, body: dict[str, Any]) -> None:
        files = body["files"]
        named = ", ".join(files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
        print(self._painted(f"── {time.strftime('%H:%M:%S')} {named} ──", "1"))

    def _build(self, report: BuildReport) -> None:
        from kobox.build.render import diagnostic_lines, outcome_line

        self._tests = 0
        for line in diagnostic_lines(report.diagnostics, self._coloured):
            print(line)
        print(outcome_line(report))

    def _test(self, test: Test) -> None:
        self._tests += 1
        if test.ok:
            return
        print(f"{self._painted(test.outcome.upper(), '31;1')} {test.name}")
        if test.text:
            print(test.text)
        crashed = any(title == "kernel crash" for title, _ in test.sections)
        for title, text in test.sections:
            shown = _before_the_crash(text) if crashed and title == "kernel log" else text
            print(self._painted(f"-- {title} --", "1"))
            print(shown.rstrip())

    def _module(self, report: RunReport) -> None:
        from kobox.cli.run import show

        show(report, steps=False)

    def _result(self, result: Result) -> None:
        if result.stage == "cancelled":
            print("changed again: starting over")
            return
        counts = [
            f"{number} {what}"
            for number, what in (
                (result.failed, "failed"), (result.passed, "passed"), (result.skipped, "skipped"),
            )
            if number
        ]  # fmt: skip
        if result.stage == "build":
            counts = ["not built"]
        times = [
            f"{seconds:.2f} s after {what}"
            for seconds, what in ((result.after_compiler, "the compiler"), (result.after_save, "saving"))
            if seconds is not None
        ]
        verdict = self._painted(", ".join(counts) or "nothing ran", "32;1" if result.ok else "31;1")
        print("; ".join([verdict, *times]))

    def _painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._coloured else text


def _before_the_crash(log: str) -> str:
    """The log without the crash, which is shown decoded."""
    return _CRASH.split(log, maxsplit=1)[0]


_CRASH = re.compile(r"^.*(?:BUG: |Oops: |general protection|cut here \]|stack segment|kernel BUG at).*$", re.MULTILINE)
_CODES = {"error": "31;1", "warning": "33;1", "note": "1"}
