"""The audit itself: profiles against a system, lines of configuration that do not do what they seem to, a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kobox.audit.fixes import FIX_FILE, fix_lines, proven
from kobox.audit.profiles import Profile, Unwanted
from kobox.audit.ways import BLOCKED, LOADS, Exposure, System, Way, expose
from kobox.depot.commands import UNKNOWN
from kobox.depot.facts import Place
from kobox.depot.findings import Finding, finding_json
from kobox.depot.lint import RULES as LINT_RULES
from kobox.depot.lint import lint
from kobox.depot.plan import place_json, reason_json

RULES: dict[str, str] = {
    "reachable": "a module that the profile wants out of reach can be loaded",
    "built-in": "a module that the profile wants out of reach is part of the kernel image",
    "unknown-command": "whether a module is stopped depends on what an install command does",
    "loaded": "a module that the profile wants out of reach is loaded now",
    "blacklist-only": "a blacklist line alone stops neither a request by name nor a dependency",
    "install-cannot-stop": "an install line would not stop this module: a soft dependency takes precedence",
    "baseline-module": "a loaded module that the baseline does not have",
    "baseline-log": "a log line about modules that the baseline does not have",
} | LINT_RULES


class Immune(NamedTuple):
    """A module that ``install X /bin/false`` does not stop. ``stop``: lines that do; ``works``: simulated and true."""

    module: str
    softdep: Place
    stop: tuple[str, ...]
    works: bool


class Report(NamedTuple):
    """``checked`` are the modules of the profiles, ``immune`` those of the whole tree."""

    root: str
    release: str
    profiles: tuple[str, ...]
    checked: tuple[Exposure, ...]
    immune: tuple[Immune, ...]
    findings: tuple[Finding, ...]


def audit_system(
    system: System, profiles: Sequence[Profile], loaded: Iterable[str] = (), extra: Iterable[Finding] = ()
) -> Report:
    """Check every module of the profiles, and the configuration as a whole."""
    now = set(loaded)
    checked: list[Exposure] = []
    found: list[Finding] = []
    wanted = {unwanted.name: (unwanted, profile) for profile in profiles for unwanted in profile.modules}
    for unwanted, profile in wanted.values():
        exposure = expose(unwanted.name, system)
        checked.append(exposure)
        found += _findings(exposure, unwanted, profile, system)
        if unwanted.name in now:
            said = f"{unwanted.name} ({profile.name}) is loaded now"
            fix = f"rmmod {unwanted.name}"
            found.append(Finding("loaded", unwanted.severity, said, None, fix, unwanted.name))
    immune = immune_modules(system)
    found += _half_measures(system)
    found += lint(system.resolver)
    found += extra
    names = tuple(profile.name for profile in profiles)
    return Report(system.root or "/", system.tree.release, names, tuple(checked), tuple(immune), tuple(found))


def immune_modules(system: System) -> list[Immune]:
    """Every module of the tree that an install line does not stop, with the lines that do."""
    found = []
    for name in dict.fromkeys(softdep.pattern for softdep in system.config.softdeps):
        softdep = system.resolver.effective_softdep(name)
        if softdep is None or system.tree.dep_line(name) is None:
            continue
        lines = tuple(fix_lines(name, system))
        found.append(Immune(name, softdep.place, lines, proven(name, lines, system)))
    return found


def _findings(exposure: Exposure, unwanted: Unwanted, profile: Profile, system: System) -> list[Finding]:
    name = exposure.module
    why = f"; {unwanted.why}" if unwanted.why else ""
    if exposure.state == "builtin":
        said = f"{name} ({profile.name}) is built into the kernel{why}"
        fix = f"initcall_blacklist= with its init function on the kernel command line, or a kernel without {name}"
        return [Finding("built-in", unwanted.severity, said, exposure.ways[0].reason.place, fix, name)]
    open_ways = exposure.open_ways
    if not open_ways:
        return []
    rule = "reachable" if any(way.outcome == LOADS for way in open_ways) else "unknown-command"
    said = f"{name} ({profile.name}) can be loaded {_ways_text(open_ways)}{why}"
    lines = fix_lines(name, system)
    proof = "" if proven(name, lines, system) else " (not enough here: see its ways)"
    fix = f"in /etc/modprobe.d/{FIX_FILE}: {'; '.join(lines)}{proof}"
    return [Finding(rule, unwanted.severity, said, _place(open_ways), fix, name)]


def _place(ways: Sequence[Way]) -> Place | None:
    """The line that lets it in, rather than the index that knows it."""
    placed = [way.reason for way in ways if way.reason.place is not None]
    surprising = [reason for reason in placed if "is not run" in reason.text]
    chosen = (surprising or placed)[:1]
    return chosen[0].place if chosen else None


_WORDS = {
    "name": "by its name",
    "kernel request": "on the kernel's request ({})",
    "device": "for a device ({})",
    "dependency": "as a dependency of {}",
    "soft dependency": "as a soft dependency of {}",
    "install command": "by the install command of {}",
    "boot list": "at boot ({})",
}


def _ways_text(ways: Sequence[Way]) -> str:
    kinds: dict[str, list[str]] = {}
    for way in ways:
        kinds.setdefault(way.kind, []).append(way.through)
    return ", ".join(_WORDS[kind].format(_some(names)) for kind, names in kinds.items())


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _half_measures(system: System) -> list[Finding]:
    """Blacklisted modules that can still be asked for by name."""
    found = []
    stopped = {command.pattern for command in system.config.install}
    for fact in {fact.module: fact for fact in system.config.blacklists}.values():
        if fact.module in stopped or system.tree.dep_line(fact.module) is None:
            continue
        exposure = expose(fact.module, system)
        kinds = [way for way in exposure.open_ways if way.kind in ("name", "dependency", "soft dependency")]
        if not kinds:
            continue
        said = f"blacklist {fact.module} stops aliases only: it can be loaded {_ways_text(kinds)}"
        fix = f"to keep it out, add {'; '.join(fix_lines(fact.module, system)[1:])}"
        found.append(Finding("blacklist-only", "note", said, fact.place, fix, fact.module))
    return found


# --- renderings ------------------------------------------------------------------------------------------------------


def exposure_json(exposure: Exposure) -> dict[str, object]:
    return {
        "module": exposure.module,
        "state": exposure.state,
        "path": exposure.path or None,
        "stopped": exposure.state == "absent" or (exposure.state == "module" and not exposure.open_ways),
        "ways": [
            {"kind": way.kind, "through": way.through, "outcome": way.outcome, "reason": reason_json(way.reason)}
            for way in exposure.ways
        ],
        "breaks": list(exposure.breaks),
    }


def report_json(report: Report) -> dict[str, object]:
    return {
        "root": report.root,
        "release": report.release,
        "profiles": list(report.profiles),
        "modules": [exposure_json(exposure) for exposure in report.checked],
        "install_cannot_stop": [
            immune._asdict() | {"softdep": place_json(immune.softdep), "stop": list(immune.stop)}
            for immune in report.immune
        ],
        "findings": [finding_json(finding) for finding in report.findings],
    }


def verdict(exposure: Exposure) -> str:
    """One word for a table."""
    if exposure.state != "module":
        return {"absent": "not there", "builtin": "built in"}[exposure.state]
    outcomes = {way.outcome for way in exposure.open_ways}
    return "reachable" if LOADS in outcomes else "not known" if UNKNOWN in outcomes else "stopped"


def why_stopped(exposure: Exposure) -> str:
    reasons = [way.reason for way in exposure.ways if way.outcome == BLOCKED and way.reason.place is not None]
    return str(reasons[0]) if reasons else ""
