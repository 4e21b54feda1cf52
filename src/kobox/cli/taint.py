"""``kobox taint``: say what a taint value means."""

from __future__ import annotations

import argparse
import json
import sys

from kobox.errors import UsageError

EPILOG = """\
example:
  kobox taint 12288
  kobox taint "G           OE"
  kobox taint --live
  dmesg | kobox taint
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "value", nargs="*", metavar="VALUE", help="a number, letters, or a 'Tainted:' line; - reads a log"
    )
    parser.add_argument("--live", action="store_true", help="the kernel that runs this machine")
    parser.add_argument("--list", action="store_true", help="every flag there is")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.abi import taint
    from kobox.debug import taint_report

    if sum((bool(args.value), args.live, args.list)) > 1:
        raise UsageError("one of VALUE, --live and --list")
    if args.list:
        found = [taint_report.Statement((1 << len(taint.FLAGS)) - 1, "every flag")]
    elif args.live:
        found = [taint_report.of_host()]
    elif args.value and args.value != ["-"]:
        found = [taint_report.of_text(" ".join(args.value))]
    else:
        if sys.stdin.isatty():
            raise UsageError("a value, --live, --list, or a log on standard input")
        found = taint_report.of_log(sys.stdin.buffer.read().decode(errors="replace").splitlines())
    if args.json:
        print(json.dumps([taint_report.as_data(one) for one in found], indent=2))
    elif found:
        print("\n".join(map(taint_report.render, found)), end="")
    if not found:
        print("kobox taint: this log states no taint", file=sys.stderr)
    return 0
