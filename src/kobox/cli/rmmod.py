"""``kobox rmmod``: kmod's options, texts and exit codes, on the live host or a given target."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kobox.cli.kmod_face import Console, print_json, run_tool, target_of
from kobox.cli.kmod_options import RMMOD
from kobox.depot.kernel_target import KernelTarget
from kobox.depot.names import module_name, module_name_of_path
from kobox.depot.targets import FORCE_REMOVE, NO_WAIT, Target
from kobox.depot.tree import ModuleTree, releases
from kobox.errors import Errno


def main(argv: Sequence[str], target: Target | None = None) -> int:
    """Run ``rmmod``; ``target`` is a kernel of the caller's to act on."""
    console = Console("rmmod", verbosity=4)

    def work(given: dict[str, str], operands: list[str]) -> int:
        if not operands:
            console.say("ERROR", "missing module name.")
            return 1
        kernel, force = target or target_of(given), "f" in given
        root = given.get("root", "") if not isinstance(kernel, KernelTarget) else _root_of(kernel)
        results = [{"module": word, "removed": _remove(word, root, kernel, console, force)} for word in operands]
        if "json" in given:
            print_json(results)
        return 0 if all(result["removed"] for result in results) else 1

    return run_tool(console, argv, RMMOD, work)


def _root_of(target: KernelTarget) -> str:
    """Where the list of a kernel's built-in modules is; a kernel without a tree has none that could be named."""
    folder = getattr(target.kernel, "modules_folder", None)
    return str(folder.parents[2]) if folder is not None else "/nonexistent"


def _remove(word: str, root: str, target: Target, console: Console, force: bool) -> bool:
    name = module_name_of_path(word) if os.path.exists(word) else module_name(word)
    if not force and not _free(name, root, target, console, by_name=not os.path.exists(word)):
        return False
    try:
        target.remove(name, NO_WAIT | (FORCE_REMOVE if force else 0))
    except Errno as error:
        said = os.strerror(error.number)
        console.say("ERROR", f"could not remove '{name}': {said}")
        console.say("ERROR", f"could not remove module {word}: {said}")
        return False
    return True


def _free(name: str, root: str, target: Target, console: Console, by_name: bool) -> bool:
    if by_name and _is_builtin(name, root):
        console.say("ERROR", f"Module {name} is builtin.")
        return False
    module = target.loaded().get(name)
    if module is None:
        console.say("ERROR", f"Module {name} is not currently loaded")
        return False
    if module.holders:
        console.say("ERROR", f"Module {name} is in use by: {' '.join(module.holders)}")
        return False
    if module.refcount is None:
        console.say("ERROR", "Module unloading is not supported")
        return False
    if module.refcount > 0:
        console.say("ERROR", f"Module {name} is in use")
        return False
    return True


def _is_builtin(name: str, root: str) -> bool:
    running = os.uname().release
    known = releases(root)
    release = running if running in known or len(known) != 1 else known[0]
    with ModuleTree(root, release) as tree:
        return tree.is_builtin(name)
