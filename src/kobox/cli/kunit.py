"""``kobox kunit``: the KUnit tests of module files, as KTAP or JSON."""

from __future__ import annotations

import argparse
import json

EPILOG = """\
examples:
  kobox kunit list-test.ko                               KTAP, as the kernel prints it
  kobox kunit --image 6.1.0-56-amd64 tests/*.ko --json
  kobox kunit list-test.ko | tools/testing/kunit/kunit.py parse

Each file is loaded, after what it depends on, into a fresh kernel, which runs its tests. A kernel that was built
without KUnit (distributions' are) is served by kobox's own; the file then needs its debug data. Exit status 0: every
test that was announced ended without failing, and nothing was left; 1: otherwise.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE.ko", nargs="+", help="module with tests, plain or .xz .zst .gz")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, or a vmlinuz")
    parser.add_argument("--root", metavar="DIR", help="system whose modules they may need and whose modprobe.d holds")
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--json", action="store_true", help="results as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.kunit import run_tests

    with Progress() as progress:
        report = run_tests(args.files, image=args.image, root=args.root, append=args.append, progress=progress)
    if args.json:
        print(json.dumps(report.as_data(), indent=1))
    else:
        for line in report.ktap_lines():
            print(line)
    return 0 if report.ok else 1
