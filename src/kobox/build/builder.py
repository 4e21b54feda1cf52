"""A folder of sources to modules, for one or more kernels: the steps around kbuild, and what came of them as a record.

Each pair of folder and release has a directory below the cache's ``work``: ``tree``, the copy in which kbuild works,
and ``state.json``, what it was made from. Results go to ``OUT/RELEASE``, each renamed into place when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kobox.build import kbuild, mirror, replay
from kobox.build.compiler import Compiler, find_compiler
from kobox.build.diagnostics import Diagnostic, read_diagnostics
from kobox.build.headers import Headers, find_headers
from kobox.errors import UsageError
from kobox.image import Cache
from kobox.image.cache import WORK, discard, locked
from kobox.image.image import Progress

FORMAT = 1
_NO_STATE: dict[str, Any] = {"facts": [], "sources": {}, "pending": [[], []], "ok": False, "based": False}
"""Of a build folder: what was built with, the sources' stamps, paths changed since the last success, whether the last
build succeeded, and whether kbuild's records are of a whole build."""
_STATE, _TREE, _SYMVERS = "state.json", "tree", "Module.symvers"
_UNUSED_DAYS = 60
_VARIABLE = re.compile(r"[A-Za-z_][\w.-]*=.*", re.DOTALL)
_OWN_VARIABLES = {"M", "CC", "KBUILD_EXTRA_SYMBOLS", "LLVM", "O", "MO"}
"""Make variables that kobox sets itself."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """``headers`` is a tree or root given by hand, ``root`` one whose lib/modules has them, ``out`` where results go
    (default: ``build`` in the folder), ``variables`` NAME=VALUE for make, ``symvers`` builds that these modules need:
    a folder of sources, a folder of results, or a Module.symvers. ``jobs`` compilers run at once."""

    headers: Path | None = None
    root: Path | None = None
    out: Path | None = None
    in_place: bool = False
    compiler: str | None = None
    variables: tuple[str, ...] = ()
    symvers: tuple[Path, ...] = ()
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    cache: Cache = field(default_factory=Cache)
    progress: Progress = lambda text: None


class BuildReport(NamedTuple):
    """What came of one kernel's build. ``how``: ``kbuild``, ``replay`` (its recorded commands), ``nothing`` (up to
    date). Seconds are of this build; ``link_seconds`` is what passed after the last compiler ended."""

    release: str
    ok: bool
    how: str
    modules: tuple[Path, ...]
    output: Path
    diagnostics: tuple[Diagnostic, ...]
    notes: tuple[str, ...]
    headers: str
    compiler: str
    seconds: float
    link_seconds: float
    text: str = ""
    """What the tools printed, for those who want it raw."""

    def as_data(self) -> dict[str, Any]:
        """The JSON of ``kobox build --json``."""
        return {
            "release": self.release,
            "ok": self.ok,
            "how": self.how,
            "modules": [str(path) for path in self.modules],
            "output": str(self.output),
            "diagnostics": [one.as_data() for one in self.diagnostics],
            "notes": list(self.notes),
            "headers": self.headers,
            "compiler": self.compiler,
            "seconds": round(self.seconds, 3),
            "link_seconds": round(self.link_seconds, 3),
        }


@dataclass(slots=True)
class Folder:
    """A folder of sources opened for one kernel; ``build`` may be called again and again, as its files change."""

    sources: Path
    headers: Headers
    compiler: Compiler
    options: BuildOptions
    work: Path
    output: Path

    @property
    def tree(self) -> Path:
        """Where kbuild works: the copy, or the sources themselves with ``in_place``."""
        return self.sources if self.options.in_place else self.work / _TREE

    def build(self) -> BuildReport:
        """Build what is out of date. The record says what the tools said; failing sources are no exception."""
        start = time.monotonic()
        with locked(self.options.cache.root, f"build-{self.work.parent.name}-{self.work.name}"):
            self.work.mkdir(parents=True, exist_ok=True)
            state = self._read_state()
            changes, stamps = self._sync(state)
            pending = state["pending"]  # what changed since the last build that succeeded
            changes = mirror.Changes(changes.modified | set(pending[0]), changes.others | set(pending[1]))
            if changes.inputs:  # noted before they have an effect, so that a killed build forgets none
                state |= {"sources": stamps, "pending": [sorted(changes.modified), sorted(changes.others)]}
                self._write_state(state | {"ok": False})
            how, ran = self._compile(state, changes)
            compiled = _newest_object(self.tree) if how != "nothing" else time.time()
            built = kbuild.modules_of(self.tree) if ran.code == 0 else []
            state |= {"sources": stamps, "ok": ran.code == 0, "based": state["based"] or ran.code == 0}
            state["pending"] = [[], []] if state["ok"] else [sorted(changes.modified), sorted(changes.others)]
            modules = self._publish(built) if built else ()
            self._write_state(state)
        diagnostics = read_diagnostics(ran.output, self._rename)
        if ran.code and not any(one.level == "error" for one in diagnostics):
            said = ran.output.strip().splitlines()[-1:] or [f"exit code {ran.code}"]
            diagnostics += (Diagnostic("error", f"make failed: {said[0]}"),)
        elif not ran.code and not built:
            diagnostics += (
                Diagnostic("error", "no module was built: no obj-m in Kbuild or Makefile", str(self.sources)),
            )
        return BuildReport(
            self.headers.release, bool(modules), how, modules, self.output, diagnostics, self._notes(),
            self.headers.where, self.compiler.version, time.monotonic() - start,
            max(0.0, time.time() - compiled) if modules else 0.0, ran.output,
        )  # fmt: skip

    def differs(self, path: Path) -> bool:
        """Whether a file of the sources is not as it was at the last build; what lies elsewhere always may."""
        if self.options.in_place or not path.is_relative_to(self.sources):
            return True
        copy = self.tree / path.relative_to(self.sources)
        try:
            return path.read_bytes() != copy.read_bytes()
        except OSError:
            return path.exists() or copy.exists()

    def _sync(self, state: dict[str, Any]) -> tuple[mirror.Changes, mirror.Stamps]:
        if self.options.in_place:
            return mirror.Changes(frozenset(), frozenset()), {}
        self.tree.mkdir(exist_ok=True)
        known = {path: (size, stamp) for path, (size, stamp) in state["sources"].items()}
        noted = self.work / _STATE
        since = noted.stat().st_mtime_ns if noted.exists() else None
        changes, stamps = mirror.sync(self.sources, self.tree, known, since)
        own = mirror.kbuild_for(self.sources, stamps)
        if own is not None:
            _write_if_changed(self.tree / "Kbuild", own)
        elif "Kbuild" not in stamps:
            (self.tree / "Kbuild").unlink(missing_ok=True)  # ours, from before there was a Makefile; it would win
        return changes, stamps

    def _compile(self, state: dict[str, Any], changes: mirror.Changes) -> tuple[str, kbuild.Ran]:
        """Do the least that brings the modules up to date: nothing, kbuild's recorded commands, or kbuild."""
        facts = [FORMAT, *self.headers.identity, self.compiler.program, self.compiler.version, *self.compiler.variables]
        facts += [*self._symver_facts(), *self.options.variables, os.environ.get("KCFLAGS", "")]
        based = state["facts"] == facts and state["based"] and not self.options.in_place
        if based and state["ok"] and not changes.inputs:
            return "nothing", kbuild.Ran(0, "")
        if based:
            recipe = replay.read_recipe(self.tree, self.headers.directory)
            if recipe is not None and recipe.covers(changes):
                ran = recipe.run(changes.inputs, self.options.jobs)
                if ran is not None and (ran.code == 0 or _blames_sources(read_diagnostics(ran.output))):
                    return "replay", ran
        state |= {"facts": facts, "ok": False, "based": False}
        self._write_state(state | {"sources": {}})  # until it is over: a killed build is no base to go on from
        command = kbuild.make_command(
            self.headers, self.compiler, self.tree, sources=self.sources, variables=self.options.variables,
            symvers=self._symvers(), jobs=self.options.jobs,
        )  # fmt: skip
        return "kbuild", kbuild.run(command)

    def _publish(self, built: Sequence[Path]) -> tuple[Path, ...]:
        """Put results where they belong; files that are the same stay as they are."""
        if self.options.in_place:
            return tuple(built)
        self.output.mkdir(parents=True, exist_ok=True)
        targets = {module: self.output / module.relative_to(self.tree) for module in built}
        symvers = self.tree / _SYMVERS
        for source, target in {**targets, symvers: self.output / _SYMVERS}.items():
            if source.is_file():
                _copy_if_changed(source, target)
        record = {
            "release": self.headers.release,
            "compiler": self.compiler.version,
            "sources": str(self.sources),
            "modules": sorted(str(target.relative_to(self.output)) for target in targets.values()),
        }
        self._drop_old(record["modules"])
        _write_if_changed(self.output / mirror.RECORD, json.dumps(record, indent=1) + "\n")
        return tuple(targets.values())

    def _drop_old(self, modules: Sequence[str]) -> None:
        """Remove modules of an earlier build that the sources no longer have."""
        file = self.output / mirror.RECORD
        try:
            before = json.loads(file.read_text())["modules"]
        except (OSError, ValueError, KeyError):
            return
        for name in set(before) - set(modules):
            path = self.output / name
            if path.suffix == ".ko" and ".." not in path.parts:
                path.unlink(missing_ok=True)

    def _notes(self) -> tuple[str, ...]:
        notes = [self.compiler.difference, *self.compiler.notes]
        if not (self.headers.directory / _SYMVERS).is_file():
            notes.append(f"{self.headers.directory} has no Module.symvers: symbols and versions are not checked")
        return tuple(filter(None, notes))

    def _symvers(self) -> list[Path]:
        return [_symvers_in(path, self.headers.release) for path in self.options.symvers]

    def _symver_facts(self) -> list[object]:
        files = self._symvers()
        return [fact for file in files for fact in (str(file), file.stat().st_mtime_ns)]

    def _rename(self, text: str) -> str:
        return text if self.options.in_place else text.replace(f"{self.tree}/", f"{_shown(self.sources)}")

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.work / _STATE).read_text())
            return {name: state[name] for name in _NO_STATE}
        except (OSError, ValueError, KeyError, TypeError):
            discard(self.work / _TREE)  # not known what it was made from
            return dict(_NO_STATE)

    def _write_state(self, state: dict[str, Any]) -> None:
        _write(self.work / _STATE, json.dumps(state).encode())


