"""kmod's look-ups: from a name to modules, and from a module to what tree and configuration say of it.

One ``Lookups`` serves one request and remembers the modules it met. Each is one object, which planning marks to cut
loops; a module reached by an alias and the same one reached by its name are two, as in kmod.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from kobox.depot.facts import Command, Complaint, Place, Softdep
from kobox.depot.names import module_name, module_name_of_path, normal_alias
from kobox.depot.paths import absolute
from kobox.depot.plan import Reason
from kobox.depot.rules import Rules, glob_match
from kobox.depot.tree import DepLine, ModuleTree

ASKED = Reason("asked for")


class Module:
    """What a request knows of one module. The last three are marks of whoever plans."""

    __slots__ = (
        "alias",
        "builtin",
        "deps",
        "found",
        "install",
        "name",
        "path",
        "remove",
        "required",
        "skip_command",
        "visited",
    )

    def __init__(self, name: str, alias: str | None) -> None:
        self.name = name
        self.alias = alias
        self.path: str | None = None
        self.deps: list[Module] | None = None
        self.builtin: bool | None = None
        self.install: Command | None = None
        self.remove: Command | None = None
        self.found = ASKED
        self.visited = False
        self.required = False
        self.skip_command = False


class Lookups:
    """One request: the modules met so far, and the ways to find more."""

    __slots__ = ("complaints", "config", "modules", "rules", "tree")

    def __init__(self, rules: Rules, tree: ModuleTree) -> None:
        self.rules = rules
        self.config = rules.config
        self.tree = tree
        self.complaints: list[Complaint] = []
        self.modules: dict[tuple[str, str | None], Module] = {}

    def place(self, index: str) -> Place:
        place = self.rules.places.get(index)
        if place is None:
            place = self.rules.places[index] = Place(f"{self.tree.indexes}/{index}")
        return place

    # --- finding ---

    def module(self, name: str, alias: str | None = None) -> Module:
        key = (name, alias)
        if key not in self.modules:
            self.modules[key] = Module(name, alias)
        return self.modules[key]

    def lookup(self, name: str) -> list[Module]:
        normal = normal_alias(name)
        if normal is None:
            return []
        for source in _SOURCES:
            found = source(self, normal)
            if found:
                return found
        return []

    def from_path(self, path: str) -> list[Module]:
        full = absolute(path)
        if not os.path.exists(full):
            return []
        module = self.module(module_name_of_path(full))
        module.path = full
        module.builtin = False
        module.found = Reason("asked for by its path")
        return [module]

    def _from_config(self, name: str) -> list[Module]:
        found = []
        for alias in self.config.aliases:
            if glob_match(alias.pattern, name):
                module = self.module(alias.module, alias.pattern)
                module.found = Reason(f"alias {alias.pattern}", alias.place)
                found.append(module)
        return found

    def _from_dependencies(self, name: str) -> list[Module]:
        if ":" in name:
            return []
        line = self.tree.dep_line(name)
        if line is None:
            return []
        module = self.module(module_name(name))
        module.found = Reason(f"module {module.name}", self.place("modules.dep"))
        self._read_dependencies(module, line)
        return [module]

    def _from_symbols(self, name: str) -> list[Module]:
        if not name.startswith("symbol:"):
            return []
        return self._by_alias(name, self.tree.modules_of_symbol(name), "exports", "modules.symbols")

    def _from_aliases(self, name: str) -> list[Module]:
        return self._by_alias(name, self.tree.modules_of_alias(name), "alias", "modules.alias")

    def _by_alias(self, name: str, values: Sequence[str], what: str, index: str) -> list[Module]:
        if not values:
            return []
        why = Reason(f"{what} {name}", self.place(index))
        found = []
        for value in values:
            module = self.module(value, name)
            module.found = why
            found.append(module)
        return found

    def _from_commands(self, name: str) -> list[Module]:
        for command in self.config.install:
            if command.pattern == name:
                module = self.module(module_name(name))
                module.install = command
                module.found = Reason("known by its install command only", command.place)
                return [module]
        for command in self.config.remove:
            if command.pattern == name:
                module = self.module(module_name(name))
                module.remove = command
                module.found = Reason("known by its remove command only", command.place)
                return [module]
        return []

    def _from_builtin(self, name: str) -> list[Module]:
        if not self.tree.is_builtin(name):
            return []
        module = self.module(module_name(name))
        module.builtin = True
        module.found = Reason("built into the kernel", self.place("modules.builtin"))
        return [module]

    def _from_builtin_aliases(self, name: str) -> list[Module]:
        found = self._by_alias(name, self.tree.builtins_of_alias(name), "built-in alias", "modules.builtin.alias.bin")
        for module in found:
            module.builtin = True
        return found

    # --- what a module has ---

    def _read_dependencies(self, module: Module, line: DepLine) -> None:
        """Take path and dependencies from a line of modules.dep. One bad dependency drops them all, as in kmod."""
        if module.deps is not None:
            return
        module.deps = []
        if module.path is None:
            module.path = self.tree.path(line.path)
        listed: list[Module] = []
        for path in line.needs:
            dependency = self._dependency(self.tree.path(path))
            if dependency is None:
                module.deps = None
                return
            listed.append(dependency)
        listed.reverse()
        module.deps = listed

    def _dependency(self, path: str) -> Module | None:
        place = self.place("modules.dep")
        try:
            os.stat(path)
        except OSError as error:
            self.complaints.append(Complaint(place, f"path={path} error={error.strerror}"))
            return None
        module = self.module(module_name_of_path(path))
        if module.path is None:
            module.path = path
        elif module.path != path:
            said = f"kmod_module '{module.name}' already exists with different path: "
            said += f"new-path='{path}' old-path='{module.path}'"
            self.complaints.append(Complaint(place, said))
            return None
        module.builtin = False
        return module

    def dependencies(self, module: Module) -> list[Module]:
        if module.deps is None:
            line = self.tree.dep_line(module.name)
            if line is not None:
                self._read_dependencies(module, line)
        return list(module.deps or ())

    def path(self, module: Module) -> str | None:
        if module.path is None and module.deps is None:
            self.dependencies(module)
        return module.path

    def is_builtin(self, module: Module) -> bool:
        if module.builtin is None:
            module.builtin = self.tree.is_builtin(module.name)
        return module.builtin

    def options(self, module: Module) -> tuple[str, list[Reason]]:
        lines = self.rules.options_of(module.name, module.alias)
        reasons = [Reason(f"options {line.module} {line.options}", line.place) for line in lines]
        return " ".join(line.options for line in lines), reasons

    def install(self, module: Module) -> Command | None:
        if module.install is not None:
            return module.install
        return self.rules.install(module.name)

    def remove(self, module: Module) -> Command | None:
        if module.remove is not None:
            return module.remove
        return self.rules.remove(module.name)

    def softdeps(self, module: Module) -> tuple[list[Module], list[Module], Softdep | None]:
        softdep = self.rules.softdep(module.name)
        if softdep is None:
            return [], [], None
        return self._lookup_all(softdep.pre), self._lookup_all(softdep.post), softdep

    def _lookup_all(self, names: Sequence[str]) -> list[Module]:
        found: list[Module] = []
        for name in names:
            if normal_alias(name) is None:
                said = f"failed to lookup soft dependency '{name}', continuing anyway."
                self.complaints.append(Complaint(Place(""), said))
            else:
                found += self.lookup(name)
        return found


_Source = Callable[[Lookups, str], list[Module]]
_SOURCES: tuple[_Source, ...] = (
    Lookups._from_config,
    Lookups._from_dependencies,
    Lookups._from_symbols,
    Lookups._from_commands,
    Lookups._from_aliases,
    Lookups._from_builtin,
    Lookups._from_builtin_aliases,
)
"""In the order in which they are asked."""
