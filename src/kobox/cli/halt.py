"""``kobox halt``: end a session."""

from __future__ import annotations

import argparse

from kobox.cli.sessions import add_session, print_json

EPILOG = """\
example:
  kobox halt
  kobox halt --session dev
  kobox halt --all

What a killed session left behind is cleared away.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument("--all", action="store_true", help="every session")
    parser.add_argument("--json", action="store_true", help="the names of the sessions that were ended, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.session.ending import halt, halt_all

    ended = halt_all() if args.all else [halt(args.session)]
    if args.json:
        print_json(ended)
    return 0
