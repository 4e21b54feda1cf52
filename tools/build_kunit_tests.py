"""Build every KUnit test of a kernel source that compiles as one module against a distribution's headers.

A test is a C file that declares suites and its licence. What does not compile, or needs a file of its driver's, is left
out and said why. The modules keep their debug data: it says where the members of KUnit's structures lie.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kernel_headers

from kobox.build.headers import Headers

_ROOMS = ("lib", "kernel", "mm", "fs", "drivers", "net", "security", "sound")
_NOT_ALONE = frozenset({"executor.c", "executor_test.c", "string-stream-test.c", "assert_test.c", "test.c"})
"""Parts of the core, and tests that are linked into it."""
_ERROR = re.compile(r"(\S+\.c):\d+:\d+: (?:fatal )?error: (.*)")
_ANY_ERROR = re.compile(r"\[\S+: (\S+)\.o\] Error")


@dataclass(frozen=True, slots=True)
class Built:
    """``modules`` by the path of their source in the tree; ``left_out``: why, for the others."""

    modules: dict[str, Path]
    left_out: dict[str, str]


def find_tests(tree: Path) -> list[Path]:
    """The C files of tests, relative to the tree."""
    found = []
    for room in _ROOMS:
        for path in sorted((tree / room).rglob("*.c")):
            text = path.read_text(errors="replace")
            if "kunit_test_suite" in text and "MODULE_LICENSE" in text and path.name not in _NOT_ALONE:
                found.append(path.relative_to(tree))
    return found


def build_kunit_tests(headers: Headers, tree: Path, work: Path, tests: Sequence[Path] | None = None) -> Built:
    """Compile ``tests`` (default: all) in ``work``, an empty folder."""
    wanted = list(tests) if tests is not None else find_tests(tree)
    shutil.copytree(tree, work, symlinks=True, dirs_exist_ok=True)
    left_out: dict[str, str] = {}
    while True:
        _write_kbuild(work, [test for test in wanted if str(test) not in left_out])
        try:
            kernel_headers.make_modules(headers, work, variables=["KBUILD_MODPOST_WARN=1"], keep_going=True)
            break
        except subprocess.CalledProcessError as error:
            new = _reasons(work, error.stdout + error.stderr)
            if not new.keys() - left_out.keys():
                raise
            left_out = new | left_out
    modules = {str(test): work / test.with_suffix(".ko") for test in wanted if str(test) not in left_out}
    return Built(modules, left_out)


def _write_kbuild(work: Path, tests: Sequence[Path]) -> None:
    folders = sorted({test.parent for test in tests})
    (work / "Kbuild").write_text("".join(f"obj-m += {folder}/\n" for folder in folders))
    for folder in folders:
        (work / folder / "Makefile").unlink(missing_ok=True)
        names = [test.stem for test in tests if test.parent == folder]
        (work / folder / "Kbuild").write_text("".join(f"obj-m += {name}.o\n" for name in names))


def _reasons(work: Path, said: str) -> dict[str, str]:
    reasons: dict[str, str] = {}
    prefix = f"{work}/"
    for source, text in _ERROR.findall(said):
        reasons.setdefault(source.removeprefix(prefix), text)
    for source in _ANY_ERROR.findall(said):
        reasons.setdefault(f"{source.removeprefix(prefix)}.c", "does not compile")
    return reasons
