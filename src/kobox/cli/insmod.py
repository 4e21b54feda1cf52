"""``kobox insmod``: kmod's options, texts and exit codes, on the live host or a given target."""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EINVAL, ENOENT, ENOEXEC, ESRCH

from kobox.cli.kmod_face import Console, print_json, run_tool, target_of
from kobox.cli.kmod_options import INSMOD
from kobox.depot.kernel_target import KernelTarget
from kobox.depot.targets import IGNORE_MODVERSIONS, IGNORE_VERMAGIC, Target
from kobox.errors import Errno

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
    console = Console("insmod", verbosity=4)

    def work(given: dict[str, str], operands: list[str]) -> int:
        if not operands:
            console.say("ERROR", "missing filename.")
            return 1
        file, *parameters = operands
        if file == "-":
            console.say("ERROR", "this tool does not support loading from stdin!")
            return 1
        return _insert(file, " ".join(parameters), target or target_of(given), console, given)

    return run_tool(console, argv, INSMOD, work)


def _flags(given: dict[str, str]) -> int:
    flags = 0
    for name, value in _FLAGS.items():
        if name in given:
            flags |= value
    return flags


def _insert(file: str, parameters: str, target: Target, console: Console, given: dict[str, str]) -> int:
    try:
        os.stat(file)
    except OSError as error:
        console.say("ERROR", f"could not load module {file}: {error.strerror}")
        return 1
    number = 0
    if "v" in given:
        console.out(f"insmod {file} {parameters}")
    try:
        target.insert(os.path.abspath(file), parameters, _flags(given))
    except Errno as error:
        number = error.number
        said = _ERRORS.get(number) or os.strerror(number)
        console.say("ERROR", f"could not insert module {file}: {said}")
        if isinstance(target, KernelTarget) and (why := target.explain()):
            console.say("ERROR", f"the loader: {why}")
    if "json" in given:
        print_json({"file": file, "parameters": parameters, "result": number})
    return 1 if number else 0
