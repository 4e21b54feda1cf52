"""depmod: from a tree of modules to its index files. The steps, in order; each lives in a file of its own.

``depmod_config`` (depmod.d) → ``depmod_search`` (which modules, in which order) → ``module_facts`` (what is in them)
→ ``depmod_graph`` (what needs what) → ``depmod_write`` (the files). ``depmod_symbols`` takes over where every symbol
is asked about; ``depmod_cache`` remembers what need not be done again. Reading and writing are spread over processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kobox.depot.depmod_cache import NOTHING, Memory, Remembered, Remembrance, Stamp, is_as_left, stamp
from kobox.depot.depmod_config import DEPMOD_DIRS, Report, read_search_rules
from kobox.depot.depmod_graph import Cycles, all_needs, direct_needs, load_ranks, owners_of_symbols
from kobox.depot.depmod_search import DepmodError, Module, find_modules, in_load_order, modules_of_paths
from kobox.depot.depmod_symbols import SymbolCheck, checked_needs, read_symvers, read_system_map
from kobox.depot.depmod_write import (
    FILES,
    Indexed,
    Rendered,
    Style,
    alias_files,
    dep_files,
    publish,
    small_files,
    symbol_files,
    touch,
)
from kobox.depot.index_write import CHILDREN_FIRST
from kobox.depot.module_facts import Facts, Row, facts_row, facts_unless_same, listed
from kobox.depot.names import MODULE_SUFFIXES
from kobox.depot.parallel import Child, parallel_map, processors

GROUPS: dict[str, str] = {
    "dep": "exports needs",
    "alias": "aliases",
    "symbols": "exports",
    "small": "aliases softdeps weakdeps",
}
"""Files that are made together, and the facts they are made from. In this order their messages are told."""

_WORTH_A_PROCESS = 256
"""How many modules one more process has to have to be worth its start."""

_NEVER: Stamp = (-1, -1, -1, -1)
"""The stamp of no file."""

Needs = list[list[int]]
Messages = list[tuple[str, str]]


class DepmodOptions(NamedTuple):
    """What to index and how. Every field has kmod's default."""

    tree: str
    """The release's directory, as messages should show it."""
    release: str
    output: str | None = None
    """Where files are written; the tree itself if None."""
    paths: Sequence[str] = ()
    """Index only these files (absolute paths) instead of the whole tree."""
    config: Sequence[str] = DEPMOD_DIRS
    root: str = ""
    """The system whose directories depmod.d's ``external`` means, and as which it sees them; "" is this host."""
    symvers: str | None = None
    system_map: str | None = None
    report_unknown: bool = False
    verbose: bool = False
    dry_run: bool = False
    symbol_prefix: str = ""
    warn_duplicates: bool = False
    order: str = CHILDREN_FIRST
    processes: int = 0
    """How many to use; 0 for one per CPU."""
    cache: str | None = None
    """kobox's cache directory, to remember this run and to use the last one; None for neither."""


class DepmodResult(NamedTuple):
    """What was done."""

    modules: Sequence[Module]
    read: int
    """How many modules had to be read; the others were remembered."""
    written: tuple[str, ...]
    """Names of the files that were replaced; the others are as they have to be."""
    text: bytes = b""
    """With ``dry_run``: everything that would stand in text files, one after the other."""


def ignore(level: str, text: str) -> None:
    """A ``Report`` that drops everything."""


def depmod(options: DepmodOptions, report: Report = ignore, show: Callable[[str], None] | None = None) -> DepmodResult:
    """Index a tree. ``report`` hears kmod's warnings and errors, ``show`` the lines of ``verbose``.

    Raises ``DepmodError`` when there is no index to write or it can't be written; then the old one is untouched.
    """
    return _Run(options, report, show or (lambda line: None)).run()


