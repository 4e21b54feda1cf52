"""``kobox depmod``: kmod's options, messages and exit codes; its files byte by byte; faster the second time."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Sequence

from kobox.cli.gnu_getopt import getopt_long
from kobox.cli.kmod_face import Console, Where, guarded, print_json, version_lines
from kobox.cli.kmod_options import DEPMOD
from kobox.cli.options import getopt_tables, help_text
from kobox.depot.depmod import DepmodOptions, DepmodResult, depmod, is_up_to_date
from kobox.depot.depmod_cache import cache_directory
from kobox.depot.depmod_config import DEPMOD_DIRS
from kobox.depot.depmod_search import DepmodError
from kobox.depot.index_write import CHILDREN_FIRST, PARENTS_FIRST
from kobox.depot.names import absolute_path
from kobox.depot.tree import release_of
from kobox.errors import UsageError

SHORT, LONG = getopt_tables(DEPMOD.options)

_KMOD_VERSION = re.compile(rb"kmod version (\d+)")
_IGNORED = {"u": "-u", "q": "-q", "r": "-r", "unresolved-error": "--unresolved-error", "map": "--map"}


def main(argv: Sequence[str]) -> int:
    """Run ``depmod``."""
    console = Console("depmod", verbosity=4)
    was_enabled = gc.isenabled()
    gc.disable()  # a short life with very many objects, none of them in a cycle
    try:
        return guarded(console, lambda: _main(list(argv), console))
    finally:
        if was_enabled:
            gc.enable()


class _Request:
    """What the options ask for."""

    def __init__(self) -> None:
        self.where = Where(None, None, False)
        self.moduledir: str | None = None
        self.outdir: str | None = None
        self.order: str | None = None
        self.config: list[str] = []
        self.symvers: str | None = None
        self.system_map: str | None = None
        self.prefix = ""
        self.jobs = 0
        self.flags: set[str] = set()

    def take(self, name: str, value: str, console: Console) -> None:
        """One option."""
        if name in ("b", "root"):
            where, value = self.where, absolute_path(value)
            self.where = where._replace(dirname=value) if name == "b" else where._replace(root=value)
        elif name == "live":
            self.where = self.where._replace(live=True)
        elif name == "C":
            self.config.append(value)
        elif name == "P":
            if len(value) != 1:
                console.say("FATAL", "-P only takes a single char")
            self.prefix = value
        elif name == "j":
            if not value.isdecimal():
                raise UsageError(f"-j takes a number, not {value!r}")
            self.jobs = int(value)
        elif name == "index-order":
            if value not in (CHILDREN_FIRST, PARENTS_FIRST):
                raise UsageError(f"--index-order is {CHILDREN_FIRST} or {PARENTS_FIRST}, not {value!r}")
            self.order = value
        elif name in _IGNORED:
            console.say("WARNING", f"Ignored deprecated option {_IGNORED[name]}")
        elif name == "v":
            console.verbosity += 1
            self.flags.add(name)
        elif name in _TEXTS:
            setattr(self, _TEXTS[name], absolute_path(value) if name == "o" else value)
        else:
            self.flags.add(name)

    @property
    def root(self) -> str:
        """The directory that stands for ``/``; empty for the host's."""
        return self.where.root if self.where.root is not None else self.where.dirname or ""


_TEXTS = {"m": "moduledir", "o": "outdir", "E": "symvers", "F": "system_map"}


def _main(argv: list[str], console: Console) -> int:
    options, operands = getopt_long(argv, SHORT, LONG)
    request = _Request()
    for name, value in options:
        if name in ("h", "V"):
            sys.stdout.write(help_text(DEPMOD) if name == "h" else "\n".join(version_lines()) + "\n")
            return 0
        request.take(name, value, console)
    release = operands[0] if operands else _release(request)
    if not re.match(r"\s*[+-]?\d+\.\s*[+-]?\d+", release):
        console.say("ERROR", f"Bad version passed {release}")
        return 1
    if "n" not in request.flags and request.outdir is None:
        request.where.check()
    directory = _module_directory(request, release)
    tree = f"{request.root}/{directory}/{release}"
    if "A" in request.flags and ("n" in request.flags or is_up_to_date(tree, console.say)):
        return 0
    paths = () if {"a", "A"} & request.flags else operands[1:]
    output = None if request.outdir is None else f"{request.outdir}/{directory}/{release}"
    return _index(request, DepmodOptions(tree, release, output, paths), console)


def _index(request: _Request, options: DepmodOptions, console: Console) -> int:
    flags = request.flags
    options = options._replace(
        config=request.config or _config_dirs(request.where),
        root=request.where.root or "",
        symvers=request.symvers,
        system_map=request.system_map,
        report_unknown="e" in flags,
        verbose="v" in flags,
        dry_run="n" in flags,
        symbol_prefix=request.prefix,
        warn_duplicates="w" in flags,
        order=request.order or order_of_root(request.root),
        processes=request.jobs,
        cache=None if "no-cache" in flags else cache_directory(),
    )
    try:
        result = depmod(options, console.say, _write)
    except DepmodError as error:
        if not error.told:
            console.say("FATAL", error.text)
        return 1
    sys.stdout.flush()
    if "json" in flags:
        print_json(result_json(options, result))
    elif options.dry_run:
        sys.stdout.buffer.write(result.text)
    sys.stdout.flush()
    return 0


def _write(line: str) -> None:
    sys.stdout.write(line)


def result_json(options: DepmodOptions, result: DepmodResult) -> dict[str, object]:
    """The record of ``--json``; docs/depmod.md describes it."""
    return {
        "tree": options.tree,
        "output": options.tree if options.output is None else options.output,
        "release": options.release,
        "index_order": options.order,
        "modules": len(result.modules),
        "read": result.read,
        "written": list(result.written),
    }


def order_of_root(root: str) -> str:
    """The order of nodes that the kmod installed below a root writes; children first when there is none."""
    for place in ("bin/kmod", "usr/bin/kmod", "sbin/kmod", "usr/sbin/kmod"):
        try:
            with open(f"{root}/{place}", "rb") as file:
                found = _KMOD_VERSION.search(file.read(1 << 22))
        except OSError:
            continue
        if found:
            return PARENTS_FIRST if int(found[1]) >= 34 else CHILDREN_FIRST
    return CHILDREN_FIRST


def _release(request: _Request) -> str:
    """Without an operand: the running kernel's, as kmod; of a root the only one it has."""
    if request.where.root is None:
        return os.uname().release
    return release_of(request.where.root, request.moduledir, hint="name one behind the options")


def _module_directory(request: _Request, release: str) -> str:
    """Where releases are below the root: as asked, else the first of the usual places that has this one."""
    if request.moduledir is not None:
        return request.moduledir.lstrip("/")
    usual = ("lib/modules", "usr/lib/modules")
    return next((place for place in usual if os.path.isdir(f"{request.root}/{place}/{release}")), usual[0])


def _config_dirs(where: Where) -> Sequence[str]:
    """depmod.d of the root if it was named as one, else of this host, as kmod has it."""
    if where.root is None:
        return DEPMOD_DIRS
    return [where.root + path for path in DEPMOD_DIRS]
