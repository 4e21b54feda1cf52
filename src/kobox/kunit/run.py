"""Run the tests of module files, each file in a fresh kernel, and collect what they said."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobox.box import BARE, Kernel, boot
from kobox.errors import UsageError
from kobox.ko import read_module
from kobox.kunit.ktap import Ktap, read_ktap, renumbered
from kobox.runner import RunReport, choose_image, run_in

_WARNING = "warning"
"""The kind of an oops record that a WARN makes."""


@dataclass(frozen=True, slots=True)
class ModuleTests:
    """What became of one file. ``adopted``: kobox's own functions that were called, with their fidelity."""

    file: str
    run: RunReport
    ktap: Ktap
    adopted: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """The kernel's log, line by line."""
        return [line for _, _, text in self.run.log for line in text.split("\n")]

    @property
    def ok(self) -> bool:
        """Every test that was announced ended and did not fail, and there was one; nothing else went wrong."""
        return not self.why and all(suite.status != "fail" for suite in self.ktap.suites)

    @property
    def why(self) -> str:
        """What went wrong besides tests that failed; empty where nothing did. A WARN may be what a test wanted."""
        warned = self.run.oops is not None and self.run.oops["kind"] == _WARNING
        if self.run.reason and not (warned and self.run.result == 0):
            return f"{self.run.errno_name}: {self.run.reason}" if self.run.errno_name else self.run.reason
        if self.ktap.missing:
            return f"{self.ktap.missing} suites never ended"
        if not self.ktap.suites:
            return "no tests in it"
        if self.run.unloaded is False:
            return "could not be unloaded"
        return "it left or misused memory" if self.run.leaks or self.run.memory else ""

    def as_data(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "module": self.run.module,
            "image": self.run.image,
            "ok": self.ok,
            "result": self.run.result,
            "errno_name": self.run.errno_name,
            "why": self.why,
            "suites": [suite.as_data() for suite in self.ktap.suites],
            "adopted": self.adopted,
            "leaks": list(self.run.leaks),
            "memory": list(self.run.memory),
            "oops": self.run.oops,
            "seconds": round(self.run.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class TestReport:
    """All files of one command."""

    modules: tuple[ModuleTests, ...]

    @property
    def ok(self) -> bool:
        return all(module.ok for module in self.modules)

    def counts(self) -> Counter[str]:
        """pass, fail and skip of the innermost tests, each parameter of a case being one."""
        suites = (suite for module in self.modules for suite in module.ktap.suites)
        return Counter(test.status for suite in suites for test in suite.leaves())

    def as_data(self) -> dict[str, Any]:
        counts = self.counts()
        return {
            "ok": self.ok,
            "summary": {name: counts[name] for name in ("pass", "fail", "skip")},
            "modules": [module.as_data() for module in self.modules],
        }

    def ktap_lines(self) -> Iterator[str]:
        """One document. A module that went wrong as a whole is a failed test of its own at the end of its suites."""
        yield "KTAP version 1"
        yield f"1..{sum(len(module.ktap.suites) + bool(module.why) for module in self.modules)}"
        number = 1
        for module in self.modules:
            yield from renumbered(module.lines, number)
            number += len(module.ktap.suites)
            if module.why:
                yield from (f"# {line}" for line in module.why.splitlines())
                if module.run.oops_text:
                    yield from (f"# {line}".rstrip() for line in module.run.oops_text.splitlines())
                yield f"not ok {number} {module.run.module}"
                number += 1


def run_tests(
    files: Sequence[str | os.PathLike[str]],
    *,
    image: str | None = None,
    root: str | None = None,
    append: str = "",
    progress: Callable[[str], None] | None = None,
    ended: Callable[[ModuleTests], None] = lambda module: None,
) -> TestReport:
    """Load each file with what it needs into a fresh kernel, which runs its tests, and unload it again.

    Without ``image``, each file gets an added image of its own release. ``UsageError`` where there is none.
    """
    kernels: dict[str, Kernel] = {}
    found = []
    try:
        for file in files:
            choice = choose_image(read_module(file), image)
            if choice.image == BARE:
                raise UsageError(f"{os.fspath(file)}: tests need a kernel image", choice.why)
            kernel = kernels.get(choice.image)
            if kernel is None:
                kernel = kernels[choice.image] = boot(choice.image, append=append, progress=progress)
                kernel.mark_pristine()
            else:
                kernel.reset()
            run = run_in(kernel, Path(file), root=root, why=choice.why)
            module = ModuleTests(os.fspath(file), run, Ktap(()), kernel.adopted_hit())
            module = ModuleTests(module.file, run, read_ktap(module.lines), module.adopted)
            ended(module)
            found.append(module)
    finally:
        for kernel in kernels.values():
            kernel.close()
    return TestReport(tuple(found))
