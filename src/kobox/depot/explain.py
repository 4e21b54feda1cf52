"""Why: everything that configuration and dependencies have to say about a name, an alias or a file, in one record.

A plan says what would happen. An explanation adds what surrounds it: what would have to be removed first, which lines
are about the module but have no effect, who else needs it, which lists load it at boot, what is loaded already.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from kobox.depot.facts import Place
from kobox.depot.findings import Finding, finding_json
from kobox.depot.lint import lint
from kobox.depot.modules_load import BootModule, boot_modules
from kobox.depot.names import module_name_of_path, normal_alias
from kobox.depot.plan import (
    Insert,
    InsertPlan,
    Nothing,
    Probe,
    Reason,
    RunCommand,
    Step,
    insert_plan_json,
    place_json,
)
from kobox.depot.systems import OpenSystem
from kobox.depot.targets import Loaded, SysModules


class Explanation(NamedTuple):
    """``plan`` without probes: nothing knows the name, and ``nearest`` are names that are alike."""

    request: str
    release: str
    plan: InsertPlan
    nearest: tuple[str, ...]
    needed_by: tuple[str, ...]
    aliases: tuple[str, ...]
    boot: tuple[BootModule, ...]
    loaded: tuple[Loaded, ...]
    notices: tuple[Finding, ...]


def explain(request: str, system: OpenSystem, use_blacklist: bool = False) -> Explanation:
    """Explain what ``modprobe REQUEST`` would do on a system, and why."""
    resolver = system.resolver()
    plan = resolver.insert(request, use_blacklist=use_blacklist)
    asked = {probe.module for probe in plan.probes}
    involved = asked | {step.module for probe in plan.probes for step in probe.steps}
    now = SysModules(system.root)
    return Explanation(
        request,
        system.tree.release,
        plan,
        () if plan.probes else _nearest(request, system),
        tuple(name for name, line in system.tree.all_deps() if asked & set(map(module_name_of_path, line.needs))),
        _aliases(asked, system),
        tuple(e for e in boot_modules(system.root, system.cmdline) if normal_alias(e.name) in asked),
        tuple(now[name] for name in sorted(involved) if name in now),
        tuple(finding for finding in lint(resolver) if finding.module in involved),
    )


def _aliases(modules: set[str], system: OpenSystem) -> tuple[str, ...]:
    found: list[str] = []
    for name in ("modules.alias", "modules.builtin.alias"):
        index = system.tree.index(name)
        if index is not None:
            found += [pattern for pattern, entry in index.dump() if entry.value in modules]
    return tuple(found)


def _nearest(request: str, system: OpenSystem) -> tuple[str, ...]:
    names = [name for name, _ in system.tree.all_deps()] + list(system.tree.builtins())
    return tuple(difflib.get_close_matches(request.replace("-", "_"), names, n=3))


# --- renderings ------------------------------------------------------------------------------------------------------


def explanation_json(explanation: Explanation) -> dict[str, object]:
    return insert_plan_json(explanation.plan) | {
        "release": explanation.release,
        "nearest": list(explanation.nearest),
        "needed_by": list(explanation.needed_by),
        "aliases": list(explanation.aliases),
        "boot_lists": [{"name": entry.name, "place": place_json(entry.place)} for entry in explanation.boot],
        "loaded": [module._asdict() for module in explanation.loaded],
        "notices": [finding_json(finding) for finding in explanation.notices],
    }


def explanation_lines(explanation: Explanation) -> list[str]:
    """The explanation as indented text."""
    request = explanation.request
    if not explanation.plan.probes:
        hint = f"; did you mean {', '.join(explanation.nearest)}?" if explanation.nearest else ""
        return [f"{request}: no module, alias or command of {explanation.release} has this name{hint}"]
    lines = []
    for probe in explanation.plan.probes:
        lines += _probe_lines(probe, request, explanation)
    lines += _list("needed by", explanation.needed_by)
    lines += _list("aliases", explanation.aliases)
    lines += [f"loaded at boot: {entry.name} ({entry.place})" for entry in explanation.boot]
    lines += [f"note: {finding.text}{_at(finding.place)}" for finding in explanation.notices]
    return lines


def _probe_lines(probe: Probe, request: str, explanation: Explanation) -> list[str]:
    lines = [f"{request} is {probe.module}: {probe.found}"]
    if probe.refused is not None:
        return [*lines, f"  nothing would happen: {probe.refused}"]
    if probe.builtin and len(probe.steps) == 1:
        return [*lines, "  nothing would happen: it is part of the kernel; options go on the kernel command line"]
    loaded = {module.name for module in explanation.loaded if module.state == "live"}
    lines.append("  in this order:")
    for number, step in enumerate(probe.steps, start=1):
        there = " (loaded already, passed over)" if step.module in loaded or step.builtin else ""
        soft = "" if step.required else " (its failure would not matter)"
        lines.append(f"  {number:>3}. {_what(step)}{soft}{there}")
        lines += [f"         {reason}" for reason in _worth_saying(step.reasons, probe)]
    return lines


def _what(step: Step) -> str:
    if isinstance(step, Insert):
        return f"insert {step.module}" + (f" with {step.options.strip()}" if step.options.strip() else "")
    if isinstance(step, RunCommand):
        return f"run '{step.expanded()}' instead of inserting {step.module}"
    if isinstance(step, Nothing) and step.builtin:
        return f"nothing for {step.module}: built in"
    return f"fail: there is no file for {step.module}"


def _worth_saying(reasons: tuple[Reason, ...], probe: Probe) -> list[Reason]:
    return [reason for reason in reasons if reason != probe.found]


def _list(title: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:6])
    return [f"{title}: {shown}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")]


def _at(place: Place | None) -> str:
    return f" ({place})" if place else ""
