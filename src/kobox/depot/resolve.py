"""From a name, a path or an alias to a plan, by kmod's rules: the one place that knows what configuration means.

The rules, as modprobe.d(5) and kmod's behaviour have them:

- A name is looked for in the configured aliases, then modules.dep, modules.symbols (``symbol:`` names), the install and
  remove commands, modules.alias, modules.builtin and the aliases of built-in modules; the first that knows it answers.
- A blacklist stops a module that was reached through an alias, or any with ``-b``; never a dependency.
- Dependencies come in the order of modules.dep from the right; each with its own soft dependencies around it. A soft
  dependency brings its dependencies likewise, once. Only the first matching softdep line counts.
- A module that has soft dependencies (that resolve to something) does not run its install command.
- Options of all matching lines add up, those for the alias it was reached by included.
"""

from __future__ import annotations

from collections.abc import Generator

from kobox.depot.facts import Command, Config, Place, Softdep
from kobox.depot.lookups import Lookups, Module
from kobox.depot.names import module_name
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
from kobox.depot.rules import Rules
from kobox.depot.tree import ModuleTree

DEEPEST_REMOVAL = 100
MOST_REMOVALS = 10_000
"""Soft dependencies that go round multiply without end when removing; beyond this they are cut like a loop."""


def is_path(name: str) -> bool:
    return name.startswith(("/", "./"))


class Resolver:
    """Answers for one configuration and one tree. Holds no state between requests."""

    def __init__(self, config: Config, tree: ModuleTree) -> None:
        self.config = config
        self.tree = tree
        self._rules = Rules(config)
        self._aliases = Place(f"{tree.indexes}/modules.alias")
        self._commanded = frozenset(command.pattern for command in (*config.install, *config.remove))

    def lookup(self, name: str) -> list[tuple[str, Reason]]:
        """The modules that a name stands for, each with why (``modprobe -R``); empty if nothing knows it."""
        values = self._of_device(name)
        if values:
            why = Reason(f"alias {name}", self._aliases)
            return [(value, why) for value in values]
        return [(module.name, module.found) for module in Lookups(self._rules, self.tree).lookup(name)]

    def _of_device(self, name: str) -> list[str]:
        """A short cut for most of all look-ups: a device's alias, which nothing but modules.alias can know."""
        if ":" not in name or "-" in name or "[" in name or "]" in name or name.startswith("symbol:"):
            return []
        return [] if self.config.aliases or name in self._commanded else self.tree.modules_of_alias(name)

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
        lookups = Lookups(self._rules, self.tree)
        found = lookups.from_path(name) if is_path(name) else lookups.lookup(name)
        insertion = _Insertion(lookups, ignore_commands, use_blacklist)
        probes = tuple(insertion.probe(module, options) for module in found)
        return InsertPlan(name, self.tree.directory, probes, tuple(lookups.complaints))

    def remove(self, name: str, *, ignore_commands: bool = False) -> RemovePlan:
        """Plan ``modprobe -r NAME``."""
        lookups = Lookups(self._rules, self.tree)
        removing = _Removing(lookups, ignore_commands)
        removals = tuple(removing.removal(module, (), module.found) for module in lookups.lookup(name))
        return RemovePlan(name, self.tree.directory, removals, tuple(lookups.complaints))

    def holder_removal(self, name: str, *, ignore_commands: bool = False) -> Removal:
        """Plan the removal of a loaded module by its exact name (a holder of another)."""
        lookups = Lookups(self._rules, self.tree)
        why = Reason("uses a module that is to be removed")
        return _Removing(lookups, ignore_commands).removal(lookups.module(module_name(name)), (), why)

    def effective_softdep(self, name: str) -> Softdep | None:
        """The softdep line of a module because of which its install command is not run; None if it is run."""
        lookups = Lookups(self._rules, self.tree)
        pre, post, softdep = lookups.softdeps(lookups.module(name))
        return softdep if pre or post else None


# --- inserting -------------------------------------------------------------------------------------------------------

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


