"""``kobox shell``: a prompt in front of a kernel, or a script on it."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from kobox.errors import KoboxError, NotModelled, UsageError

if TYPE_CHECKING:
    from kobox.cli.shell_tools import ModuleRoot
    from kobox.session.client import RemoteKernel
    from kobox.shell import Shell, ShellKernel

EPILOG = """\
examples:
  kobox shell
  kobox shell -c 'insmod hello.ko my_param=7; cat /sys/module/hello/parameters/my_param; dmesg | tail -3'
  kobox shell --image 6.1.0-56-amd64 < test.sh
  kobox shell --session k1

Paths are those of the kernel; host:PATH is a file of this machine. 'help' lists the commands, 'help COMMAND' shows
examples. Tab completes, the arrow keys and Ctrl-R go through the history. Ctrl-C ends what the kernel is doing, Ctrl-D
leaves. Exit status: that of the last command.
"""
INTERRUPTED = 130
_PATIENCE = 5.0
"""Seconds; a call that is interrupted ends in less."""
_FOR_EVER = 1e9
"""Virtual seconds that a call may take at the prompt, where somebody sits who can end it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", nargs="?", metavar="FILE", help="run a script instead of asking")
    parser.add_argument("-c", dest="command", metavar="TEXT", help="run this instead of asking")
    parser.add_argument("-e", dest="stop", action="store_true", help="leave a script when a command fails (set -e)")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, a vmlinuz, or 'bare'")
    parser.add_argument("--root", metavar="DIR", help="system whose modules and modprobe.d count (default: the image)")
    parser.add_argument("--append", metavar="TEXT", help="kernel command line")
    parser.add_argument("--cpu", metavar="MODEL", help="CPU model (default: qemu64)")
    parser.add_argument(
        "--session", metavar="SESSION",
        help="the shell of a session (default: $KOBOX_SESSION, else the only one that runs, else a kernel of its own)",
    )  # fmt: skip
    parser.add_argument(
        "--console", action=argparse.BooleanOptionalAction, default=None,
        help="show the kernel's log as its console would (default: at the prompt)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from kobox.cli.kmod_face import binary_safe_output

    if args.command is not None and args.script is not None:
        raise UsageError("-c and FILE exclude each other")
    if args.root is not None and not Path(args.root).is_dir():
        raise UsageError(f"{args.root}: no such directory")
    binary_safe_output()
    script, name = _script(args)
    with ExitStack() as stack:
        opened = _open(args, stack)
        shell, modules = _shell(opened, args.root, name)
        shell.stop_on_failure = args.stop
        if script is not None:
            return _run_script(shell, script, bool(args.console), opened.session is None)
        try:
            from kobox.cli.shell_prompt import Prompt
        except ModuleNotFoundError as error:
            raise NotModelled(f"this Python has no {error.name}", "-c, or a script on standard input") from None
        if opened.session is None:
            opened.kernel.set_timeout(_FOR_EVER)
        return Prompt(shell, modules, opened.label, args.console is not False, opened.session is None).run()


def _script(args: argparse.Namespace) -> tuple[str | None, str]:
    """The text to run and what its messages begin with; no text: ask at the prompt."""
    if args.command is not None:
        return args.command, "kobox shell"
    if args.script is not None:
        return Path(args.script).read_text(errors="surrogateescape"), args.script
    if sys.stdin.isatty() and sys.stdout.isatty():
        return None, ""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape"), "kobox shell"


def _session(args: argparse.Namespace) -> RemoteKernel | None:
    """The session that is meant; None: a kernel of the shell's own."""
    of_its_own = [name for name in ("image", "append", "cpu") if getattr(args, name) is not None]
    if of_its_own and args.session is not None:
        raise UsageError(f"--{of_its_own[0]} is for a kernel of the shell's own; --session has one already")
    if of_its_own:
        return None
    from kobox.session.places import choose

    place = choose(args.session)
    if place is None:
        return None
    from kobox.session.client import RemoteKernel

    return RemoteKernel(place)


class _Opened(NamedTuple):
    """The kernel behind a shell; ``session``: the same, where it is one's. ``restart`` boots it anew."""

    kernel: ShellKernel
    label: str
    session: RemoteKernel | None
    restart: Callable[[], object]


def _open(args: argparse.Namespace, stack: ExitStack) -> _Opened:
    session = _session(args)
    if session is not None:
        stack.enter_context(session)
        return _Opened(session, session.name, session, session.reboot)
    from kobox.box import boot
    from kobox.cli.progress import Progress

    with Progress() as progress:
        own = boot(args.image, append=args.append or "", cpu=args.cpu or "qemu64", progress=progress)
    stack.callback(own.close)
    own.mark_pristine()
    return _Opened(own, own.release, None, own.reset)


def _shell(opened: _Opened, root: str | None, name: str) -> tuple[Shell, ModuleRoot]:
    from kobox.cli.shell_tools import ModuleRoot, tools
    from kobox.shell import TOOLS, Shell, help_command

    modules = ModuleRoot(opened.kernel, root)
    shell = Shell(opened.kernel, TOOLS, sys.stdout.buffer, sys.stderr.buffer, name)
    own = tools(opened.kernel, modules, opened.session, opened.restart)
    for command in (*own, help_command(lambda: shell.commands)):
        shell.commands[command.name] = command
    return shell, modules


def _run_script(shell: Shell, text: str, console: bool, local: bool) -> int:
    from kobox.cli.shell_console import Console
    from kobox.shell import Exit

    screen = Console(shell.kernel, console)
    try:
        with heard(shell, local):
            shell.run(text, after=screen.show)
    except Exit as left:
        return left.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except KoboxError as error:
        shell.say(text.count("\n") + 1, str(error))
        return error.exit_code
    finally:
        screen.show()
    return shell.status


@contextmanager
def heard(shell: Shell, local: bool) -> Iterator[None]:
    """While a command runs, Ctrl-C ends what the kernel does for it. Python's own work is cut only when that has had
    its time: in the middle of a call a kernel of this process would be left in pieces. A session's client sees to it
    itself."""
    if not local:
        yield
        return
    pressed_at = 0.0

    def pressed(number: int, frame: FrameType | None) -> None:
        nonlocal pressed_at
        if shell.interrupted and time.monotonic() - pressed_at > _PATIENCE:
            raise KeyboardInterrupt
        if not shell.interrupted:
            shell.interrupted, pressed_at = True, time.monotonic()
            shell.kernel.interrupt()

    shell.interrupted = False
    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if shell.interrupted:
            shell.interrupted = False
            shell.kernel.interrupt(False)
