"""An allow-list: the modules that some wanted ones need, and a modprobe.d file that stops all others.

Needs are followed as modprobe follows them: hard and soft dependencies of every module, transitively, by its own plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kobox.audit.fixes import fix_lines
from kobox.audit.ways import System
from kobox.depot.plan import Insert, Nothing
from kobox.errors import UsageError


class AllowList(NamedTuple):
    """``wanted`` as asked; ``allowed`` with all they need (built-in ones apart); ``stopped`` every other module."""

    wanted: tuple[str, ...]
    allowed: tuple[str, ...]
    builtin: tuple[str, ...]
    stopped: tuple[str, ...]


def allow_list(wanted: Iterable[str], system: System) -> AllowList:
    """Follow the needs of ``wanted`` (names or aliases). Raises ``UsageError`` that names every unknown one."""
    names = list(wanted)
    allowed: set[str] = set()
    builtin: set[str] = set()
    unknown: list[str] = []
    for name in names:
        plan = system.resolver.insert(name, ignore_commands=True)
        if not plan.probes:
            unknown.append(name)
        for probe in plan.probes:
            for step in probe.steps:
                if isinstance(step, Insert):
                    allowed.add(step.module)
                elif isinstance(step, Nothing) and step.builtin:
                    builtin.add(step.module)
            for softdep in system.config.softdeps:
                if softdep.pattern == probe.module:
                    _follow(system, [*softdep.pre, *softdep.post], allowed, builtin)
                    break
    if unknown:
        raise UsageError(f"no such module or alias: {', '.join(unknown)}")
    everything = {name for name, _ in system.tree.all_deps()}
    return AllowList(tuple(names), tuple(sorted(allowed)), tuple(sorted(builtin)), tuple(sorted(everything - allowed)))


def _follow(system: System, names: list[str], allowed: set[str], builtin: set[str]) -> None:
    for name in names:
        for probe in system.resolver.insert(name).probes:
            for step in probe.steps:
                (builtin if step.builtin else allowed).add(step.module)


def allow_list_text(listed: AllowList, system: System) -> str:
    """The modprobe.d file: allowed modules in comments, then the lines that stop each other module."""
    out = ["# made by kobox audit --allow: every module that is not needed is stopped; keep this file first by name\n"]
    out += [f"# wanted: {' '.join(listed.wanted)}\n", f"# allowed: {' '.join(listed.allowed)}\n"]
    for module in listed.stopped:
        out += [line + "\n" for line in fix_lines(module, system)]
    return "".join(out)
