"""One module's life in a fresh state of a kernel: what it needs, itself, what it registered, its end, what was left.

The states with the dependencies loaded are kept on one another (``Kernel.push``), so that modules which need the same
ones share them. Order and pauses are those of the recorded sweep.
"""

from __future__ import annotations

import errno
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kobox.debug.parse import parse_log
from kobox.debug.records import Kind
from kobox.depot.names import module_name_of_path
from kobox.errors import KoboxError
from kobox.kernel.tasks import JobTimeout, KernelDead, TaskDied
from kobox.ko import decompress
from kobox.sweep.inventory import CHEAP, Inventory, added, take
from kobox.sweep.records import Item, Lines, ModuleResult

SETTLE_SECONDS = 0.005
"""Virtual time after a load in which what it queued may run, before it is looked at."""
AGAIN_SECONDS = 0.15
"""How long after EAGAIN the second try to unload comes."""
LIMIT_SECONDS = 150.0
"""Virtual time that one call into the kernel may take."""
_O_NONBLOCK = 0o4000
_UNKNOWN = re.compile(r"^(?:unknown symbols|the bare kernel does not have): (.+)$")
"""How the loaders say which symbols they did not find."""
_ROUNDS = 6
"""Passes over modules that came with another one and do not go at once."""
_REPORT = re.compile(r"cut here|^BUG: |^Oops: |soft lockup|blocked for more than|Kernel panic|general protection fault")


class _State(NamedTuple):
    """A pushed state: a dependency more is loaded."""

    path: str
    failed: dict[str, int]
    inventory: Inventory | None


@dataclass(slots=True)
class _Life:
    """What goes on in one life, besides the result."""

    item: Item
    result: ModuleResult
    before: Inventory
    known: frozenset[str]
    """Modules that were loaded before it."""
    log_at: int = 0
    asked_at: int = 0


class Shared(NamedTuple):
    """Lists of dependencies worth keeping a state for. ``beginnings`` are of several modules' lists, ``wholes`` are all
    that some module needs: there an inventory is taken."""

    beginnings: frozenset[tuple[str, ...]]
    wholes: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, items: Iterable[Item]) -> Shared:
        count = Counter(item.needs[:length] for item in items for length in range(1, len(item.needs) + 1))
        beginnings = frozenset(beginning for beginning, many in count.items() if many > 1)
        return cls(beginnings, beginnings & {item.needs for item in items})


