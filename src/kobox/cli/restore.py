"""``kobox restore``: take up a saved session."""

from __future__ import annotations

import argparse

from kobox.cli.sessions import age, print_json

EPILOG = """\
examples:
  kobox restore
  kobox restore before-the-test --name again
  kobox restore --list

Without a name the newest saved state is taken. It must be of the same kobox and the same image.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", nargs="?", metavar="STATE|DIR", help="what kobox save was told (default: the newest)")
    parser.add_argument("--name", metavar="NAME", help="the new session's name (default: k1, k2 …)")
    parser.add_argument("--list", action="store_true", help="the states that were saved by name")
    parser.add_argument("--json", action="store_true", help="what the session is, or the list, as JSON")


def run(args: argparse.Namespace) -> int:
    import time

    from kobox.cli.progress import Progress
    from kobox.session.launch import launch
    from kobox.session.saved import find, saved_states

    if args.list:
        states = saved_states()
        if args.json:
            print_json([state.as_data() for state in states])
        for state in states if not args.json else ():
            print(f"{state.name:<20} {state.release:<24} {age(time.time() - state.saved)} ago  {state.path}")
        return 0
    with Progress() as progress:
        about = launch(find(args.state).plan(), args.name, progress)
    if args.json:
        print_json(about)
    else:
        print(f"{about['name']}: kernel {about['release']} at {about['now']:.3f} s")
    return 0
