"""kbuild, run: the command line, its output, and how its ``.NAME.cmd`` files and ``modules.order`` name things."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kobox.build.compiler import Compiler
from kobox.build.headers import Headers

_FLAGS = "KCFLAGS"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_OF_A_MAKE_ABOVE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
_PLAIN = re.compile(r"[\w/.,+@%~-]+")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run of kbuild or of one of its commands."""

    code: int
    output: str


def make_command(
    headers: Headers,
    compiler: Compiler,
    tree: Path,
    *,
    sources: Path,
    variables: Sequence[str] = (),
    symvers: Sequence[Path] = (),
    jobs: int = 1,
) -> list[str]:
    """The command that builds the modules of ``tree``. Debug data and ``__FILE__`` name ``sources`` instead of it;
    ``variables`` are NAME=VALUE for make, ``symvers`` are Module.symvers of modules that these need."""
    given = dict(variable.split("=", 1) for variable in variables)
    mapped = tree != sources and _PLAIN.fullmatch(f"{tree}{sources}")  # make and the shell split at other characters
    flags = [f"-ffile-prefix-map={tree}={sources}"] if mapped else []
    if not headers.config.enabled("DEBUG_INFO"):
        flags.append("-g")  # where a crash happened is told by lines, which most kernels' configuration asks for
    flags.append(given.pop(_FLAGS, os.environ.get(_FLAGS, "")))
    own = [*(f"{name}={value}" for name, value in given.items()), *compiler.variables]
    if symvers:
        own.append(f"KBUILD_EXTRA_SYMBOLS={' '.join(map(str, symvers))}")
    if _is_clang(compiler):
        own.append("LLVM=1")
    return [
        *("make", f"-j{jobs}", "--output-sync=target", "-C", str(headers.directory), "-f", str(headers.makefile)),
        *(f"M={tree}", f"CC={compiler.program}", f"{_FLAGS}={' '.join(filter(None, flags))}", *own, "modules"),
    ]


def run(command: Sequence[str], folder: Path | None = None, exported: Mapping[str, str] = _NOTHING) -> Ran:
    """Run it to its end; messages in English, since they are read. ``exported`` are further variables for it."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_MAKE_ABOVE}
    done = subprocess.run(
        command, cwd=folder, env={**environment, **exported, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return Ran(done.returncode, done.stderr + "".join(_told_on_stdout(done.stdout)))


def exported_by_make(directory: Path) -> dict[str, str]:
    """What kbuild's makefiles export and the programs that they run look at, for a tree of headers."""
    arches = [path.parents[1].name for path in directory.glob("arch/*/include/generated")]
    return {"ARCH": arches[0], "SRCARCH": arches[0], "objtree": "."} if arches else {}


def modules_of(tree: Path) -> list[Path]:
    """The modules that kbuild made, in its order."""
    order = tree / "modules.order"
    if not order.is_file():
        return []
    found = []
    for line in order.read_text().split():
        path = Path(line)
        module = (path if path.is_absolute() else tree / path).with_suffix(".ko")
        if module.is_file():
            found.append(module)
    return found


def _told_on_stdout(text: str) -> list[str]:
    """Remarks that some tools make there; the rest are the short names of what is done."""
    return [f"{line}\n" for line in text.splitlines() if ": warning: " in line or ": error: " in line]


def _is_clang(compiler: Compiler) -> bool:
    return "clang" in compiler.version