class Bench:
    """A kernel, which knows a pristine state, and a tree of modules."""

    def __init__(self, kernel: Any, tree: Path, shared: Shared) -> None:
        self.kernel, self._tree, self._shared = kernel, tree, shared
        self._stack: list[_State] = []
        self._files: dict[str, bytes] = {}
        self._nests = hasattr(kernel, "push")
        kernel.set_timeout(LIMIT_SECONDS)
        # the kernel remembers the names that it was asked for once: with that behind it, every later look is quicker
        self._base = take(kernel)
        if self._nests:
            kernel.push()

    def close(self) -> None:
        self.kernel.close()

    def sweep(self, item: Item) -> ModuleResult:
        """The whole life of one module. An error of kobox itself is part of the result."""
        start = time.perf_counter()
        result = ModuleResult(item.name, item.path, item.needs)
        try:
            self._live(item, result)
        except KoboxError as error:
            result.error = str(error)
        result.ms = (time.perf_counter() - start) * 1e3
        return result

    # -- states -----------------------------------------------------------------------------------------------------

    def _prepare(self, needs: Sequence[str]) -> dict[str, int]:
        """Load the dependencies, as far as no kept state has them; what refused, with its errno."""
        depth = 0
        while depth < min(len(needs), len(self._stack)) and self._stack[depth].path == needs[depth]:
            depth += 1
        if depth == len(self._stack):
            self.kernel.reset()
        while len(self._stack) > depth:
            self._stack.pop()
            self.kernel.pop()
        failed = dict(self._stack[-1].failed) if self._stack else {}
        keeping = self._nests
        for index in range(depth, len(needs)):
            refusal = self._load(needs[index])
            if refusal:
                failed[module_name_of_path(needs[index])] = refusal
            loaded = tuple(needs[: index + 1])
            keeping = keeping and loaded in self._shared.beginnings
            if keeping:
                self._settle()
                inventory = take(self.kernel, self._base) if loaded in self._shared.wholes else None
                self.kernel.push()
                self._stack.append(_State(needs[index], dict(failed), inventory))
        return failed

    def _settle(self) -> None:
        """Let go on what a load has begun elsewhere, until the kernel waits for none of its requests for modules."""
        for _ in range(_ROUNDS):
            self.kernel.sleep(SETTLE_SECONDS)
            if not any(asked.status is None for asked in self.kernel.autoloaded):
                return

    def _inventory(self, needs: Sequence[str]) -> Inventory:
        """What the kernel shows now, with the dependencies loaded."""
        kept = self._stack[-1].inventory if needs and len(self._stack) == len(needs) else None
        return self._base if not needs else kept or take(self.kernel, self._base)

    def _load(self, path: str) -> int:
        """The positive errno of a load; a crash in it counts as EFAULT would: the module is not there."""
        if path not in self._files:
            self._files[path] = self._read(path)
        try:
            return -int(self.kernel.finish_load(self.kernel.start_load(self._files[path])))
        except (TaskDied, JobTimeout):
            return errno.EFAULT

    def _read(self, path: str) -> bytes:
        file = self._tree / path
        return bytes(decompress(file.read_bytes(), str(file)))

    # -- one life -----------------------------------------------------------------------------------------------------

    def _live(self, item: Item, result: ModuleResult) -> None:
        kernel = self.kernel
        result.needs_failed = self._prepare(item.needs)
        if item.name in self._loaded():
            self._delete(item.name)  # came with what it needs, which asked for it
            inventory = take(kernel, self._base)
        else:
            inventory = self._inventory(item.needs)
        result.taint_before = kernel.tainted
        life = _Life(item, result, inventory, frozenset(self._loaded()))
        life.log_at, life.asked_at = len(kernel.dmesg()), len(kernel.autoloaded)
        try:
            self._begin(life)
            self._look(life)
            if result.load == 0:
                self._end(life)
        except JobTimeout as late:
            result.hang, result.reason = True, str(late)
        except (TaskDied, KernelDead) as death:
            result.reason = str(death)
        if result.hang or (result.reason and result.load in (None, 0)):
            result.log = (*result.log, *self._log_since(life))  # what was said until it stopped
        self._judge(life, (*result.log, *result.unload_log))
        result.adopted = kernel.adopted_hit()
        result.taint_after = kernel.tainted

    def _begin(self, life: _Life) -> None:
        kernel, result = self.kernel, life.result
        result.load = -int(kernel.finish_load(kernel.start_load(self._read(life.item.path))))
        kernel.sleep(SETTLE_SECONDS)
        if result.load:
            result.reason = kernel.explain_last_load()
            unknown = _UNKNOWN.match(result.reason)
            result.missing = tuple(unknown[1].split(", ")) if unknown else ()

    def _look(self, life: _Life) -> None:
        """What the load has changed."""
        result = life.result
        result.log = self._log_since(life)
        life.log_at += len(result.log)
        result.requested = tuple(asked.name for asked in self.kernel.autoloaded[life.asked_at :])
        records = {record.name: record for record in self.kernel.modules}
        result.autoloaded = tuple(name for name in records if name not in life.known and name != life.item.name)
        after = take(self.kernel, life.before)
        result.registered, result.unregistered = added(life.before, after), added(after, life.before)
        own = records.get(life.item.name)
        if own is not None:
            result.size, result.users, result.permanent = own.size, own.refcount, own.permanent

    def _end(self, life: _Life) -> None:
        """Unload it and what came with it, and see what is left."""
        kernel, result = self.kernel, life.result
        result.unload = self._delete(life.item.name)
        if result.unload == errno.EAGAIN:
            kernel.sleep(AGAIN_SECONDS)
            result.unload_again = self._delete(life.item.name)
        for _ in range(_ROUNDS):
            more = [name for name in self._loaded() if name not in life.known]
            refused = [name for name in more if self._delete(name)]
            if refused == more:
                break
        result.pinned = tuple(name for name in self._loaded() if name not in life.known)
        kernel.sleep(SETTLE_SECONDS)
        result.unload_log = self._log_since(life)
        after = take(kernel, life.before, CHEAP | result.registered.keys() | result.unregistered.keys())
        result.leftover, result.lost = added(life.before, after), added(after, life.before)

    def _delete(self, name: str) -> int:
        return -int(self.kernel.delete_module(name, _O_NONBLOCK))

    def _loaded(self) -> list[str]:
        """Names of loaded modules, newest first."""
        return [record.name for record in self.kernel.modules]

    def _log_since(self, life: _Life) -> Lines:
        return tuple((record.level, record.text) for record in self.kernel.dmesg()[life.log_at :])

    def _judge(self, life: _Life, log: Lines) -> None:
        """Crash reports and warnings in the log."""
        text = [line for _, line in log]
        if not any(_REPORT.search(line) for line in text):
            return
        for report in parse_log(text):
            if report.kind is Kind.WARNING:
                life.result.warn = True
            elif not life.result.oops:
                life.result.oops = report.title
