"""``kobox save``: keep a session on disk."""

from __future__ import annotations

import argparse
import os

from kobox.cli.sessions import add_session, kernel_of, print_json

EPILOG = """\
examples:
  kobox save
  kobox save before-the-test
  kobox save --session dev /srv/states/dev

Once it returns, the whole kernel (memory, modules, open files, log, time) is on disk: a killed server loses nothing of
it. The session goes on. kobox restore takes the state up, as often as wanted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", nargs="?", metavar="STATE|DIR", help="where to (default: the session's name)")
    add_session(parser)
    parser.add_argument("--json", action="store_true", help="where it lies and how large it is, as JSON")


def run(args: argparse.Namespace) -> int:
    with kernel_of(args) as kernel:
        state = args.state or kernel.name
        saved = kernel.save(os.path.abspath(state) if "/" in state else state)
        if args.json:
            print_json(saved)
        else:
            print(f"{kernel.name}: saved in {saved['path']} ({saved['bytes'] >> 20} MiB)")
    return 0
