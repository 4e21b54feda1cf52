"""Every way in which a module can come into the kernel, simulated one by one.

By its name, through each of its aliases (by udev for a device, by the kernel for what a program asks for), as a hard
or soft dependency of another module, by another module's install command, by a list at boot, built in, and by
``insmod`` of its file. The plan that the resolver makes decides what happens, up to the commands it would run: what
``/bin/false`` and its like do is known, any other command is reported as not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from kobox.depot.cmdline import kernel_blacklist
from kobox.depot.commands import FAILS, UNKNOWN, command_effect
from kobox.depot.facts import Config, Place
from kobox.depot.modules_load import BootModule, boot_modules
from kobox.depot.names import module_name, module_name_of_path
from kobox.depot.plan import Insert, InsertPlan, Reason, RunCommand
from kobox.depot.resolve import Resolver
from kobox.depot.tree import ModuleTree

LOADS, BLOCKED = "loads", "blocked"

KERNEL_FAMILIES = (
    *("fs-", "net-pf-", "crypto-", "rtnl-link-", "char-major-", "block-major-", "binfmt-", "nls_", "iso", "algif-"),
    *("nft-", "nfnetlink-subsys-", "nf-logger-", "nf_conntrack-", "ip_set_", "ipt_", "ip6t_", "xt_", "ebt_", "arpt_"),
    *("tcp_", "xfrm-", "rpcauth_", "rpc-auth-", "snd-", "sound-", "kvm", "dm-", "md-", "raid", "sch_", "cls_", "act_"),
    *("gss-", "key-type-", "devname:", "tty-ldisc-", "netdev-", "bpfilter", "ppp-compress-", "tls", "tcp-ulp-", "qfmt"),
)
"""Beginnings of the names by which the kernel itself asks for modules (request_module); other aliases are udev's."""


class Way(NamedTuple):
    """One way in: ``kind``, what it goes through, what happens and why."""

    kind: str
    through: str
    outcome: str
    reason: Reason


class Exposure(NamedTuple):
    """All ways of one module. ``state``: module, builtin or absent; ``breaks``: modules that its block takes along."""

    module: str
    state: str
    path: str
    ways: tuple[Way, ...]
    breaks: tuple[str, ...]

    @property
    def open_ways(self) -> tuple[Way, ...]:
        """The ways that lead in, short of ``insmod`` by an administrator."""
        return tuple(way for way in self.ways if way.outcome != BLOCKED and way.kind != "insmod")


class System:
    """A system as the audit sees it: configuration, tree, command line, and lists made once for all modules."""

    def __init__(self, config: Config, tree: ModuleTree, root: str = "", cmdline: str = "") -> None:
        self.config = config
        self.tree = tree
        self.root = root
        self.cmdline = cmdline
        self.resolver = Resolver(config, tree)
        self.kernel_blacklist = frozenset(kernel_blacklist(cmdline))

    def with_config(self, config: Config) -> System:
        """The same system under another configuration; what does not depend on it is shared."""
        other = System(config, self.tree, self.root, self.cmdline)
        other.__dict__["aliases"] = self.aliases
        other.__dict__["dependents"] = self.dependents
        other.__dict__["boot"] = self.boot
        return other

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Alias patterns by module."""
        found: dict[str, list[str]] = {}
        for name in ("modules.alias", "modules.builtin.alias"):
            index = self.tree.index(name)
            for pattern, entry in index.dump() if index is not None else ():
                found.setdefault(entry.value, []).append(pattern)
        return found

    @cached_property
    def dependents(self) -> dict[str, list[str]]:
        """Modules by the name of what they need."""
        found: dict[str, list[str]] = {}
        for name, line in self.tree.all_deps():
            for need in line.needs:
                found.setdefault(module_name_of_path(need), []).append(name)
        return found

    @cached_property
    def boot(self) -> list[BootModule]:
        return boot_modules(self.root, self.cmdline)


def expose(name: str, system: System) -> Exposure:
    """Simulate every way in for the module of this name."""
    name = module_name(name)
    line = system.tree.dep_line(name)
    if system.tree.is_builtin(name):
        why = Reason(
            "part of the kernel image: no configuration keeps it out", Place(f"{system.tree.directory}/modules.builtin")
        )
        return Exposure(name, "builtin", "", (Way("built-in", name, LOADS, why),), ())
    if line is None:
        return Exposure(name, "absent", "", (), ())
    path = system.tree.path(line.path)
    if name in system.kernel_blacklist:
        why = Reason("module_blacklist= on the kernel command line: the kernel refuses it however it is loaded")
        return Exposure(name, "module", path, (Way("kernel", name, BLOCKED, why),), ())
    ways = [_by_plan("name", name, name, system), *_by_aliases(name, system)]
    dependent_ways = list(_by_dependents(name, system))
    ways += [*dependent_ways, *_by_softdeps(name, system), *_by_commands(name, system), *_by_boot(name, system)]
    ways.append(Way("insmod", path, LOADS, Reason("whoever has CAP_SYS_MODULE can insert the file itself")))
    breaks = tuple(way.through for way in dependent_ways if way.outcome == BLOCKED and way.reason.place is not None)
    return Exposure(name, "module", path, tuple(ways), breaks)


# --- the ways --------------------------------------------------------------------------------------------------------


def _by_plan(kind: str, through: str, module: str, system: System, use_blacklist: bool = False) -> Way:
    plan = system.resolver.insert(through, use_blacklist=use_blacklist)
    outcome, reason = judge(plan, module)
    return Way(kind, through, outcome, reason)


def _by_aliases(module: str, system: System) -> Iterator[Way]:
    """All names of the kernel's own requests, and of device aliases one for each bus."""
    patterns = list(system.aliases.get(module, ()))
    patterns += [alias.pattern for alias in system.config.aliases if alias.module == module]
    seen: set[str] = set()
    for pattern in patterns:
        requested = pattern.replace("_", "-").startswith(tuple(family.replace("_", "-") for family in KERNEL_FAMILIES))
        family = pattern if requested else re.split(r"[:*\[?]", pattern)[0]
        if family in seen:
            continue
        seen.add(family)
        kind = "kernel request" if requested else "device"
        yield _by_plan(kind, a_name_for(pattern), module, system)


