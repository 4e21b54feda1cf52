"""What the commands with kmod's names share: their messages, their usage errors, and which target they act on.

Texts that scripts look for (``modprobe: FATAL: Module x not found …``) are kmod's; everything else is kobox's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from kobox.cli.gnu_getopt import GetoptError, getopt_long
from kobox.cli.options import Usage, getopt_tables, help_text
from kobox.errors import NotModelled, UsageError

if TYPE_CHECKING:
    from kobox.depot.targets import Target
    from kobox.depot.tree import ModuleTree
    from kobox.session.client import RemoteKernel

LEVELS = {"FATAL": 2, "ERROR": 3, "WARNING": 4, "NOTICE": 5, "INFO": 6}
"""syslog's numbers: a message is said if its level is not above the verbosity."""

NO_KERNEL = "no kobox kernel is running to act on"
NO_KERNEL_HINT = "kobox boot starts one; --root DIR (or -d DIR) answers from a directory, --live acts on this host"


class Stop(Exception):
    """End the command at once with this exit code; everything has been said."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


class Console:
    """stdout for results, stderr or syslog for messages, in kmod's form ``TOOL: LEVEL: text``."""

    def __init__(self, tool: str, verbosity: int) -> None:
        self.tool = tool
        self.verbosity = verbosity
        self.syslog = False

    def out(self, line: str) -> None:
        sys.stdout.write(line + "\n")

    def say(self, level: str, text: str) -> None:
        """A message; FATAL also ends the command, unless it is too quiet to be said (as in kmod)."""
        number = LEVELS[level]
        if number > self.verbosity:
            return
        self._emit(number, f"{level}: {text}")
        if level == "FATAL":
            raise Stop(1)

    def plain(self, text: str) -> None:
        """A message in getopt's form, without a level."""
        sys.stdout.flush()
        sys.stderr.write(f"{self.tool}: {text}\n")

    def library(self, text: str) -> None:
        """What kmod's library says before a tool has set up its own messages."""
        if os.environ.get("KMOD_LOG", "err") in ("err", "info", "debug", "3", "4", "5", "6", "7"):
            sys.stdout.flush()
            sys.stderr.write(f"libkmod: {text}\n")

    def _emit(self, number: int, text: str) -> None:
        sys.stdout.flush()
        if self.syslog:
            import syslog

            syslog.openlog(self.tool, syslog.LOG_CONS, syslog.LOG_DAEMON)
            syslog.syslog(number, text)
        else:
            sys.stderr.write(f"{self.tool}: {text}\n")


class Where(NamedTuple):
    """Which system a command is about: ``root`` None for kmod's own rules (configuration of this host)."""

    root: str | None
    dirname: str | None
    live: bool

    def check(self) -> None:
        """Raise unless there is something to act on."""
        if self.root is None and self.dirname is None and not self.live:
            no_kernel()


def session_of(name: str | None, elsewhere: bool) -> RemoteKernel | None:
    """The session that a command acts on when it was told no other place; None when there is none.

    ``elsewhere``: ``--live``, ``--root`` or another place was given; a session named beside it is wrong usage.
    """
    if elsewhere:
        if name is not None:
            raise UsageError("--session names another place than --live, --root or -d")
        return None
    from kobox.session.places import choose

    place = choose(name)
    if place is None:
        return None
    from kobox.session.client import RemoteKernel

    return RemoteKernel(place)


def system_of(session: RemoteKernel) -> tuple[str, str]:
    """(root, release) of the tree that a session has its modules from."""
    folder = session.modules_folder
    if folder is None:
        raise NotModelled(f"session {session.name!r} has no tree of modules", hint="kobox boot --root DIR")
    return str(folder.parents[2]), session.release


def no_kernel() -> NoReturn:
    raise NotModelled(NO_KERNEL, hint=NO_KERNEL_HINT)


def guarded(console: Console, work: Callable[[], int]) -> int:
    """What ``work`` returns; a wrong option or a fatal message ends it with the exit code they have in kmod."""
    binary_safe_output()
    try:
        return work()
    except GetoptError as error:
        console.plain(str(error))
        return 1
    except Stop as stop:
        return stop.code
    finally:
        sys.stdout.flush()


def run_tool(
    console: Console,
    argv: Sequence[str],
    usage: Usage,
    work: Callable[[dict[str, str], list[str]], int],
) -> int:
    """A small tool's life: parse what its ``usage`` accepts, answer -h and -V, else ``work``.

    ``work`` gets the options by name (the last of each counts) and the operands; its result is the exit code.
    """

    def life() -> int:
        options, operands = getopt_long(argv, *getopt_tables(usage.options))
        given = dict(options)
        if "h" in given or "V" in given:
            sys.stdout.write(help_text(usage) if "h" in given else "\n".join(version_lines()) + "\n")
            return 0
        console.syslog = "s" in given
        return work(given, operands)

    return guarded(console, life)


def target_of(given: Mapping[str, str]) -> Target:
    """What insmod and rmmod act on: a session; this host with ``--live``; a directory refuses."""
    session = session_of(given.get("session"), "live" in given or "root" in given)
    if session is not None:
        from kobox.depot.kernel_target import KernelTarget

        return KernelTarget(session)
    if "live" in given:
        from kobox.depot.live import LiveTarget

        return LiveTarget()
    if "root" in given:
        from kobox.depot.targets import RootTarget

        return RootTarget(given["root"])
    no_kernel()


def indexed_for_kernel(tree: ModuleTree) -> ModuleTree:
    """A kernel's modules as its own modprobe finds them: packages leave the index of their tree to depmod."""
    from kobox.cli.progress import Progress
    from kobox.kernel.module_source import with_index

    with Progress() as progress:
        return with_index(tree, progress)


def binary_safe_output() -> None:
    """File names and configuration are bytes; what is not UTF-8 leaves as it came."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="surrogateescape")


def print_json(value: object) -> None:
    import json

    print(json.dumps(value, indent=2))


def version_lines() -> Sequence[str]:
    from kobox import __version__

    return (f"kobox {__version__}, with the manners of kmod 30",)