class _Insertion:
    """Plans insertions for one request."""

    def __init__(self, lookups: Lookups, ignore_commands: bool, use_blacklist: bool) -> None:
        self.lookups = lookups
        self.ignore_commands = ignore_commands
        self.use_blacklist = use_blacklist

    def probe(self, module: Module, options: str) -> Probe:
        """Everything that inserting ``module`` entails, in order."""
        found = module.found
        refused = self._refusal(module)
        steps: tuple[Step, ...] = ()
        if refused is None:
            for other in self.lookups.modules.values():
                other.visited = other.required = False
            order: list[tuple[Module, Reason]] = []
            _run(self._visit(module, True, self.ignore_commands, found, order))
            steps = tuple(self._step(member, why, options if member is module else "") for member, why in order)
        return Probe(module.name, module.alias, self.lookups.is_builtin(module), found, refused, steps)

    def _refusal(self, module: Module) -> Reason | None:
        if module.alias is None and not self.use_blacklist:
            return None
        for line in self.lookups.config.blacklists:
            if line.module == module.name:
                how = "-b was given" if module.alias is None else f"reached through {module.alias}"
                return Reason(f"blacklist {line.module}, {how}", line.place)
        return None

    def _visit(
        self, module: Module, required: bool, bare: bool, why: Reason, order: list[tuple[Module, Reason]]
    ) -> _Visit:
        """Append ``module`` with what must come around it; a module is visited once as a soft dependency."""
        if module.visited:
            return
        module.visited = True
        dependencies = self.lookups.dependencies(module)
        if required:
            module.required = True
            for dependency in dependencies:
                dependency.required = True
        needed = Reason(f"dependency of {module.name}", self.lookups.place("modules.dep"))
        for dependency in dependencies:
            yield self._surround(dependency, needed, order)
        if bare:
            order.append((module, why))
            module.skip_command = True
        else:
            yield self._surround(module, why, order)

    def _surround(self, module: Module, why: Reason, order: list[tuple[Module, Reason]]) -> _Visit:
        pre, post, softdep = self.lookups.softdeps(module)
        place = softdep.place if softdep else None
        for other in pre:
            yield self._visit(other, False, False, Reason(f"softdep {module.name} pre: {_called(other)}", place), order)
        order.append((module, why))
        module.skip_command = bool(pre or post)
        for other in post:
            yield self._visit(
                other, False, False, Reason(f"softdep {module.name} post: {_called(other)}", place), order
            )

    def _step(self, module: Module, why: Reason, extra: str) -> Step:
        configured, reasons = self.lookups.options(module)
        reasons.insert(0, why)
        options = f"{configured} {extra}" if configured else extra
        builtin = self.lookups.is_builtin(module)
        command = self.lookups.install(module)
        if command is not None and not module.skip_command:
            reasons.append(Reason(f"install {command.pattern} replaces the insertion", command.place))
            return RunCommand(module.name, command.command, options, module.required, builtin, tuple(reasons))
        if command is not None:
            reasons.append(self._why_no_command(module, command))
        path = self.lookups.path(module)
        if path is None:
            return Nothing(module.name, module.required, builtin, tuple(reasons))
        return Insert(module.name, path, options, module.required, builtin, tuple(reasons))

    def _why_no_command(self, module: Module, command: Command) -> Reason:
        softdep = self.lookups.rules.softdep(module.name)
        what = f"install {command.pattern} ({command.place}) is not run"
        if self.ignore_commands or softdep is None:
            return Reason(f"{what}: install commands are ignored (-i)")
        return Reason(f"{what}: a soft dependency takes precedence", softdep.place)


def _called(module: Module) -> str:
    return module.name if module.alias is None else module.alias


# --- removing --------------------------------------------------------------------------------------------------------


class _Removing:
    """Plans removals for one request."""

    def __init__(self, lookups: Lookups, ignore_commands: bool) -> None:
        self.lookups = lookups
        self.ignore_commands = ignore_commands
        self._count = 0

    def removal(self, module: Module, above: tuple[Module, ...], why: Reason) -> Removal:
        """Everything that removing ``module`` entails; ``above`` are the removals that this one is part of."""
        self._count += 1
        if module in above or len(above) > DEEPEST_REMOVAL or self._count > MOST_REMOVALS:
            return Removal(module.name, self.lookups.is_builtin(module), None, (), (), (), (why,), loop=True)
        pre: list[Module] = []
        post: list[Module] = []
        softdep: Softdep | None = None
        command: Command | None = None
        reasons = [why]
        if not self.ignore_commands:
            pre, post, softdep = self.lookups.softdeps(module)
            command = self.lookups.remove(module)
        if command is not None:
            reasons.append(Reason(f"remove {command.pattern} replaces the removal", command.place))
        place = softdep.place if softdep else None
        inside = (*above, module)

        def removals(others: list[Module], kind: str) -> tuple[Removal, ...]:
            return tuple(
                self.removal(other, inside, Reason(f"softdep {module.name} {kind}: {other.name}", place))
                for other in reversed(others)
            )

        return Removal(
            module.name,
            self.lookups.is_builtin(module),
            None if command is None else command.command,
            removals(post, "post"),
            removals(pre, "pre"),
            tuple(dependency.name for dependency in self.lookups.dependencies(module)),
            tuple(reasons),
        )
