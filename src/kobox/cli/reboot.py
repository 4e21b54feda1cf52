"""``kobox reboot``: boot a session's kernel anew."""

from __future__ import annotations

import argparse

from kobox.cli.sessions import add_session, kernel_of, print_json

EPILOG = """\
example:
  kobox reboot
  kobox reboot --session dev

A machine with UEFI is switched off and on: MokManager carries out what kobox mok asked for, the chain is checked anew.
The session keeps its name, its options and its clients; its kernel is a fresh one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument("--mok-password-file", metavar="FILE", help="give MokManager this file's first line")
    parser.add_argument("--json", action="store_true", help="what the session is now, as JSON")


def run(args: argparse.Namespace) -> int:
    with kernel_of(args) as kernel:
        machine = kernel.info()["variables"]
        lines = []
        if machine is not None:
            from kobox.cli.secure_boot import power_on_again

            lines = power_on_again(args, machine, kernel.info()["image"])
        about = kernel.reboot()
        if args.json:
            print_json(kernel.info())
        else:
            print("".join(line + "\n" for line in lines), end="")
            print(f"{kernel.name}: kernel {about['release']}")
    return 0
