"""From a name, a path or an alias to a plan, by kmod's rules: the one place that knows what configuration means.

The rules, as modprobe.d(5) and kmod's behaviour have them:

- A name is looked for in the configured aliases, then modules.dep, modules.symbols (``symbol:`` names), the install and
  remove commands, modules.alias, modules.builtin and the aliases of built-in modules; the first that knows it answers.
- A blacklist stops a module that was reached through an alias, or any with ``-b``; never a dependency.
- Dependencies come in the order of modules.dep from the right; each with its own soft dependencies around it. A soft
  dependency brings its dependencies likewise, once. Only the first matching softdep line counts.
- A module that has soft dependencies (that resolve to something) does not run its install command.
- Options of all matching lines add up, those for the alias it was reached by included.

The look-ups make small module objects that remember what kmod's remember within one request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence

from kobox.depot.facts import Command, Complaint, Config, Options, Place, Softdep
from kobox.depot.names import module_name, module_name_of_path, normal_alias, wildcard
from kobox.depot.paths import absolute
from kobox.depot.plan import (
    Insert,
    InsertPlan,
    Nothing,
    Probe,
    Reason,
    Removal,
    RemovePlan,
    RunCommand,
    Step,
)
from kobox.depot.tree import DepLine, ModuleTree

ASKED = Reason("asked for")

DEEPEST_REMOVAL = 100
MOST_REMOVALS = 10_000
"""Soft dependencies that go round multiply without end when removing; beyond this they are cut like a loop."""


def is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern or "[" in pattern or "\\" in pattern


def glob_match(pattern: str, name: str) -> bool:
    """``fnmatch`` without flags; a pattern that is no wildcard is only compared."""
    if is_glob(pattern):
        return wildcard(pattern).fullmatch(name) is not None
    return pattern == name


class _FirstMatch:
    """Finds the first of many patterns that matches a name, without trying them all."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: dict[str, int] = {}
        self._globs: list[tuple[int, str]] = []
        for at, pattern in enumerate(patterns):
            if is_glob(pattern):
                self._globs.append((at, pattern))
            else:
                self._exact.setdefault(pattern, at)

    def find(self, name: str) -> int | None:
        """The position of the first match."""
        exact = self._exact.get(name)
        for at, pattern in self._globs:
            if exact is not None and at > exact:
                break
            if wildcard(pattern).fullmatch(name) is not None:
                return at
        return exact


