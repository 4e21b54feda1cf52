"""depmod: from a tree of modules to its index files. The steps, in order; each lives in a file of its own.

``depmod_config`` (depmod.d) → ``depmod_search`` (which modules, in which order) → ``module_facts`` (what is in
them) → ``depmod_graph`` (what needs what) → ``depmod_write`` (the files). ``depmod_symbols`` takes over where every
symbol is asked about. Reading and writing are spread over processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

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
)
from kobox.depot.index_write import CHILDREN_FIRST
from kobox.depot.module_facts import Facts, facts_of_file, listed
from kobox.depot.parallel import Child, parallel_map, processors

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


class DepmodResult(NamedTuple):
    """What was done."""

    modules: Sequence[Module]
    written: tuple[str, ...]
    """Names of the files that were replaced."""
    text: bytes = b""
    """With ``dry_run``: everything that would stand in text files, one after the other."""


def ignore(level: str, text: str) -> None:
    """A ``Report`` that drops everything."""


def depmod(options: DepmodOptions, report: Report = ignore, show: Callable[[str], None] | None = None) -> DepmodResult:
    """Index a tree. ``report`` hears kmod's warnings and errors, ``show`` the lines of ``verbose``.

    Raises ``DepmodError`` when there is no index to write or it can't be written; then the old one is untouched.
    """
    processes = options.processes or processors()
    prefix = os.fsencode(options.symbol_prefix)
    kernel: dict[bytes, int] = {}
    unknown = options.report_unknown
    if options.symvers is not None:
        kernel = read_symvers(options.symvers, prefix, report)
    elif options.system_map is not None:
        kernel = read_system_map(options.system_map, prefix, report)
    elif unknown:
        report("WARNING", "-e needs -E or -F")
        unknown = False
    modules = _modules(options, report)
    facts = read_facts(modules, processes)
    report_unreadable(modules, facts, report)
    style = Style(None if options.dry_run else options.order, options.warn_duplicates)
    background = _start_aliases(modules, facts, style, processes)
    try:
        if unknown or options.verbose or prefix:
            check = SymbolCheck(unknown, options.symvers is not None, prefix)
            needs, owners = checked_needs(modules, kernel, check, report, show or (lambda line: None), processes)
        else:
            owners = owners_of_symbols([listed(fact.exports) for fact in facts])
            needs = direct_needs([listed(fact.needs) for fact in facts], owners)
        indexed = Indexed(modules, facts, _closed(needs, modules, report))
        files: dict[str, bytes] = {}
        files.update(dep_files(indexed, style, report))
        symbols, symbol_messages = _collected(lambda collect: symbol_files(indexed, owners, style, collect))
        files.update(_aliases(background, indexed, style, report))
    finally:
        if background is not None:
            background.end()
    for level, text in symbol_messages:
        report(level, text)
    files.update(symbols)
    files.update(small_files(indexed, options.tree, style, report))
    if options.dry_run:
        return DepmodResult(modules, (), _shown(files))
    ordered = {name: files[name] for name in FILES}
    _publish(ordered, options)
    return DepmodResult(modules, tuple(ordered))


def read_facts(modules: Sequence[Module], processes: int) -> list[Facts]:
    """What is in each module."""
    rows = parallel_map(_facts_row, [module.path for module in modules], processes)
    return list(map(Facts._make, rows))


def report_unreadable(modules: Sequence[Module], facts: Sequence[Facts], report: Report) -> None:
    """Modules that could not be read are indexed by name all the same, as kmod does."""
    for module, fact in zip(modules, facts, strict=True):
        if fact.error:
            report("ERROR", f"failed to load symbols from {module.path}: {os.strerror(fact.error)}")


def is_up_to_date(tree: str) -> bool:
    """Whether no module file is newer than modules.dep, to the nanosecond. False without modules.dep."""
    try:
        limit = os.stat(f"{tree}/modules.dep").st_mtime_ns
        return not _has_newer(tree, limit)
    except OSError:
        return False


def _has_newer(directory: str, limit: int) -> bool:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in ("build", "source"):
                continue
            if entry.is_dir():
                if _has_newer(entry.path, limit):
                    return True
            elif entry.name.endswith((".ko", ".ko.gz", ".ko.xz", ".ko.zst")) and entry.stat().st_mtime_ns > limit:
                return True
    return False


def _modules(options: DepmodOptions, report: Report) -> list[Module]:
    if options.paths:
        found = modules_of_paths(options.paths, options.tree, report)
    else:
        rules = read_search_rules(options.config, options.release, report)
        found = find_modules(options.tree, rules, report)
    return in_load_order(found, options.tree, report)


def _facts_row(path: str) -> tuple[object, ...]:
    return tuple(facts_of_file(path))


def _closed(needs: list[list[int]], modules: Sequence[Module], report: Report) -> list[list[int]]:
    try:
        ranks = load_ranks(needs, [module.name for module in modules])
    except Cycles as cycles:
        for line in cycles.lines:
            report("ERROR", line)
        raise DepmodError(cycles.lines[-1], told=True) from cycles
    return all_needs(needs, ranks)


def _start_aliases(modules: Sequence[Module], facts: Sequence[Facts], style: Style, processes: int) -> Child | None:
    """The largest index needs no dependencies: it is made beside them, if there is a processor for it."""
    if processes < 2 or style.order is None or len(modules) < 256:
        return None
    indexed = Indexed(modules, facts, ())
    return Child(lambda: _collected(lambda report: alias_files(indexed, style, report)))


def _aliases(background: Child | None, indexed: Indexed, style: Style, report: Report) -> Rendered:
    if background is None:
        return alias_files(indexed, style, report)
    files, messages = background.result()
    for level, text in messages:
        report(level, text)
    rendered: Rendered = files
    return rendered


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


def _publish(files: Rendered, options: DepmodOptions) -> None:
    directory = options.tree if options.output is None else options.output
    try:
        os.makedirs(directory, exist_ok=True)
        publish(files, directory)
    except OSError as error:
        raise DepmodError(f"could not open directory {directory}: {error.strerror}") from error
