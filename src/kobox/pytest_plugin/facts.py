"""What a test's report says of the kernel that the test ran on. It travels with the report, also between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import pytest

from kobox.errors import GuestError

if TYPE_CHECKING:
    from kobox.box import Kernel

_ATTRIBUTE = "kobox_facts"


class Facts(TypedDict):
    """``taint``: letters, empty for none. ``log``: lines with their level, since the test began."""

    image: str
    kernel: str
    taint: str
    log: list[str]


def facts_of(kernel: Kernel, image: str | None) -> Facts:
    """Ask the kernel; to be called when the test's own code has ended."""
    from kobox.abi.taint import letters

    return Facts(image=image or "", kernel=kernel.release, taint=letters(kernel.tainted).strip(), log=log_of(kernel))


def log_of(kernel: Kernel) -> list[str]:
    """The log since the test began, one ``<level>[time] text`` per record. A module may have damaged it."""
    try:
        return [f"<{record.level}>{record}" for record in kernel.dmesg()]
    except GuestError as error:
        return [f"(the kernel's log cannot be read: {error})"]


def attach(report: pytest.TestReport, facts: Facts) -> None:
    """Put the facts into a report."""
    setattr(report, _ATTRIBUTE, facts)


def attached(report: pytest.TestReport) -> Facts | None:
    """The facts of a report, where there are some."""
    found: Facts | None = getattr(report, _ATTRIBUTE, None)
    return found


def junit_properties(facts: Facts) -> list[tuple[str, object]]:
    """As properties of a test in pytest's own ``--junitxml``."""
    return [
        ("kobox.image", facts["image"]),
        ("kobox.kernel", facts["kernel"]),
        ("kobox.taint", facts["taint"]),
        ("kobox.log", "\n".join(facts["log"])),
    ]