class _Run:
    def __init__(self, options: DepmodOptions, report: Report, show: Callable[[str], None]) -> None:
        self.options, self.report, self.show = options, report, show
        self.processes = options.processes or processors()
        self.output = options.tree if options.output is None else options.output
        self.style = Style(None if options.dry_run else options.order, options.warn_duplicates)
        self.modules: list[Module] = []
        self.read_rows: list[Row] = []
        """What is in each module, in the order of ``modules``."""
        self.state = NOTHING
        self.rows: dict[str, Remembrance] = {}
        self.memory: Memory | None = None
        if options.cache is not None and not options.paths and not options.dry_run:
            flavour = f"{options.order} {options.warn_duplicates}"
            self.memory = Memory(options.cache, options.tree, self.output, flavour)

    def run(self) -> DepmodResult:
        options = self.options
        kernel = self._kernel_symbols()
        self.modules = self._find()
        if self.memory is not None:
            self.state = self.memory.recall()
        read = self._read()
        for module, row in zip(self.modules, self.read_rows, strict=True):
            if row[5]:
                self.report("ERROR", f"failed to load symbols from {module.path}: {os.strerror(row[5])}")
        stale = self._stale_groups(kernel)
        files, messages = self._render(kernel, stale)
        if options.dry_run:
            return DepmodResult(self.modules, read, (), _shown(files))
        ordered = {name: files[name] for name in FILES if name in files}
        self._publish(ordered)
        if self.memory is not None and (read or ordered):
            self.memory.remember(self._new_state(messages))
        return DepmodResult(self.modules, read, tuple(ordered))

    # -- reading ------------------------------------------------------------------------------------------------------

    def _kernel_symbols(self) -> dict[bytes, int] | None:
        """The kernel's own symbols if their file is given; None when unknown symbols can't be told."""
        options = self.options
        prefix = os.fsencode(options.symbol_prefix)
        if options.symvers is not None:
            return read_symvers(options.symvers, prefix, self.report)
        if options.system_map is not None:
            return read_system_map(options.system_map, prefix, self.report)
        if options.report_unknown:
            self.report("WARNING", "-e needs -E or -F")
        return None

    def _find(self) -> list[Module]:
        options = self.options
        if options.paths:
            found = modules_of_paths(options.paths, options.tree, self.report)
        else:
            rules = read_search_rules(options.config, options.release, self.report)
            found = find_modules(options.tree, rules, self.report, options.root)
        return in_load_order(found, options.tree, self.report)

    def _read(self) -> int:
        """Fill ``read_rows`` and ``rows``, from memory where that is as good; how many files were read."""
        known, rows = self.state.rows, self.rows
        if self.memory is None:
            self.read_rows = self._map(facts_row, [module.path for module in self.modules])
            return len(self.modules)
        stamps = [stamp(module.path) for module in self.modules]
        todo: list[tuple[str, bytes]] = []
        for module, now in zip(self.modules, stamps, strict=True):
            row = known.get(module.path)
            if row is None or row[0] != now:
                todo.append((module.path, row[1] if row else b""))
        fresh = dict(zip([path for path, _ in todo], self._map(_facts_of_job, todo), strict=True))
        for module, now in zip(self.modules, stamps, strict=True):
            path = module.path
            if path not in fresh:
                rows[path] = known[path]
            else:
                digest, facts = fresh[path]
                is_sure = now is not None and not (facts and facts[5])  # else it is asked again next time
                rows[path] = (now if now is not None and is_sure else _NEVER, digest, facts or known[path][2])
        self.read_rows = [rows[module.path][2] for module in self.modules]
        return len(todo)

    def _map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return parallel_map(work, items, min(self.processes, len(items) // _WORTH_A_PROCESS + 1))

    # -- what has to be made ------------------------------------------------------------------------------------------

    def _stale_groups(self, kernel: dict[bytes, int] | None) -> set[str]:
        """Groups whose files have to be made anew."""
        if self.state is NOTHING or self._asks_symbols(kernel) or kernel is not None:
            return set(GROUPS)
        if [module.path for module in self.modules] != self.state.order:
            return set(GROUPS)
        before = [self.state.rows[path][2] for path in self.state.order]
        changes = [(row, old) for row, old in zip(self.read_rows, before, strict=True) if row is not old]
        stale = {group for group in GROUPS if not is_as_left(self.state, group)}
        for group, fields in GROUPS.items():
            places = [Facts._fields.index(field) for field in fields.split()]
            if any(row[place] != old[place] for row, old in changes for place in places):
                stale.add(group)
        if any(stamp(path) != known for path, known in self.state.inputs.items()):
            stale.add("small")
        return stale

    def _asks_symbols(self, kernel: dict[bytes, int] | None) -> bool:
        options = self.options
        return bool(options.verbose or options.symbol_prefix or (options.report_unknown and kernel is not None))

    def _render(self, kernel: dict[bytes, int] | None, stale: set[str]) -> tuple[dict[str, bytes], dict[str, Messages]]:
        """The files of stale groups; every group's messages are told, in kmod's order, and returned."""
        if not stale:
            return {}, self._told({})
        facts = list(map(Facts._make, self.read_rows))
        bare = Indexed(self.modules, facts, ())
        background = self._start_aliases(bare) if "alias" in stale else None
        made: dict[str, Any] = {}
        try:
            if stale & {"dep", "symbols"}:
                needs, owners = self._needs(kernel, facts)
                indexed = bare._replace(needs=needs)
                if "dep" in stale:
                    made["dep"] = _collected(lambda report: dep_files(indexed, self.style, report))
                if "symbols" in stale:
                    made["symbols"] = _collected(lambda report: symbol_files(indexed, owners, self.style, report))
            if background is not None:
                made["alias"] = background.result()
        finally:
            if background is not None:
                background.end()
        if "alias" in stale and background is None:
            made["alias"] = _collected(lambda report: alias_files(bare, self.style, report))
        if "small" in stale:
            made["small"] = _collected(lambda report: small_files(bare, self.options.tree, self.style, report))
        files: dict[str, bytes] = {}
        for rendered, _ in made.values():
            files.update(rendered)
        return files, self._told({group: messages for group, (_, messages) in made.items()})

    def _told(self, new: dict[str, Messages]) -> dict[str, Messages]:
        """Every group's messages, as they come or as they were said last time; they are reported."""
        told = {group: new[group] if group in new else self.state.groups[group][1] for group in GROUPS}
        for messages in told.values():
            for level, text in messages:
                self.report(level, text)
        return told

    def _needs(self, kernel: dict[bytes, int] | None, facts: Sequence[Facts]) -> tuple[Needs, dict[bytes, int]]:
        """Everything each module needs, and who exports what."""
        options = self.options
        if self._asks_symbols(kernel):
            check = SymbolCheck(
                options.report_unknown and kernel is not None,
                options.symvers is not None,
                os.fsencode(options.symbol_prefix),
            )
            show = self.show if options.verbose else lambda line: None
            needs, owners = checked_needs(self.modules, kernel or {}, check, self.report, show, self.processes)
        else:
            owners = owners_of_symbols([listed(fact.exports) for fact in facts])
            needs = direct_needs([fact.needs.split(b"\0") for fact in facts], owners)
        try:
            ranks = load_ranks(needs, [module.name for module in self.modules])
        except Cycles as cycles:
            for line in cycles.lines:
                self.report("ERROR", line)
            raise DepmodError(cycles.lines[-1], told=True) from cycles
        return all_needs(needs, ranks), owners

    def _start_aliases(self, indexed: Indexed) -> Child | None:
        """The largest index needs no dependencies: it is made beside them, if there is a processor for it."""
        if self.processes < 2 or self.style.order is None or len(self.modules) < _WORTH_A_PROCESS:
            return None
        return Child(lambda: _collected(lambda report: alias_files(indexed, self.style, report)))

    # -- writing ------------------------------------------------------------------------------------------------------

    def _publish(self, files: Rendered) -> None:
        try:
            os.makedirs(self.output, exist_ok=True)
            publish(files, self.output)
            kept = [name for name in FILES if name not in files]
            if kept and self._is_older_than_a_module():
                touch(kept, self.output)
        except OSError as error:
            raise DepmodError(f"could not open directory {self.output}: {error.strerror}") from error

    def _is_older_than_a_module(self) -> bool:
        """Whether ``depmod -A`` would think that there is something to do."""
        limit = os.stat(f"{self.output}/modules.dep").st_mtime_ns
        return any(row[0][1] > limit for row in self.rows.values())

    def _new_state(self, messages: dict[str, Messages]) -> Remembered:
        groups: dict[str, tuple[dict[str, Stamp], Messages]] = {}
        for group, names in _FILES_OF_GROUP.items():
            left = {path: now for path in (f"{self.output}/{name}" for name in names) if (now := stamp(path))}
            groups[group] = (left, messages[group])
        inputs = {path: stamp(path) for path in (f"{self.options.tree}/{name}" for name in _BUILTIN_FILES)}
        return Remembered([module.path for module in self.modules], self.rows, groups, inputs)


_BUILTIN_FILES = ("modules.builtin", "modules.builtin.modinfo")
_FILES_OF_GROUP: dict[str, tuple[str, ...]] = {
    "dep": ("modules.dep", "modules.dep.bin"),
    "alias": ("modules.alias", "modules.alias.bin"),
    "symbols": ("modules.symbols", "modules.symbols.bin"),
    "small": (
        "modules.softdep",
        "modules.weakdep",
        "modules.builtin.bin",
        "modules.builtin.alias.bin",
        "modules.devname",
    ),
}


def is_up_to_date(tree: str, report: Report = ignore) -> bool:
    """Whether no module file is newer than modules.dep, to the nanosecond. False without modules.dep."""
    what = f"open directory {tree}"
    try:
        os.stat(tree)
        what = f"fstatat({tree}, modules.dep)"
        return not _has_newer(tree, os.stat(f"{tree}/modules.dep").st_mtime_ns, report)
    except OSError as error:
        report("ERROR", f"could not {what}: {error.strerror}")
        return False


def _has_newer(directory: str, limit: int, report: Report) -> bool:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in ("build", "source"):
                continue
            try:
                if entry.is_dir():
                    if _has_newer(entry.path, limit, report):
                        return True
                elif entry.stat().st_mtime_ns > limit and entry.name.endswith(MODULE_SUFFIXES):
                    return True
            except OSError as error:
                report("ERROR", f"could not stat {entry.path}: {error.strerror}")
    return False


def _facts_of_job(job: tuple[str, bytes]) -> tuple[bytes, Row | tuple[()]]:
    return facts_unless_same(*job)


def _collected(render: Callable[[Report], Rendered]) -> tuple[Rendered, Messages]:
    messages: Messages = []
    files = render(lambda level, text: messages.append((level, text)))
    return files, messages


def _shown(files: Rendered) -> bytes:
    """The texts in kmod's order. Of weak dependencies only what there is: kmod has that file since release 33."""
    names = [name for name in FILES if not name.endswith(".bin")]
    if b"\nweakdep " not in files["modules.weakdep"]:
        names.remove("modules.weakdep")
    return b"".join(files[name] for name in names)