class _Rules:
    """A configuration arranged for look-ups."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._install = _FirstMatch(line.pattern for line in config.install)
        self._remove = _FirstMatch(line.pattern for line in config.remove)
        self._softdeps = _FirstMatch(line.pattern for line in config.softdeps)
        self.options: dict[str, list[Options]] = {}
        for line in config.options:
            if line.options:
                self.options.setdefault(line.module, []).append(line)
        self.order = {id(line): at for at, line in enumerate(config.options)}
        self.places: dict[str, Place] = {}

    def install(self, name: str) -> Command | None:
        at = self._install.find(name)
        return None if at is None else self.config.install[at]

    def remove(self, name: str) -> Command | None:
        at = self._remove.find(name)
        return None if at is None else self.config.remove[at]

    def softdep(self, name: str) -> Softdep | None:
        at = self._softdeps.find(name)
        return None if at is None else self.config.softdeps[at]

    def options_of(self, name: str, alias: str | None) -> list[Options]:
        """The lines of either name, in the order of the configuration."""
        if alias is None or alias == name:
            return self.options.get(name, [])
        both = [*self.options.get(name, ()), *self.options.get(alias, ())]
        return sorted(both, key=lambda line: self.order[id(line)])


class _Module:
    """What a request knows of one module. Reached by alias and reached by name are two objects, as in kmod."""

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
        self.deps: list[_Module] | None = None
        self.builtin: bool | None = None
        self.install: Command | None = None
        self.remove: Command | None = None
        self.visited = False
        self.required = False
        self.skip_command = False
        self.found = ASKED


class Resolver:
    """Answers for one configuration and one tree. Holds no state between requests."""

    def __init__(self, config: Config, tree: ModuleTree) -> None:
        self.config = config
        self.tree = tree
        self._rules = _Rules(config)

    def lookup(self, name: str) -> list[tuple[str, Reason]]:
        """The modules that a name stands for, each with why (``modprobe -R``); empty if nothing knows it."""
        return [(module.name, module.found) for module in _Request(self._rules, self.tree).lookup(name)]

    def insert(
        self,
        name: str,
        options: str = "",
        *,
        ignore_commands: bool = False,
        use_blacklist: bool = False,
    ) -> InsertPlan:
        """Plan ``modprobe NAME OPTIONS``. A plan without probes means that nothing knows the name.

        A name that is a path (absolute, or starting with ``./``) is inserted as a file, with the dependencies that
        modules.dep knows for a module of its name.
        """
        request = _Request(self._rules, self.tree)
        found = request.from_path(name) if is_path(name) else request.lookup(name)
        probes = tuple(request.probe(module, options, ignore_commands, use_blacklist) for module in found)
        return InsertPlan(name, self.tree.directory, probes, tuple(request.complaints))

    def remove(self, name: str, *, ignore_commands: bool = False) -> RemovePlan:
        """Plan ``modprobe -r NAME``."""
        request = _Request(self._rules, self.tree)
        removals = tuple(request.removal(module, ignore_commands, (), module.found) for module in request.lookup(name))
        return RemovePlan(name, self.tree.directory, removals, tuple(request.complaints))

    def holder_removal(self, name: str, *, ignore_commands: bool = False) -> Removal:
        """Plan the removal of a loaded module by its exact name (a holder of another)."""
        request = _Request(self._rules, self.tree)
        module = request.module(module_name(name))
        return request.removal(module, ignore_commands, (), Reason("uses a module that is to be removed"))

    def effective_softdep(self, name: str) -> Softdep | None:
        """The softdep line of a module because of which its install command is not run; None if it is run."""
        request = _Request(self._rules, self.tree)
        pre, post, softdep = request.softdeps(request.module(name))
        return softdep if pre or post else None


_Visit = Generator["_Visit", None, None]
"""A visit yields the visits inside it, so that a long chain of soft dependencies needs no deep stack."""


def _run(visit: _Visit) -> None:
    stack = [visit]
    while stack:
        inside = next(stack[-1], None)
        if inside is None:
            stack.pop()
        else:
            stack.append(inside)


def is_path(name: str) -> bool:
    return name.startswith(("/", "./"))


class _Request:
    """One request: the modules met so far, and kmod's look-ups among them."""

    __slots__ = ("_modules", "_removals", "complaints", "config", "rules", "tree")

    def __init__(self, rules: _Rules, tree: ModuleTree) -> None:
        self.rules = rules
        self.config = rules.config
        self.tree = tree
        self.complaints: list[Complaint] = []
        self._modules: dict[tuple[str, str | None], _Module] = {}
        self._removals = 0

    def place(self, index: str) -> Place:
        place = self.rules.places.get(index)
        if place is None:
            place = self.rules.places[index] = Place(f"{self.tree.directory}/{index}")
        return place

    # --- finding ---

    def module(self, name: str, alias: str | None = None) -> _Module:
        key = (name, alias)
        if key not in self._modules:
            self._modules[key] = _Module(name, alias)
        return self._modules[key]

    def lookup(self, name: str) -> list[_Module]:
        normal = normal_alias(name)
        if normal is None:
            return []
        for source in _SOURCES:
            found = source(self, normal)
            if found:
                return found
        return []

    def from_path(self, path: str) -> list[_Module]:
        full = absolute(path)
        if not os.path.exists(full):
            return []
        module = self.module(module_name_of_path(full))
        module.path = full
        module.builtin = False
        module.found = Reason("asked for by its path")
        return [module]

    def _from_config(self, name: str) -> list[_Module]:
        found = []
        for alias in self.config.aliases:
            if glob_match(alias.pattern, name):
                module = self.module(alias.module, alias.pattern)
                module.found = Reason(f"alias {alias.pattern}", alias.place)
                found.append(module)
        return found

    def _from_dependencies(self, name: str) -> list[_Module]:
        if ":" in name:
            return []
        line = self.tree.dep_line(name)
        if line is None:
            return []
        module = self.module(module_name(name))
        module.found = Reason(f"module {module.name}", self.place("modules.dep"))
        self._read_dependencies(module, line)
        return [module]

    def _from_symbols(self, name: str) -> list[_Module]:
        if not name.startswith("symbol:"):
            return []
        return self._by_alias(name, self.tree.modules_of_symbol(name), "exports", "modules.symbols")

    def _from_aliases(self, name: str) -> list[_Module]:
        return self._by_alias(name, self.tree.modules_of_alias(name), "alias", "modules.alias")

    def _by_alias(self, name: str, values: Sequence[str], what: str, index: str) -> list[_Module]:
        if not values:
            return []
        why = Reason(f"{what} {name}", self.place(index))
        found = []
        for value in values:
            module = self.module(value, name)
            module.found = why
            found.append(module)
        return found

    def _from_commands(self, name: str) -> list[_Module]:
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

    def _from_builtin(self, name: str) -> list[_Module]:
        if not self.tree.is_builtin(name):
            return []
        module = self.module(module_name(name))
        module.builtin = True
        module.found = Reason("built into the kernel", self.place("modules.builtin"))
        return [module]

    def _from_builtin_aliases(self, name: str) -> list[_Module]:
        found = self._by_alias(name, self.tree.builtins_of_alias(name), "built-in alias", "modules.builtin.alias.bin")
        for module in found:
            module.builtin = True
        return found

    # --- what a module has ---

    def _read_dependencies(self, module: _Module, line: DepLine) -> None:
        """Take path and dependencies from a line of modules.dep. One bad dependency drops them all, as in kmod."""
        if module.deps is not None:
            return
        module.deps = []
        if module.path is None:
            module.path = self.tree.path(line.path)
        listed: list[_Module] = []
        for path in line.needs:
            dependency = self._dependency(self.tree.path(path))
            if dependency is None:
                module.deps = None
                return
            listed.append(dependency)
        listed.reverse()
        module.deps = listed

    def _dependency(self, path: str) -> _Module | None:
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

    def dependencies(self, module: _Module) -> list[_Module]:
        if module.deps is None:
            line = self.tree.dep_line(module.name)
            if line is not None:
                self._read_dependencies(module, line)
        return list(module.deps or ())

    def _path(self, module: _Module) -> str | None:
        if module.path is None and module.deps is None:
            self.dependencies(module)
        return module.path

    def _is_builtin(self, module: _Module) -> bool:
        if module.builtin is None:
            module.builtin = self.tree.is_builtin(module.name)
        return module.builtin

    def _options(self, module: _Module) -> tuple[str, list[Reason]]:
        lines = self.rules.options_of(module.name, module.alias)
        reasons = [Reason(f"options {line.module} {line.options}", line.place) for line in lines]
        return " ".join(line.options for line in lines), reasons

    def _install(self, module: _Module) -> Command | None:
        if module.install is not None:
            return module.install
        return self.rules.install(module.name)

    def _remove(self, module: _Module) -> Command | None:
        if module.remove is not None:
            return module.remove
        return self.rules.remove(module.name)

    def softdeps(self, module: _Module) -> tuple[list[_Module], list[_Module], Softdep | None]:
        softdep = self.rules.softdep(module.name)
        if softdep is None:
            return [], [], None
        return self._lookup_all(softdep.pre), self._lookup_all(softdep.post), softdep

    def _lookup_all(self, names: Sequence[str]) -> list[_Module]:
        found: list[_Module] = []
        for name in names:
            if normal_alias(name) is None:
                said = f"failed to lookup soft dependency '{name}', continuing anyway."
                self.complaints.append(Complaint(Place(""), said))
            else:
                found += self.lookup(name)
        return found

    # --- inserting ---

    def probe(self, module: _Module, options: str, ignore_commands: bool, use_blacklist: bool) -> Probe:
        """Everything that inserting ``module`` entails, in order."""
        found = module.found
        refused = self._refusal(module, use_blacklist)
        steps: tuple[Step, ...] = ()
        if refused is None:
            for other in self._modules.values():
                other.visited = other.required = False
            order: list[tuple[_Module, Reason]] = []
            _run(self._visit(module, True, ignore_commands, found, order))
            steps = tuple(
                self._step(member, why, options if member is module else "", ignore_commands) for member, why in order
            )
        return Probe(module.name, module.alias, self._is_builtin(module), found, refused, steps)

    def _refusal(self, module: _Module, use_blacklist: bool) -> Reason | None:
        if module.alias is None and not use_blacklist:
            return None
        for line in self.config.blacklists:
            if line.module == module.name:
                how = "-b was given" if module.alias is None else f"reached through {module.alias}"
                return Reason(f"blacklist {line.module}, {how}", line.place)
        return None

    def _visit(
        self, module: _Module, required: bool, bare: bool, why: Reason, order: list[tuple[_Module, Reason]]
    ) -> _Visit:
        """Append ``module`` with what must come around it; a module is visited once as a soft dependency."""
        if module.visited:
            return
        module.visited = True
        dependencies = self.dependencies(module)
        if required:
            module.required = True
            for dependency in dependencies:
                dependency.required = True
        needed = Reason(f"dependency of {module.name}", self.place("modules.dep"))
        for dependency in dependencies:
            yield self._surround(dependency, needed, order)
        if bare:
            order.append((module, why))
            module.skip_command = True
        else:
            yield self._surround(module, why, order)

    def _surround(self, module: _Module, why: Reason, order: list[tuple[_Module, Reason]]) -> _Visit:
        pre, post, softdep = self.softdeps(module)
        place = softdep.place if softdep else None
        for other in pre:
            yield self._visit(other, False, False, Reason(f"softdep {module.name} pre: {_called(other)}", place), order)
        order.append((module, why))
        module.skip_command = bool(pre or post)
        for other in post:
            yield self._visit(
                other, False, False, Reason(f"softdep {module.name} post: {_called(other)}", place), order
            )

    def _step(self, module: _Module, why: Reason, extra: str, ignore_commands: bool) -> Step:
        configured, reasons = self._options(module)
        reasons.insert(0, why)
        options = f"{configured} {extra}" if configured else extra
        builtin = self._is_builtin(module)
        command = self._install(module)
        if command is not None and not module.skip_command:
            reasons.append(Reason(f"install {command.pattern} replaces the insertion", command.place))
            return RunCommand(module.name, command.command, options, module.required, builtin, tuple(reasons))
        if command is not None:
            reasons.append(self._why_no_command(module, command, ignore_commands))
        path = self._path(module)
        if path is None:
            return Nothing(module.name, module.required, builtin, tuple(reasons))
        return Insert(module.name, path, options, module.required, builtin, tuple(reasons))

    def _why_no_command(self, module: _Module, command: Command, ignore_commands: bool) -> Reason:
        _, _, softdep = self.softdeps(module)
        what = f"install {command.pattern} ({command.place}) is not run"
        if ignore_commands or softdep is None:
            return Reason(f"{what}: install commands are ignored (-i)")
        return Reason(f"{what}: a soft dependency takes precedence", softdep.place)

    # --- removing ---

    def removal(self, module: _Module, ignore_commands: bool, above: tuple[_Module, ...], why: Reason) -> Removal:
        self._removals += 1
        if module in above or len(above) > DEEPEST_REMOVAL or self._removals > MOST_REMOVALS:
            return Removal(module.name, self._is_builtin(module), None, (), (), (), (why,), loop=True)
        pre: list[_Module] = []
        post: list[_Module] = []
        softdep: Softdep | None = None
        command: Command | None = None
        reasons = [why]
        if not ignore_commands:
            pre, post, softdep = self.softdeps(module)
            command = self._remove(module)
        if command is not None:
            reasons.append(Reason(f"remove {command.pattern} replaces the removal", command.place))
        place = softdep.place if softdep else None
        inside = (*above, module)

        def removals(others: list[_Module], kind: str) -> tuple[Removal, ...]:
            return tuple(
                self.removal(
                    other, ignore_commands, inside, Reason(f"softdep {module.name} {kind}: {other.name}", place)
                )
                for other in reversed(others)
            )

        return Removal(
            module.name,
            self._is_builtin(module),
            None if command is None else command.command,
            removals(post, "post"),
            removals(pre, "pre"),
            tuple(dependency.name for dependency in self.dependencies(module)),
            tuple(reasons),
        )


_Source = Callable[[_Request, str], list[_Module]]
_SOURCES: tuple[_Source, ...] = (
    _Request._from_config,
    _Request._from_dependencies,
    _Request._from_symbols,
    _Request._from_commands,
    _Request._from_aliases,
    _Request._from_builtin,
    _Request._from_builtin_aliases,
)
"""In the order in which they are asked."""


def _called(module: _Module) -> str:
    return module.name if module.alias is None else module.alias
