"""``kobox write``: store a text in a file of a session's kernel, as a shell's redirection does."""

from __future__ import annotations

import argparse
import os
import sys

from kobox.cli.sessions import add_session, kernel_of

EPILOG = """\
examples:
  kobox write /sys/module/hello/parameters/my_param 9
  echo 'module hello +p' | kobox write /sys/kernel/debug/dynamic_debug/control

TEXT gets a newline at its end, as from echo. Everything is written in one call.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a file of the kernel's tree")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what to write (default: standard input, as it is)")
    parser.add_argument("-n", action="store_true", dest="bare", help="no newline behind TEXT")
    add_session(parser)


def run(args: argparse.Namespace) -> int:
    from kobox.errors import Errno

    if args.text is None:
        data = sys.stdin.buffer.read()
    else:
        data = args.text.encode("utf-8", "surrogateescape") + (b"" if args.bare else b"\n")
    with kernel_of(args) as kernel:
        try:
            kernel.write(args.path, data)
        except Errno as error:
            print(f"kobox write: {args.path}: {os.strerror(error.number)}", file=sys.stderr)
            return 1
    return 0