def open_folder(sources: Path, release: str, options: BuildOptions) -> Folder:
    """Find what building ``sources`` for a release needs. Errors say what is missing and where it comes from."""
    sources = _checked(sources, options)
    headers = find_headers(release, given=options.headers, root=options.root, progress=options.progress)
    compiler = find_compiler(headers, options.compiler)
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', sources.name)}-{hashlib.sha256(os.fsencode(sources)).hexdigest()[:12]}"
    work = options.cache.root / WORK / name / release
    output = sources if options.in_place else (options.out or sources / "build").absolute() / release
    _forget_unused(options.cache.root / WORK)
    return Folder(sources, headers, compiler, options, work, output)


def build_modules(
    sources: Path, releases: Sequence[str], options: BuildOptions, done: Callable[[BuildReport], None] | None = None
) -> tuple[BuildReport, ...]:
    """Build for each release, several at once; a failure of one does not stop the others."""
    if options.in_place and len(releases) > 1:
        raise UsageError("--in-place builds for one kernel at a time", "leave out --in-place")
    folders = [open_folder(sources, release, options) for release in releases]
    at_once = max(1, min(len(folders), options.jobs))
    with ThreadPoolExecutor(at_once) as pool:
        reports = []
        for report in pool.map(Folder.build, folders):
            reports.append(report)
            if done is not None:
                done(report)
    return tuple(reports)