def a_name_for(pattern: str) -> str:
    """A name that an alias pattern matches."""
    return re.sub(r"\[!?([^\]])[^\]]*\]", r"\1", pattern).replace("?", "0").replace("*", "")


def _by_dependents(module: str, system: System) -> Iterator[Way]:
    for dependent in system.dependents.get(module, ()):
        yield _by_plan("dependency", dependent, module, system)


def _by_softdeps(module: str, system: System) -> Iterator[Way]:
    for softdep in system.config.softdeps:
        named = [*softdep.pre, *softdep.post]
        if any(module in (found for found, _ in system.resolver.lookup(name)) for name in named):
            yield _by_plan("soft dependency", softdep.pattern, module, system)


def _by_commands(module: str, system: System) -> Iterator[Way]:
    """Install commands of other modules that mention this one."""
    word = re.compile(rf"(?<![\w-]){re.escape(module).replace('_', '[-_]')}(?![\w-])")
    for command in system.config.install:
        if command.pattern != module and word.search(command.command):
            why = Reason(f"install {command.pattern} {command.command}", command.place)
            yield Way("install command", command.pattern, UNKNOWN, why)


def _by_boot(module: str, system: System) -> Iterator[Way]:
    for entry in system.boot:
        if module in (found for found, _ in system.resolver.lookup(entry.name)):
            way = _by_plan("boot list", entry.name, module, system, use_blacklist=True)
            loads = way.outcome == LOADS
            yield way._replace(reason=Reason("listed to be loaded at boot", entry.place)) if loads else way


# --- judging a plan --------------------------------------------------------------------------------------------------


def judge(plan: InsertPlan, module: str) -> tuple[str, Reason]:
    """Whether carrying out the plan puts ``module`` into the kernel, and the reason."""
    last = Reason("the name leads nowhere")
    for probe in plan.probes:
        if probe.refused is not None:
            last = probe.refused
            continue
        for step in probe.steps:
            if isinstance(step, Insert) and step.module == module:
                return LOADS, _why_loads(step.reasons)
            if not isinstance(step, RunCommand):
                continue
            effect = command_effect(step.command)
            if effect == UNKNOWN and (step.module == module or module in step.command):
                return UNKNOWN, step.reasons[-1]
            if step.module == module:
                last = step.reasons[-1]
            if effect == FAILS and step.required:
                last = step.reasons[-1]
                break
    return BLOCKED, last


def _why_loads(reasons: tuple[Reason, ...]) -> Reason:
    """The reason that surprises most: a command that is not run, if there is one."""
    return next((reason for reason in reasons if "is not run" in reason.text), reasons[0])
