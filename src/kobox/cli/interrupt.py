"""``kobox interrupt``: end the call that a session's kernel is in, whoever made it."""

from __future__ import annotations

import argparse

from kobox.cli.sessions import add_session, kernel_of, print_json

EPILOG = """\
example:
  kobox interrupt --session dev

First as a signal to its task would (EINTR); code that spins and pays no heed is stopped by force. Exit status 1:
nothing ran.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument("--json", action="store_true", help="whether there was a call, as JSON")


def run(args: argparse.Namespace) -> int:
    with kernel_of(args) as kernel:
        interrupted = kernel.interrupt()
    if args.json:
        print_json({"interrupted": interrupted})
    return 0 if interrupted else 1