def _checked(sources: Path, options: BuildOptions) -> Path:
    if not sources.is_dir():
        what = "not a directory" if sources.exists() else "no such directory"
        raise UsageError(f"{sources}: {what}", "name the folder of the module's sources")
    for variable in options.variables:
        if not _VARIABLE.fullmatch(variable):
            raise UsageError(f"{variable!r} is no NAME=VALUE for make")
        if variable.split("=", 1)[0] in _OWN_VARIABLES:
            raise UsageError(f"{variable.split('=', 1)[0]} is set by kobox", "see --cc, --symvers, --in-place")
    if options.in_place and options.out is not None:
        raise UsageError("--in-place leaves the modules beside their sources; --output does not go with it")
    resolved = sources.resolve()
    if options.in_place and re.search(r"[\s:]", str(resolved)):
        raise UsageError(f"{resolved}: kbuild cannot work in a path with blanks or colons", "leave out --in-place")
    return resolved


def _symvers_in(path: Path, release: str) -> Path:
    """The Module.symvers that a user means by a folder of sources or results, or by the file."""
    for candidate in (path, path / "build" / release / _SYMVERS, path / release / _SYMVERS, path / _SYMVERS):
        if candidate.is_file():
            return candidate.resolve()
    raise UsageError(f"{path}: no Module.symvers for {release} in it", f"kobox build {path} --image {release}")


def _shown(sources: Path) -> str:
    """The folder as a prefix of paths: empty for the current one, relative below it."""
    here = Path.cwd()
    if sources == here:
        return ""
    return f"{sources.relative_to(here)}/" if sources.is_relative_to(here) else f"{sources}/"


def _blames_sources(diagnostics: Sequence[Diagnostic]) -> bool:
    """Whether a failure is the sources' own: kbuild would say the same, only later."""
    return any(one.level == "error" and (one.line or "undefined!" in one.text) for one in diagnostics)


def _newest_object(tree: Path) -> float:
    """When the compiler ended last: the newest time stamp of an object that has a source, a .mod.o's included."""
    stamps = [
        file.stat().st_mtime
        for file in tree.rglob("*.o")
        if any(file.with_suffix(suffix).exists() for suffix in (".c", ".S", ".rs"))
    ]
    return max(stamps, default=time.time())


def _forget_unused(work: Path) -> None:
    """Drop copies that nobody has built in for a long time; their sources may be gone."""
    if not work.is_dir():
        return
    for state in work.glob(f"*/*/{_STATE}"):
        if time.time() - state.stat().st_mtime > _UNUSED_DAYS * 86400:
            discard(state.parent)


def _copy_if_changed(source: Path, target: Path) -> None:
    data = source.read_bytes()
    try:
        if target.read_bytes() == data:
            return
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, data)


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        _write(path, text.encode())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a temporary file beside it, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
