"""The records of a verdict: reasons in the order in which a load meets them, notes, and the answer they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

KERNEL, MODPROBE = "kernel", "modprobe"

STEPS: tuple[str, ...] = (
    "modprobe", "permission", "signature", "check", "allocate", "name", "unsigned", "tables", "link", "form",
    "coming", "parameters", "sysfs", "taint",
)  # fmt: skip
"""The steps of a load in order, by the loader's names; before them what modprobe decides, and behind them a kernel
that stops at a taint."""


class Line(NamedTuple):
    """A line that the kernel logs."""

    level: int
    text: str


class Reason(NamedTuple):
    """One thing that keeps the module from loading.

    ``rule`` is a stable identifier, ``by`` who refuses, ``step`` where in a load it is met, ``errno`` the positive
    number of its own (0: a program's refusal, or a crash). ``log`` are the lines the kernel prints for it. ``items``
    are what it is about, one record each: symbols, words of the vermagic, parameters.
    """

    rule: str
    step: str
    errno: int
    text: str
    fix: str
    log: tuple[Line, ...] = ()
    by: str = KERNEL
    items: tuple[Mapping[str, Any], ...] = ()


class Note(NamedTuple):
    """Worth knowing, and no reason to fail: what would be tainted, ignored or needed."""

    rule: str
    text: str


class Needed(NamedTuple):
    """A module that is loaded first. ``path`` is empty for one that is there already."""

    name: str
    path: str
    symbols: int
    loads: bool = True


class Verdict(NamedTuple):
    """The answer for one file on one kernel.

    ``loads``: modprobe and the kernel go as far as the module's init function, whose answer is its own. ``errno`` is
    what the system call gives (0 when ``loads``, or when no system call is made or the kernel crashes), ``log`` what
    the kernel prints until then. ``taint`` is the kernel's mask afterwards, ``module_taint`` the module's own.
    """

    file: str
    module: str
    target: str
    release: str
    loads: bool
    errno: int
    reasons: tuple[Reason, ...] = ()
    notes: tuple[Note, ...] = ()
    needed: tuple[Needed, ...] = ()
    log: tuple[Line, ...] = ()
    taint: int = 0
    module_taint: int = 0
    facts: Mapping[str, Any] = MappingProxyType({})
    """What the file says of itself: ``vermagic``, ``license``, ``signer`` and the like."""


class Subject(NamedTuple):
    """A module file. ``data`` is unpacked, its signature still at its end; ``compression`` names what it was in."""

    file: str
    data: bytes
    compression: str | None = None
