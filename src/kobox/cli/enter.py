"""``kobox enter``: unmodified programs against a session's kernel, without root."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from kobox.cli.sessions import add_session
from kobox.errors import KoboxError, UsageError

if TYPE_CHECKING:
    from kobox.session.places import Place

EPILOG = """\
examples:
  kobox boot && kobox enter -- insmod hello.ko my_param=7
  kobox enter                                    # a shell
  kobox enter -- sh -c 'lsmod | grep hello; cat /sys/module/hello/parameters/my_param'

insmod, modprobe, lsmod, dmesg, sysctl, scripts and whatever else are this machine's own; /proc, /sys, /dev,
/lib/modules/RELEASE, /etc/modprobe.d and uname are the session's. Exit status: the command's; 127 where there is no
such command. Without a running session one is booted for this command and halted after it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument("--image", metavar="R", help="where no session runs: what is booted for this command")
    parser.add_argument("--root", metavar="DIR", help="the same: tree with the modules and modprobe.d to use")
    parser.add_argument("--append", default="", metavar="TEXT", help="the same: kernel command line")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD", help="the program and its arguments")


def run(args: argparse.Namespace) -> int:
    from kobox.session import places

    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    command = words or [os.environ.get("SHELL") or "/bin/sh"]
    place = places.choose(args.session)
    if place is None:
        return _with_own_session(args, command)
    if args.image or args.root or args.append:
        hint = "--session and the options of a boot exclude each other: kobox halt, or leave them out"
        raise UsageError(f"session {place.name!r} runs already", hint)
    return _enter(place, command)


def _enter(place: Place, command: list[str]) -> int:
    """Become the command: comes back only where it cannot be executed."""
    from kobox.enter.start import enter

    def say(text: str) -> None:
        print(f"kobox enter: {text}", file=sys.stderr)

    try:
        enter(place, command, say)
    except (FileNotFoundError, PermissionError) as error:
        if error.filename != command[0]:
            raise
        print(f"kobox enter: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


def _with_own_session(args: argparse.Namespace, command: list[str]) -> int:
    """Boot, run the command in a process of its own, halt."""
    from kobox.cli.progress import Progress
    from kobox.session import places
    from kobox.session.boot import BootPlan, check
    from kobox.session.ending import halt
    from kobox.session.launch import launch

    image = args.image if args.image is None or not os.path.exists(args.image) else os.path.abspath(args.image)
    plan = BootPlan(image, args.append, None if args.root is None else os.path.abspath(args.root))
    check(plan)
    with Progress() as progress:
        about = launch(plan, None, progress)
    for complaint in about["complaints"]:
        print(f"kobox enter: not loaded: {complaint}", file=sys.stderr)
    try:
        child = os.fork()
        if child == 0:
            os._exit(_in_child(places.the_session(about["name"]), command))
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # they are meant for the command
        _, status = os.waitpid(child, 0)
    finally:
        halt(about["name"])
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _in_child(place: Place, command: list[str]) -> int:
    try:
        return _enter(place, command)
    except KoboxError as error:
        print(f"kobox enter: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"kobox enter: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 1
