"""A kernel upgrade rehearsed: two releases of one root compared for what this system's configuration relies on.

What counts is what the system uses: modules that its configuration names, that its boot lists load, that are loaded
now, and that came from outside the kernel's own tree. Everything else that changed is only counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from kobox.depot.facts import Place
from kobox.depot.findings import Finding, finding_json
from kobox.depot.modules_load import boot_modules
from kobox.depot.names import module_name
from kobox.depot.plan import Insert
from kobox.depot.systems import OpenSystem, open_system
from kobox.depot.targets import SysModules
from kobox.errors import BadFile, UsageError
from kobox.ko import KernelModule, read_module

RULES: dict[str, str] = {
    "module-gone": "a module that this system uses is not in the new release",
    "now-built-in": "a module is built into the new kernel: its options must move to the kernel command line",
    "no-longer-built-in": "what was part of the kernel is a module now: the initramfs may need it",
    "external-missing": "a module from outside the kernel's tree is not there for the new release",
    "parameter-gone": "options set a parameter that the new module does not have",
    "softdep-gone": "a soft dependency leads nowhere in the new release",
    "alias-moved": "a name that the configuration uses leads to another module",
    "signature-gone": "a module was signed in the old release and is not in the new",
    "wrong-vermagic": "a module in the new tree was built for another release",
}

_OUTSIDE = ("updates", "extra", "weak-updates", "misc")


class Upgrade(NamedTuple):
    """``gone``, ``new`` and ``now_builtin`` are all modules of the trees; the findings those that matter here."""

    root: str
    old: str
    new: str
    gone: tuple[str, ...]
    added: tuple[str, ...]
    now_builtin: tuple[str, ...]
    findings: tuple[Finding, ...]


class _Side:
    """One release of the root."""

    def __init__(self, system: OpenSystem) -> None:
        self.system = system
        self.tree = system.tree
        self.resolver = system.resolver()

    @cached_property
    def paths(self) -> dict[str, str]:
        """Path below the tree by module name."""
        return {name: line.path for name, line in self.tree.all_deps()}

    @cached_property
    def builtins(self) -> frozenset[str]:
        return frozenset(self.tree.builtins())

    def has(self, name: str) -> bool:
        return name in self.paths or name in self.builtins

    def module(self, name: str) -> KernelModule | None:
        try:
            return read_module(self.tree.path(self.paths[name]))
        except (BadFile, OSError):
            return None

    def names_of(self, name: str) -> list[str]:
        return [module for module, _ in self.resolver.lookup(name)]


def rehearse_upgrade(root: str, old: str, new: str, cmdline: str | None = None) -> Upgrade:
    """Compare two releases below ``root`` (empty: this host). Raises ``UsageError`` for a release that is not there."""
    before, after = (_Side(open_system(root, release, cmdline)) for release in (old, new))
    for side in (before, after):
        if not side.paths:
            raise UsageError(
                f"{side.tree.directory}: no modules.dep", hint=f"kobox depmod -b {root or '/'} {side.tree.release}"
            )
    used = _used(before)
    found = [
        *_modules(used, before, after),
        *_outside(before, after),
        *_parameters(before, after),
        *_soft_dependencies(before, after),
        *_aliases(before, after),
        *_files(used, before, after),
    ]
    gone = tuple(sorted(name for name in before.paths if not after.has(name)))
    added = tuple(sorted(name for name in after.paths if not before.has(name)))
    builtin = tuple(sorted(name for name in before.paths if name in after.builtins and name not in after.paths))
    return Upgrade(before.system.root or "/", old, new, gone, added, builtin, tuple(dict.fromkeys(found)))


def _used(before: _Side) -> dict[str, Place | None]:
    """Modules that this system relies on in the old release, each with the place that says so."""
    config = before.system.config
    used: dict[str, Place | None] = dict.fromkeys(SysModules(before.system.root))
    for entry in boot_modules(before.system.root, before.system.cmdline):
        used |= dict.fromkeys(before.names_of(entry.name), entry.place)
    for options in config.options:
        used |= dict.fromkeys(before.names_of(options.module), options.place)
    for softdep in config.softdeps:
        if os.path.basename(softdep.place.file) != "modules.softdep":
            used |= dict.fromkeys(before.names_of(softdep.pattern), softdep.place)
    return {name: place for name, place in used.items() if before.has(name)}


def _modules(used: dict[str, Place | None], before: _Side, after: _Side) -> Iterator[Finding]:
    for name, place in used.items():
        if not after.has(name):
            said = f"{name} is not in {after.tree.release}"
            yield Finding("module-gone", "error", said, place, "find what replaces it, or build it", name)
        elif name in after.builtins and name not in before.builtins:
            options = [line for line in before.system.config.options if line.module == name]
            said = f"{name} is built into {after.tree.release}"
            fix = " ".join(f"{name}.{word}" for line in options for word in line.options.split())
            fix = f"on the kernel command line: {fix}" if fix else ""
            yield Finding("now-built-in", "warning" if options else "note", said, place, fix, name)
        elif name in before.builtins and name not in after.builtins:
            said = f"{name} was built into {before.tree.release} and is a module of {after.tree.release}"
            yield Finding(
                "no-longer-built-in", "warning", said, place, "add it to the initramfs if booting needs it", name
            )


def _outside(before: _Side, after: _Side) -> Iterator[Finding]:
    """Modules that DKMS or a vendor put into the old tree."""
    for name, path in before.paths.items():
        if path.split("/")[0] in _OUTSIDE and name not in after.paths:
            said = f"{name} ({path}) from outside the kernel's tree is not there for {after.tree.release}"
            place = Place(before.tree.path(path))
            yield Finding("external-missing", "error", said, place, f"build it for {after.tree.release}", name)


def _parameters(before: _Side, after: _Side) -> Iterator[Finding]:
    for line in before.system.config.options:
        for name in before.names_of(line.module):
            if name not in after.paths or name not in before.paths:
                continue
            old, new = before.module(name), after.module(name)
            if old is None or new is None:
                continue
            had, has = _parameter_names(old), _parameter_names(new)
            for word in line.options.split():
                parameter = module_name(word.partition("=")[0].partition("[")[0])
                if parameter in had and parameter not in has:
                    said = f"{name} of {after.tree.release} has no parameter {parameter}"
                    yield Finding("parameter-gone", "warning", said, line.place, f"see kobox modinfo -p {name}", name)


def _parameter_names(module: KernelModule) -> set[str]:
    texts = (*module.modinfo.get_all("parm"), *module.modinfo.get_all("parmtype"))
    return {module_name(text.partition(":")[0]) for text in texts}


def _soft_dependencies(before: _Side, after: _Side) -> Iterator[Finding]:
    for softdep in before.system.config.softdeps:
        if os.path.basename(softdep.place.file) == "modules.softdep":
            continue
        for name in (*softdep.pre, *softdep.post):
            if before.names_of(name) and not after.names_of(name):
                said = f"softdep {softdep.pattern}: {name} leads nowhere in {after.tree.release}"
                yield Finding(
                    "softdep-gone", "warning", said, softdep.place, "remove it from the line", softdep.pattern
                )


def _aliases(before: _Side, after: _Side) -> Iterator[Finding]:
    """Names in boot lists that lead to other modules now."""
    for entry in boot_modules(before.system.root, before.system.cmdline):
        old, new = before.names_of(entry.name), after.names_of(entry.name)
        if old and new and old != new:
            said = f"{entry.name} leads to {', '.join(new)}, before to {', '.join(old)}"
            yield Finding("alias-moved", "note", said, entry.place, "", new[0])


def _files(used: Iterable[str], before: _Side, after: _Side) -> Iterator[Finding]:
    """Signatures and vermagic of what the used modules need, and of everything from outside."""
    outside = [name for name, path in after.paths.items() if path.split("/")[0] in _OUTSIDE]
    wanted: dict[str, None] = {}
    for name in (*used, *outside):
        for probe in after.resolver.insert(name).probes:
            wanted |= {step.module: None for step in probe.steps if isinstance(step, Insert)}
    for name in wanted:
        if name not in after.paths:
            continue
        new = after.module(name)
        place = Place(after.tree.path(after.paths[name]))
        if new is None:
            continue
        old = before.module(name) if name in before.paths else None
        if new.signature is None and old is not None and old.signature is not None:
            said = f"{name} has no signature, its old release had one"
            fix = "sign it; a kernel that enforces signatures refuses it"
            yield Finding("signature-gone", "error", said, place, fix, name)
        built_for = (new.modinfo.get("vermagic") or "").split(" ")[0]
        if built_for and built_for != after.tree.release:
            said = f"{name} was built for {built_for}"
            yield Finding("wrong-vermagic", "error", said, place, f"build it for {after.tree.release}", name)


def upgrade_json(upgrade: Upgrade) -> dict[str, object]:
    return upgrade._asdict() | {"findings": [finding_json(finding) for finding in upgrade.findings]}
