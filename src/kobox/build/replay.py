"""A changed C file without make: kbuild's own recorded commands, run again for what the change reaches.

kbuild keeps each command with what it read in ``.NAME.cmd``. make needs half a second to find that one file changed,
most of it asking the compiler what it can; the commands themselves take a fraction of that. Only contents of C files
that were there may have changed (``covers``); everything else is left to kbuild, as is any file whose record cannot be
read. The order of steps follows scripts/Makefile.build, Makefile.modpost and Makefile.modfinal.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kobox.build import kbuild
from kobox.build.kbuild import Ran
from kobox.build.mirror import Changes, is_input
from kobox.elf import parse
from kobox.errors import BadFile

_COMMAND = re.compile(r"^(?:saved)?cmd_(?P<target>\S+) := (?P<text>.*)$", re.MULTILINE)
_WORD = re.compile(r"(?<![\w$(])@?(/?[\w.][\w./+,@%~-]*)")
_SOURCES = (".c", ".h", ".S")
_FIXDEP = "scripts/basic/fixdep"


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded command: ``target`` is the file it makes, ``reads`` what it was made from, below the tree."""

    target: Path
    text: str
    cwd: Path
    reads: frozenset[Path]
    compiles: bool

    @property
    def shell(self) -> str:
        """The command as make would hand it to the shell."""
        return self.text.replace("$(pound)", "#").replace("$$", "$")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The commands that made a tree's modules."""

    tree: Path
    directory: Path
    objects: tuple[Step, ...]
    joins: tuple[Step, ...]
    symvers: Step
    finals: tuple[tuple[Step, Step], ...]
    """Of each module: compiling its .mod.c, and linking it."""
    exported: Mapping[str, str]

    def covers(self, changes: Changes) -> bool:
        """Whether the change is one that kbuild would answer with these commands."""
        return not any(map(is_input, changes.others)) and all(path.endswith(_SOURCES) for path in changes.inputs)

    def run(self, changed: frozenset[str], jobs: int) -> Ran | None:
        """Bring the modules up to date; None when the records do not say how."""
        touched = {self.tree / path for path in changed}
        due = [step for step in self.objects if step.reads & touched or not step.target.is_file()]
        fresh = {step.target for step in due}
        joined = [step for step in self.joins if step.reads & fresh or _is_stale(step)]
        fresh |= {step.target for step in joined}
        used = {path for step in (*joined, *(link for _, link in self.finals)) for path in step.reads}
        if not fresh <= used:
            return None
        output: list[str] = []
        with ThreadPoolExecutor(max(1, jobs)) as pool:
            codes = [self._told(ran, output) for ran in pool.map(self._make, due)]
        if any(codes):
            return Ran(max(codes, default=0), "".join(output))
        for step in self._links(joined, fresh):
            if code := self._told(self._make(step), output):
                return Ran(code, "".join(output))
        return Ran(0, "".join(output))

    def _links(self, joined: Sequence[Step], fresh: set[Path]) -> Iterator[Step]:
        """What follows the compiler, in order. modpost writes a .mod.c only when it would be another one."""
        yield from joined
        yield self.symvers
        for compile_mod, link in self.finals:
            source = compile_mod.target.with_suffix(".c")
            if _is_older(compile_mod.target, source):
                yield compile_mod
            if link.reads & fresh or _is_stale(link):
                yield link

    def _told(self, ran: Ran, output: list[str]) -> int:
        output.append(ran.output)
        return ran.code

    def _make(self, step: Step) -> Ran:
        """Run one command as kbuild does: a failing one leaves no target, a compiler's dependencies are noted."""
        ran = kbuild.run(["sh", "-ec", step.shell], step.cwd, self.exported)
        if ran.code:
            step.target.unlink(missing_ok=True)
        elif step.compiles:
            self._note_dependencies(step)
        return ran

    def _note_dependencies(self, step: Step) -> None:
        depfile, record = _beside(step.target, "d"), _beside(step.target, "cmd")
        if not depfile.is_file():
            return
        named = _COMMAND.search(record.read_text())
        target = named["target"] if named else str(step.target)
        line = [self.directory / _FIXDEP, depfile, target, step.text]
        ran = subprocess.run(line, cwd=step.cwd, capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            record.write_text(ran.stdout)
            depfile.unlink()
        else:
            record.unlink()  # kbuild then compiles it anew


def read_recipe(tree: Path, directory: Path) -> Recipe | None:
    """The commands of the last kbuild run in ``tree`` against the headers in ``directory``; None where its records do
    not tell all of it."""
    modules = kbuild.modules_of(tree)
    symvers = _step(tree / "Module.symvers", directory)
    if not modules or symvers is None or any(_has_btf(module) for module in modules):
        return None  # type data of modules is made by a step that is not recorded
    finals = []
    for module in modules:
        pair = _step(module.with_suffix(".mod.o"), directory), _step(module, directory)
        if pair[0] is None or pair[1] is None:
            return None
        finals.append((pair[0], pair[1]))
    records = [record for record in tree.rglob(".*.o.cmd") if not record.name.endswith(".mod.o.cmd")]
    steps = [_step(record.with_name(record.name[1:].removesuffix(".cmd")), directory) for record in records]
    if None in steps:
        return None
    known = {step.target: step for step in steps if step is not None}
    needed = {path for _, link in finals for path in link.reads}
    needed |= {path for path in needed if path in known for path in known[path].reads}
    used = [step for target, step in known.items() if target in needed]  # others are of an earlier Makefile
    compiled = tuple(step for step in used if step.compiles)
    joins = tuple(step for step in used if not step.compiles)
    return Recipe(tree, directory, compiled, joins, symvers, tuple(finals), kbuild.exported_by_make(directory))


def _step(target: Path, directory: Path) -> Step | None:
    try:
        text = _beside(target, "cmd").read_text()
    except OSError:
        return None
    match = _COMMAND.search(text)
    if match is None or "\\\n" in match[0]:
        return None
    cwd = directory if match["target"].startswith("/") else _tree_of(target, match["target"])
    if cwd is None:
        return None
    reads = frozenset(Path(os.path.normpath(cwd / word)) for word in _read_words(text, match["text"], cwd))
    return Step(target, match["text"], cwd, reads, "\nsource_" in text or "\ndeps_" in text)


def _tree_of(target: Path, named: str) -> Path | None:
    """The directory in which the command ran when it names its target by a relative path."""
    depth = len(Path(named).parts)
    folder = target.parents[depth - 1]
    return folder if folder / named == target else None


def _read_words(text: str, command: str, cwd: Path) -> Iterator[str]:
    """Paths in the command, those in a list that it names (``@hello.mod``), and those that the compiler was seen to
    read (the rest of the record)."""
    for match in _WORD.finditer(command):
        yield match[1]
        if match[1].endswith(".mod") and (cwd / match[1]).is_file():
            yield from (cwd / match[1]).read_text().split()
    for line in text.split("\n")[1:]:
        word = line.strip().removesuffix("\\").strip()
        if word.startswith("source_"):
            word = word.partition(":=")[2].strip()
        if word and not word.startswith(("$", "#")) and " " not in word:
            yield word


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(f".{target.name}.{ending}")


def _is_stale(step: Step) -> bool:
    """Whether an object that the step reads was made after its target."""
    return any(path.suffix == ".o" and path != step.target and _is_older(step.target, path) for path in step.reads)


def _is_older(target: Path, source: Path) -> bool:
    try:
        return not target.is_file() or target.stat().st_mtime_ns < source.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _has_btf(module: Path) -> bool:
    try:
        return any(section.name == ".BTF" for section in parse(module.read_bytes(), str(module)).sections)
    except BadFile:
        return True
