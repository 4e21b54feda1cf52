"""``kobox cat``: files of a session's kernel, byte for byte."""

from __future__ import annotations

import argparse
import os
import sys

from kobox.cli.sessions import add_session, kernel_of

EPILOG = """\
example:
  kobox cat /proc/modules /sys/module/hello/parameters/my_param

Like cat, it goes on with the next file when one cannot be read, and ends with 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="+", metavar="PATH", help="a file of the kernel's tree")
    add_session(parser)


def run(args: argparse.Namespace) -> int:
    from kobox.errors import Errno

    code = 0
    with kernel_of(args) as kernel:
        for path in args.path:
            try:
                sys.stdout.buffer.write(kernel.read(path))
            except Errno as error:
                code = 1
                sys.stdout.flush()
                print(f"kobox cat: {path}: {os.strerror(error.number)}", file=sys.stderr)
    return code
