"""``kobox lsmod``: the loaded modules, in the columns of kmod's lsmod, of the live host, a copy of one, or a target."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from kobox.cli.kmod_face import Console, no_kernel, print_json, run_tool, session_of
from kobox.cli.kmod_options import LSMOD
from kobox.depot.targets import Loaded, SysModules, Target


def main(argv: Sequence[str], target: Target | None = None) -> int:
    """Run ``lsmod``; ``target`` is a kernel of the caller's to look at."""

    def work(given: dict[str, str], operands: list[str]) -> int:
        if operands:
            sys.stderr.write("Usage: lsmod\n")
            return 1
        session = target or _session(given)
        modules = list(session.loaded().values()) if session is not None else _listed(given)
        if modules is None:
            return 1
        if "json" in given:
            print_json([module_json(module) for module in modules])
            return 0
        sys.stdout.write("Module                  Size  Used by\n")
        sys.stdout.writelines(module_line(module) + "\n" for module in modules)
        return 0

    return run_tool(Console("lsmod", verbosity=4), argv, LSMOD, work)


def module_line(module: Loaded) -> str:
    """A line of lsmod; a count of -2 stands for a kernel that cannot unload (ENOENT, as kmod shows it)."""
    count = -2 if module.refcount is None else module.refcount
    line = f"{module.name:<19} {module.size:>8}  {count}"
    return f"{line} {','.join(module.holders)}" if module.holders else line


def module_json(module: Loaded) -> dict[str, object]:
    return {
        "name": module.name,
        "size": module.size,
        "refcount": module.refcount,
        "holders": list(module.holders),
        "state": module.state,
    }


def _session(given: Mapping[str, str]) -> Target | None:
    kernel = session_of(given.get("session"), "live" in given or "root" in given)
    if kernel is None:
        return None
    from kobox.depot.kernel_target import KernelTarget

    return KernelTarget(kernel)


def _listed(given: Mapping[str, str]) -> list[Loaded] | None:
    if "live" not in given and "root" not in given:
        no_kernel()
    root = "" if "live" in given else given["root"].rstrip("/")
    try:
        with open(f"{root}/proc/modules", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as error:
        sys.stderr.write(f"lsmod: ERROR: could not open {root}/proc/modules: {error.strerror}\n")
        sys.stderr.write(f"Error: could not get list of modules: {error.strerror}\n")
        return None
    return list(_modules(lines, SysModules(root)))


def _modules(lines: list[str], known: Mapping[str, Loaded]) -> Iterator[Loaded]:
    """The modules of /proc/modules, newest first; /sys/module knows better where it is there."""
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        listed = _from_line(words)
        seen = known.get(words[0])
        yield listed if seen is None else seen._replace(size=seen.size or listed.size)


def _from_line(words: list[str]) -> Loaded:
    """``name size refcount holders, state address``."""
    holders = tuple(name for name in (words[3] if len(words) > 3 else "-").split(",") if name not in ("", "-"))
    named = tuple(name for name in holders if name != "[permanent]")
    state = words[4].lower() if len(words) > 4 else "live"
    states = {"loading": "coming", "unloading": "going"}
    refcount = int(words[2]) if words[2].isdecimal() else None
    return Loaded(words[0], states.get(state, state), refcount, int(words[1]), named)
