"""What a step of linking says: log lines, taints, and the refusal that ends a load.

A step hands back its findings in the order in which the kernel would have produced them, so that whoever drives the
load can print and taint at the right moments. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from kobox.errors import Errno


class Level(IntEnum):
    """printk levels that linking uses."""

    ERR = 3
    WARNING = 4
    NOTICE = 5


class TaintBit(IntEnum):
    """Bits of the kernel's and of a module's taint that loading can set."""

    PROPRIETARY = 0
    FORCED = 1
    CRAP = 10
    OOT = 12
    UNSIGNED = 13
    LIVEPATCH = 15
    TEST = 18


class LogLine(NamedTuple):
    """One line for the kernel log. ``once``: the kernel prints it only once in a boot."""

    level: int
    text: str
    once: bool = False


class Taint(NamedTuple):
    """A taint being set. ``of_module``: on the module as well; ``lockdep_off``: it ends lock debugging."""

    bit: TaintBit
    of_module: bool = True
    lockdep_off: bool = False


Finding = LogLine | Taint


def lines(findings: Iterable[Finding]) -> list[LogLine]:
    """The log lines among ``findings``."""
    return [finding for finding in findings if isinstance(finding, LogLine)]


class Refusal(Errno):
    """The kernel refuses the module: ``number`` is the errno, ``findings`` what it logged and tainted before, in order.

    ``crash`` says that a real kernel does not refuse here but reads or writes memory that is not the module's.
    """

    def __init__(
        self,
        number: int,
        findings: Sequence[Finding] = (),
        why: str = "",
        hint: str | None = None,
        crash: bool = False,
    ) -> None:
        self.findings = tuple(findings)
        self.crash = crash
        said = [line.text for line in lines(findings)]
        super().__init__(number, why or "; ".join(said), hint)

    @property
    def log(self) -> list[LogLine]:
        return lines(self.findings)
