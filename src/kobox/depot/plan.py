"""Plans: what loading or removing a name would do, step by step, and why. Records and their renderings, no decisions.

A plan does not depend on what is loaded: whoever prints or executes it skips what is there already, as kmod does.
Records are named tuples for the reason given in ``facts``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kobox.depot.facts import Complaint, Place


class Reason(NamedTuple):
    """Why a step is there: a sentence, and the line of configuration or the index it rests on."""

    text: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.place})" if self.place else self.text


class Insert(NamedTuple):
    """Insert a file. ``required``: its failure ends the load (a soft dependency's does not)."""

    module: str
    path: str
    options: str
    required: bool
    builtin: bool
    reasons: tuple[Reason, ...]


class RunCommand(NamedTuple):
    """Run the module's ``install`` command instead of inserting it. ``command`` is as configured, unexpanded."""

    module: str
    command: str
    options: str
    required: bool
    builtin: bool
    reasons: tuple[Reason, ...]

    def expanded(self) -> str:
        return self.command.replace("$CMDLINE_OPTS", self.options)


class Nothing(NamedTuple):
    """No file to insert: ``builtin``, or a name that no index knows (an alias to nothing)."""

    module: str
    required: bool
    builtin: bool
    reasons: tuple[Reason, ...]


Step = Insert | RunCommand | Nothing


class Probe(NamedTuple):
    """What one module that the request resolved to needs. ``refused`` is set when a blacklist stops it."""

    module: str
    alias: str | None
    builtin: bool
    found: Reason
    refused: Reason | None
    steps: tuple[Step, ...]


class InsertPlan(NamedTuple):
    request: str
    directory: str
    probes: tuple[Probe, ...]
    complaints: tuple[Complaint, ...]


class Removal(NamedTuple):
    """Remove one module: soft dependencies around it, then those of its dependencies that became unused.

    ``command`` replaces the removal itself. ``loop`` marks a module that is being removed further up already.
    """

    module: str
    builtin: bool
    command: str | None
    post: tuple[Removal, ...]
    pre: tuple[Removal, ...]
    dependencies: tuple[str, ...]
    reasons: tuple[Reason, ...]
    loop: bool = False


class RemovePlan(NamedTuple):
    request: str
    directory: str
    removals: tuple[Removal, ...]
    complaints: tuple[Complaint, ...]


def step_line(step: Step) -> str | None:
    """The line of ``modprobe --show-depends`` for a step; None where kmod prints nothing."""
    if isinstance(step, Insert):
        return f"insmod {step.path} {step.options}"
    if isinstance(step, RunCommand):
        return f"install {step.command} {step.options}"
    return f"builtin {step.module}" if step.builtin else None


def show_depends(plan: InsertPlan) -> Iterator[str]:
    """The lines of ``modprobe --show-depends``."""
    for probe in plan.probes:
        if probe.refused is None:
            for step in probe.steps:
                line = step_line(step)
                if line is not None:
                    yield line


def place_json(place: Place | None) -> dict[str, object] | None:
    return None if place is None else {"file": place.file, "line": place.line}


def reason_json(reason: Reason) -> dict[str, object]:
    return {"text": reason.text, "place": place_json(reason.place)}


def step_json(step: Step) -> dict[str, object]:
    out: dict[str, object] = {"action": _ACTIONS[type(step)], "module": step.module}
    if isinstance(step, Insert):
        out |= {"path": step.path, "options": step.options}
    elif isinstance(step, RunCommand):
        out |= {"command": step.command, "options": step.options}
    return out | {
        "required": step.required,
        "builtin": step.builtin,
        "reasons": [reason_json(reason) for reason in step.reasons],
    }


_ACTIONS = {Insert: "insert", RunCommand: "command", Nothing: "nothing"}


def insert_plan_json(plan: InsertPlan) -> dict[str, object]:
    return {
        "request": plan.request,
        "directory": plan.directory,
        "modules": [
            {
                "module": probe.module,
                "alias": probe.alias,
                "builtin": probe.builtin,
                "found": reason_json(probe.found),
                "refused": None if probe.refused is None else reason_json(probe.refused),
                "steps": [step_json(step) for step in probe.steps],
            }
            for probe in plan.probes
        ],
    }


def removal_json(removal: Removal) -> dict[str, object]:
    return {
        "module": removal.module,
        "builtin": removal.builtin,
        "command": removal.command,
        "before": [removal_json(other) for other in removal.post],
        "after": [removal_json(other) for other in removal.pre],
        "then_unused": list(removal.dependencies),
        "loop": removal.loop,
        "reasons": [reason_json(reason) for reason in removal.reasons],
    }


def remove_plan_json(plan: RemovePlan) -> dict[str, object]:
    return {
        "request": plan.request,
        "directory": plan.directory,
        "modules": [removal_json(removal) for removal in plan.removals],
    }
