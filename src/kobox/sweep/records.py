"""What a sweep finds, as records; the JSON is a rendering of them with the names and types of a recorded machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kobox.abi.errno_names import name_of
from kobox.sweep.inventory import Difference

Lines = tuple[tuple[int, str], ...]
"""Log lines: (level, text)."""


class Item(NamedTuple):
    """A module to sweep. ``path`` and ``needs`` are below the tree; ``needs`` in the order in which they are loaded."""

    name: str
    path: str
    needs: tuple[str, ...]


@dataclass(slots=True)
class ModuleResult:
    """One module's life. Errors are positive errno numbers; None: that step was never reached."""

    name: str
    path: str
    needs: tuple[str, ...] = ()
    needs_failed: dict[str, int] = field(default_factory=dict)
    """Modules that it depends on and that refused: name and errno."""
    load: int | None = None
    reason: str = ""
    """Why the load was refused, in the loader's words."""
    unload: int | None = None
    unload_again: int | None = None
    """Of a second try, where the first one said EAGAIN."""
    size: int | None = None
    users: int | None = None
    permanent: bool = False
    log: Lines = ()
    unload_log: Lines = ()
    registered: Difference = field(default_factory=dict)
    unregistered: Difference = field(default_factory=dict)
    leftover: Difference = field(default_factory=dict)
    lost: Difference = field(default_factory=dict)
    requested: tuple[str, ...] = ()
    """What the kernel asked modprobe for while it was loaded."""
    autoloaded: tuple[str, ...] = ()
    """Modules that came because it, or the kernel for it, asked for them."""
    pinned: tuple[str, ...] = ()
    """Modules that could not be unloaded."""
    taint_before: int = 0
    taint_after: int = 0
    missing: tuple[str, ...] = ()
    """Symbols that neither the kernel nor a module had."""
    adopted: dict[str, str] = field(default_factory=dict)
    """Functions in Python that were called, each with its fidelity."""
    oops: str = ""
    """Title of the first crash report in the log."""
    warn: bool = False
    hang: bool = False
    """A call did not return within its time."""
    error: str = ""
    """What kobox itself lacked or got wrong."""
    ms: float = 0.0

    @property
    def verdict(self) -> str:
        """One word for people and for reports: loaded, refused, crashed, hung, or error (kobox's own)."""
        if self.error:
            return "error"
        if self.hang:
            return "hung"
        if self.oops:
            return "crashed"
        return "loaded" if self.load == 0 else "refused"

    def as_data(self) -> dict[str, Any]:
        """The JSON of one module; keys that say nothing are left out."""
        whole = {
            "name": self.name,
            "path": self.path,
            "deps": len(self.needs),
            "deps_loaded": len(self.needs) - len(self.needs_failed),
            "dep_errno": self.needs_failed,
            "load_errno": self.load,
            "reason": self.reason,
            "size": self.size,
            "refcnt": None if self.users is None else str(self.users),
            "permanent": self.permanent,
            "request_module": list(self.requested),
            "autoloaded": list(self.autoloaded),
            "log_n": len(self.log),
            "log": [list(line) for line in self.log],
            "registered": _lists(self.registered),
            "unregistered": _lists(self.unregistered),
            "unload_errno": self.unload,
            "unload_retry_errno": self.unload_again,
            "pinned": list(self.pinned),
            "leftover": _lists(self.leftover),
            "lost": _lists(self.lost),
            "unload_log_n": len(self.unload_log),
            "unload_log": [list(line) for line in self.unload_log],
            "taint_before": self.taint_before,
            "taint_after": self.taint_after,
            "taint_added": self.taint_after & ~self.taint_before,
            "missing": list(self.missing),
            "adopted": self.adopted,
            "warn": self.warn,
            "oops": bool(self.oops),
            "title": self.oops,
            "hang": self.hang,
            "error": self.error,
            "ms": round(self.ms, 1),
        }
        return {key: value for key, value in whole.items() if key in _ALWAYS or value not in _NOTHING}


_ALWAYS = frozenset(
    {"name", "path", "deps", "deps_loaded", "log_n", "log", "taint_before", "taint_after", "warn", "oops", "ms"}
    | {"load_errno"}
)
_NOTHING: tuple[Any, ...] = (None, "", [], {})


def _lists(difference: Difference) -> dict[str, list[str]]:
    return {kind: list(names) for kind, names in difference.items()}


class SweepReport(NamedTuple):
    """A whole sweep. ``seconds`` of wall clock with ``jobs`` processes."""

    release: str
    cpu: str
    tree: str
    jobs: int
    seconds: float
    modules: tuple[ModuleResult, ...]

    @property
    def ok(self) -> bool:
        """Nothing crashed, hung, or met an error of kobox; a module that refuses is an answer."""
        return all(module.verdict in ("loaded", "refused") for module in self.modules)

    def summary(self) -> dict[str, Any]:
        """Counts for people and for the JSON."""
        modules = self.modules
        return {
            "modules": len(modules),
            "load_errno": _counts(module.load for module in modules),
            "unload_errno": _counts(module.unload for module in modules),
            "verdicts": dict(Counter(module.verdict for module in modules).most_common()),
            "warn": [module.name for module in modules if module.warn],
            "oops": [module.name for module in modules if module.oops],
            "hang": [module.name for module in modules if module.hang],
            "error": [module.name for module in modules if module.error],
            "permanent": [module.name for module in modules if module.permanent],
            "pinned": {module.name: list(module.pinned) for module in modules if module.pinned},
            "leftover": [module.name for module in modules if module.leftover],
            "missing": [list(row) for row in ranked(modules)],
            "adopted": self.adopted(),
            "registered_modules_per_kind": dict(
                Counter(kind for module in modules for kind in module.registered).most_common()
            ),
            "jobs": self.jobs,
            "wall_s": round(self.seconds, 1),
        }

    def adopted(self) -> dict[str, dict[str, Any]]:
        """Functions in Python that modules called: fidelity, and how many modules."""
        count: Counter[str] = Counter(name for module in self.modules for name in module.adopted)
        fidelity = {name: kind for module in self.modules for name, kind in module.adopted.items()}
        return {name: {"fidelity": fidelity[name], "modules": many} for name, many in count.most_common()}

    def as_data(self) -> dict[str, Any]:
        """The JSON of ``kobox sweep --json``."""
        return {
            "release": self.release,
            "cpu": self.cpu,
            "tree": self.tree,
            "summary": self.summary(),
            "modules": {module.name: module.as_data() for module in self.modules},
        }


class Missing(NamedTuple):
    """A symbol that modules lack. ``alone``: modules for which it is the only one."""

    symbol: str
    modules: int
    alone: int


def ranked(modules: Iterable[ModuleResult]) -> list[Missing]:
    """Missing symbols, those first that would help the most modules."""
    everywhere: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for module in modules:
        everywhere.update(module.missing)
        if len(module.missing) == 1:
            alone.update(module.missing)
    rows = (Missing(symbol, count, alone[symbol]) for symbol, count in everywhere.items())
    return sorted(rows, key=lambda row: (-row.modules, -row.alone, row.symbol))


def _counts(numbers: Iterable[int | None]) -> dict[str, int]:
    """How often each errno came, by name; "0" is success, "none" where the step was never reached."""
    words = ("none" if number is None else "0" if number == 0 else name_of(number) or str(number) for number in numbers)
    return dict(Counter(words).most_common())
