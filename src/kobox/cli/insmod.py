"""``kobox insmod``: kmod's options, texts and exit codes, on the live host or a given target."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from errno import EINVAL, ENOENT, ENOEXEC, ESRCH

from kobox.cli.gnu_getopt import GetoptError, Long, getopt_long
from kobox.cli.kmod_face import Console, Stop, binary_safe_output, no_kernel, print_json, version_lines
from kobox.depot.targets import IGNORE_MODVERSIONS, IGNORE_VERMAGIC, RootTarget, Target
from kobox.errors import Errno

SHORT = "psvfVh"
LONG = {
    "force": Long("f"),
    "force-modversion": Long("force-modversion"),
    "force-vermagic": Long("force-vermagic"),
    "syslog": Long("s"),
    "verbose": Long("v"),
    "version": Long("V"),
    "help": Long("h"),
    "root": Long("root", True),
    "live": Long("live"),
    "json": Long("json"),
}

HELP = """\
usage: kobox insmod --live [OPTION ...] FILE [PARAMETER=VALUE ...]

      --live               insert into this host's kernel
  -f, --force              --force-modversion and --force-vermagic
  -s, --syslog             messages to syslog
  -v, --verbose            say what is inserted
      --json               the result as JSON
  -V, -h                   version, this help

example: kobox insmod --live ./hello.ko my_param=7
"""

_FLAGS = {
    "f": IGNORE_MODVERSIONS | IGNORE_VERMAGIC,
    "force-modversion": IGNORE_MODVERSIONS,
    "force-vermagic": IGNORE_VERMAGIC,
}

_ERRORS = {
    ENOEXEC: "Invalid module format",
    ENOENT: "Unknown symbol in module",
    ESRCH: "Module has wrong symbol version",
    EINVAL: "Invalid parameters",
}
"""kmod's words for what the kernel answers most; others are the C library's."""


def main(argv: Sequence[str], target: Target | None = None) -> int:
    """Run ``insmod``; ``target`` is a kernel of the caller's to act on."""
    binary_safe_output()
    console = Console("insmod", verbosity=4)
    try:
        return _main(list(argv), console, target)
    except Stop as stop:
        return stop.code
    finally:
        sys.stdout.flush()


def _main(argv: list[str], console: Console, target: Target | None) -> int:
    try:
        options, operands = getopt_long(argv, SHORT, LONG)
    except GetoptError as error:
        console.plain(str(error))
        return 1
    given = dict(options)
    if "h" in given or "V" in given:
        sys.stdout.write(HELP if "h" in given else "\n".join(version_lines()) + "\n")
        return 0
    console.syslog = "s" in given
    if not operands:
        console.say("ERROR", "missing filename.")
        return 1
    file, *parameters = operands
    if file == "-":
        console.say("ERROR", "this tool does not support loading from stdin!")
        return 1
    if target is None:
        target = _target(given)
    return _insert(file, " ".join(parameters), _flags(given), target, console, given)


def _target(given: dict[str, str]) -> Target:
    if "live" in given:
        from kobox.depot.live import LiveTarget

        return LiveTarget()
    if "root" in given:
        return RootTarget(given["root"])
    no_kernel()


def _flags(given: dict[str, str]) -> int:
    flags = 0
    for name, value in _FLAGS.items():
        if name in given:
            flags |= value
    return flags


def _insert(file: str, parameters: str, flags: int, target: Target, console: Console, given: dict[str, str]) -> int:
    try:
        os.stat(file)
    except OSError as error:
        console.say("ERROR", f"could not load module {file}: {error.strerror}")
        return 1
    number = 0
    if "v" in given:
        console.out(f"insmod {file} {parameters}")
    try:
        target.insert(os.path.abspath(file), parameters, flags)
    except Errno as error:
        number = error.number
        said = _ERRORS.get(number) or os.strerror(number)
        console.say("ERROR", f"could not insert module {file}: {said}")
    if "json" in given:
        print_json({"file": file, "parameters": parameters, "result": number})
    return 1 if number else 0
