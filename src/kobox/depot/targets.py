"""What a plan is executed on: a root directory (plans only), the live host, or a kernel plugged in by the caller.

``Target`` is the whole protocol. ``insert`` and ``remove`` walk a plan on a target with kmod's rules about what is
loaded already, which errors end the walk and what is said; a dry run goes the same way and touches nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from errno import EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT
from typing import NamedTuple, Protocol

from kobox.depot.plan import Insert, InsertPlan, Probe, Removal, RemovePlan, RunCommand, Step, step_line
from kobox.errors import Errno, NotModelled

IGNORE_MODVERSIONS = 1
IGNORE_VERMAGIC = 2
"""Flags of finit_module(2)."""

FORCE_REMOVE = os.O_TRUNC
NO_WAIT = os.O_NONBLOCK
"""Flags of delete_module(2)."""

COMMAND_VARIABLE = "MODPROBE_MODULE"


class Loaded(NamedTuple):
    """A module in a kernel. ``state`` is live, coming or going; ``refcount`` is None if the kernel does not tell."""

    name: str
    state: str
    refcount: int | None
    size: int
    holders: tuple[str, ...]


class Surroundings(Protocol):
    """What the walk of an insert plan must know."""

    def loaded(self) -> Mapping[str, Loaded]:
        """Loaded modules by name. Asked again before every step; may be lazy."""
        ...

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        """Run an install or remove command of the configuration by a shell; the exit status."""
        ...


class Target(Surroundings, Protocol):
    """A kernel that modules can be put into. Failures are ``Errno``."""

    def insert(self, path: str, options: str, flags: int) -> None:
        """Insert the file; ``flags`` are those of finit_module(2)."""
        ...

    def remove(self, name: str, flags: int) -> None:
        """Remove a module; ``flags`` are those of delete_module(2)."""
        ...


class SysModules(Mapping[str, Loaded]):
    """``/sys/module`` below a root, read module by module when asked."""

    def __init__(self, root: str = "") -> None:
        self.directory = root.rstrip("/") + "/sys/module"

    def __getitem__(self, name: str) -> Loaded:
        base = f"{self.directory}/{name}"
        state = _read(f"{base}/initstate")
        if state is None:
            if not os.path.isdir(base) or name in ("", ".", "..") or "/" in name:
                raise KeyError(name)
            state = "coming"
        try:
            holders = tuple(os.listdir(f"{base}/holders"))
        except OSError:
            holders = ()
        refcount = _number(f"{base}/refcnt")
        return Loaded(name, state.strip(), refcount, _number(f"{base}/coresize") or 0, holders)

    def __iter__(self) -> Iterator[str]:
        try:
            names = os.listdir(self.directory)
        except OSError:
            return
        yield from (name for name in names if os.path.exists(f"{self.directory}/{name}/initstate"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(4096)
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _read(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


class RootTarget:
    """A root directory: it has configuration and modules but no kernel, so it takes plans and nothing else."""

    def __init__(self, root: str = "") -> None:
        self.root = root

    def loaded(self) -> Mapping[str, Loaded]:
        """What a ``/sys`` below the root says (a copy of a machine's, say); usually nothing."""
        return SysModules(self.root) if self.root.strip("/") else {}

    def insert(self, path: str, options: str, flags: int) -> None:
        raise self._no_kernel()

    def remove(self, name: str, flags: int) -> None:
        raise self._no_kernel()

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        raise self._no_kernel()

    def _no_kernel(self) -> NotModelled:
        what = f"the root directory {self.root or '/'} has no kernel to change"
        return NotModelled(what, hint="-n -v shows what would happen, --live acts on this host")


class How(NamedTuple):
    """How to walk a plan. ``show`` gets kmod's line for each step, ``say`` a level (ERROR, FATAL …) and a message."""

    show: Callable[[str], None] | None
    say: Callable[[str, str], None]
    dry_run: bool = False
    ignore_loaded: bool = False
    first_time: bool = False
    flags: int = 0
    force_remove: bool = False
    remove_holders: bool = False
    wait_ms: int = 0
    complaint_level: str = "FATAL"
    holder_plan: Callable[[str], Removal] | None = None


def execute(
    plan: InsertPlan | RemovePlan, target: Target, *, flags: int = 0, first_time: bool = False, force: bool = False
) -> list[str]:
    """Carry a plan out on a target, for callers from Python; the lines of what was done.

    ``flags`` are those of finit_module(2). Raises ``Errno`` with what kmod would say when a step fails, or when nothing
    knows the name.
    """
    done: list[str] = []
    said: list[str] = []
    how = How(
        done.append, lambda level, text: said.append(text), first_time=first_time, flags=flags, force_remove=force
    )
    known = plan.probes if isinstance(plan, InsertPlan) else plan.removals
    if not known:
        raise Errno(ENOENT, f"module {plan.request} not found in directory {plan.directory}")
    result = insert(plan, target, how) if isinstance(plan, InsertPlan) else remove(plan, target, how)
    if result < 0:
        raise Errno(-result, "; ".join(said) or plan.request)
    return done


# --- inserting -------------------------------------------------------------------------------------------------------


Insertions = Generator[Insert, int, int]
"""A walk of an insert plan. It yields each file to insert and is sent 0 or the negative error of that."""


def insert(plan: InsertPlan, target: Target, how: How) -> int:
    """Walk an insert plan; 0, or the negative error of the last module that the request stood for."""
    walk = insertions(plan, target, how)
    try:
        step = next(walk)
        while True:
            step = walk.send(_insert_file(step, target, how))
    except StopIteration as ended:
        return int(ended.value)


def _insert_file(step: Insert, target: Target, how: How) -> int:
    try:
        target.insert(step.path, step.options, how.flags)
    except Errno as error:
        return -error.number
    return 0


def insertions(plan: InsertPlan, around: Surroundings, how: How) -> Insertions:
    """As ``insert`` for whoever inserts files in a way of its own, in the middle of other work: ``around`` is
    asked what is loaded, and told to run commands."""
    result = 0
    for probe in plan.probes:
        result = min((yield from _insert_probe(probe, around, how)), 0)
        if result < 0:
            how.say("ERROR", f"could not insert '{probe.module}': {_insert_error(-result)}")
    return result


def _insert_error(number: int) -> str:
    known = {
        EEXIST: "Module already in kernel",
        ENOENT: "Unknown symbol in module, or unknown parameter (see dmesg)",
    }
    return known.get(number) or os.strerror(number)


def _insert_probe(probe: Probe, around: Surroundings, how: How) -> Insertions:
    if not how.ignore_loaded and _in_kernel(probe.module, probe.builtin, around):
        return -EEXIST if how.first_time else 0
    if probe.refused is not None:
        return 0
    requested = _requested_step(probe)
    for step in probe.steps:
        error = yield from _insert_step(step, around, how)
        if error == -EEXIST and how.first_time and step is requested:
            return error
        if error < 0 and error != -EEXIST and step.required:
            return error
    return 0


def _requested_step(probe: Probe) -> Step | None:
    return next((step for step in probe.steps if step.module == probe.module and step.required), None)


def _insert_step(step: Step, around: Surroundings, how: How) -> Insertions:
    if not how.ignore_loaded and _in_kernel(step.module, step.builtin, around):
        return -EEXIST
    line = step_line(step)
    if how.show is not None and line is not None:
        how.show(line)
    if how.dry_run:
        return 0
    if isinstance(step, Insert):
        return (yield step)
    if isinstance(step, RunCommand):
        try:
            return _run_install(step, around, how)
        except Errno as error:
            return -error.number
    how.say("ERROR", f"could not find module by name='{step.module}'")
    return -ENOENT


def _run_install(step: RunCommand, around: Surroundings, how: How) -> int:
    command = step.expanded()
    status = around.run_command(command, {COMMAND_VARIABLE: step.module})
    if status == 0:
        return 0
    said = f"Error running install command '{command}' for module {step.module}: retcode {status}"
    how.say("ERROR", said)
    return -EINVAL


def _in_kernel(name: str, builtin: bool, around: Surroundings) -> bool:
    if builtin:
        return True
    module = around.loaded().get(name)
    return module is not None and module.state == "live"


# --- removing --------------------------------------------------------------------------------------------------------


def remove(plan: RemovePlan, target: Target, how: How) -> int:
    """Walk a remove plan; 0 or the first negative error."""
    for removal in plan.removals:
        error = _remove_one(removal, target, how, holders=how.remove_holders, builtin_is_fine=False)
        if error < 0:
            return error
    return 0


def _remove_one(removal: Removal, target: Target, how: How, *, holders: bool, builtin_is_fine: bool) -> int:
    if removal.loop:
        return 0
    name = removal.module
    if removal.command is None and not how.ignore_loaded:
        known = _removable(removal, target, how, builtin_is_fine)
        if known is not None:
            return known
    for other in removal.post:
        _remove_one(other, target, how, holders=False, builtin_is_fine=True)
    if holders:
        error = _remove_holders(name, target, how)
        if error < 0:
            return error
    if removal.command is not None:
        return _remove_by_command(removal, target, how)
    if not how.ignore_loaded and not how.wait_ms and (_refcount(name, target) or 0) > 0:
        how.say(how.complaint_level, f"Module {name} is in use.")
        return -EBUSY
    error = _delete(name, target, how)
    if error < 0:
        return error
    for dependency in removal.dependencies:
        if _refcount(dependency, target) == 0:
            _delete(dependency, target, how)
    for other in removal.pre:
        _remove_one(other, target, how, holders=False, builtin_is_fine=True)
    return 0


def _removable(removal: Removal, target: Target, how: How, builtin_is_fine: bool) -> int | None:
    """The result if there is nothing to remove, None if there is."""
    name = removal.module
    if removal.builtin:
        if builtin_is_fine:
            return 0
        how.say(how.complaint_level, f"Module {name} is builtin.")
        return -ENOENT
    if name in target.loaded():
        return None
    if not how.first_time:
        return 0
    how.say(how.complaint_level, f"Module {name} is not in kernel.")
    return -ENOENT


def _remove_holders(name: str, target: Target, how: How) -> int:
    module = target.loaded().get(name)
    if module is None:
        how.say("ERROR", f"could not open '/sys/module/{name}/holders': {os.strerror(ENOENT)}")
    if module is None or how.holder_plan is None:
        return 0
    for holder in reversed(module.holders):
        error = _remove_one(how.holder_plan(holder), target, how, holders=False, builtin_is_fine=True)
        if error < 0:
            return error
    return 0


def _remove_by_command(removal: Removal, target: Target, how: How) -> int:
    command = (removal.command or "").replace("$CMDLINE_OPTS", "")
    if how.show is not None:
        how.show(f"remove {command}")
    status = 0 if how.dry_run else target.run_command(command, {COMMAND_VARIABLE: removal.module})
    if status:
        how.say(how.complaint_level, f"Error running remove command for {removal.module}")
        return -status
    for other in removal.pre:
        _remove_one(other, target, how, holders=False, builtin_is_fine=True)
    return 0


def _refcount(name: str, target: Target) -> int | None:
    module = target.loaded().get(name)
    return None if module is None else module.refcount


def _delete(name: str, target: Target, how: How) -> int:
    if how.show is not None:
        how.show(f"rmmod {name}")
    if how.dry_run:
        return 0
    flags = NO_WAIT | (FORCE_REMOVE if how.force_remove else 0)
    deadline = time.monotonic() + how.wait_ms / 1000
    pause = 0.001
    while True:
        try:
            target.remove(name, flags)
            return 0
        except Errno as error:
            number = error.number
        if number == EAGAIN and time.monotonic() < deadline:
            time.sleep(min(pause, max(deadline - time.monotonic(), 0)))
            pause *= 2
            continue
        if number == EEXIST and not how.first_time:
            return 0
        how.say("ERROR", f"could not remove '{name}': {os.strerror(number)}")
        return -number
