"""``kobox modprobe``: kmod's options, texts and exit codes, on a root directory, the live host or a given target."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from errno import ENOENT

from kobox.cli.gnu_getopt import getopt_long
from kobox.cli.kmod_face import (
    Console,
    Stop,
    Where,
    guarded,
    indexed_for_kernel,
    print_json,
    session_of,
    system_of,
    version_lines,
)
from kobox.cli.kmod_options import MODPROBE
from kobox.cli.options import getopt_tables, help_text
from kobox.depot.config import load_config, search_dirs
from kobox.depot.facts import Config
from kobox.depot.paths import absolute
from kobox.depot.plan import insert_plan_json, remove_plan_json
from kobox.depot.resolve import Resolver, is_path
from kobox.depot.systems import read_cmdline
from kobox.depot.targets import IGNORE_MODVERSIONS, IGNORE_VERMAGIC, How, RootTarget, Target, insert, remove
from kobox.depot.tree import ModuleTree, release_of
from kobox.errors import BadFile, UsageError

SHORT, LONG = getopt_tables(MODPROBE.options)
_ENVIRONMENT = "MODPROBE_OPTIONS"


class _Request:
    """What the options ask for."""

    def __init__(self) -> None:
        self.action = "insert"
        self.all = self.remove = self.lookup = self.json = self.live = False
        self.first_time = self.ignore_commands = self.use_blacklist = False
        self.remove_holders = self.show = self.dry_run = self.ignore_loaded = False
        self.force_remove = False
        self.flags = 0
        self.verbosity = 4
        self.wait_ms = 0
        self.config_paths: list[str] = []
        self.session: str | None = None
        self.on_kernel = False
        self.cmdline: str | None = None
        self.root: str | None = None
        self.dirname: str | None = None
        self.release: str | None = None


def main(argv: Sequence[str], target: Target | None = None, root: str | None = None) -> int:
    """Run ``modprobe``. ``target`` is a kernel of the caller's to act on; ``root`` a default for ``--root``."""
    console = Console("modprobe", verbosity=4)
    inherited = os.environ.get(_ENVIRONMENT)
    try:
        return guarded(console, lambda: _main(list(argv), console, target, root))
    finally:
        _set_environment(inherited)


def _main(argv: list[str], console: Console, target: Target | None, root: str | None) -> int:
    request = _Request()
    request.root = root
    request.on_kernel = target is not None
    parsed = getopt_long(_environment_options() + argv, SHORT, LONG)
    for name, value in parsed.options:
        if name in ("V", "h"):
            sys.stdout.write(help_text(MODPROBE) if name == "h" else "\n".join(version_lines()) + "\n")
            return 0
        _OPTIONS[name](request, console, value)
    operands = parsed.operands
    if request.action != "config" and not operands:
        console.say("ERROR", "missing parameters. See -h.")
        return 1
    console.verbosity = request.verbosity
    where = Where(request.root, request.dirname, request.live)
    if target is None:
        target = _session(request)
    if target is None:
        where.check()
    tree = _tree(request)
    config = _config(request, tree, console)
    if request.action == "config":
        _show_config(config, tree, console, request.json)
        return 0
    if request.action in ("modversions", "symbols"):
        return _show_symbols(request, operands[0], Resolver(config, tree), console)
    return _run(request, operands, Resolver(config, tree), target or _target(where), console)


def _session(request: _Request) -> Target | None:
    """A session as the target, with its modules, its configuration and its command line; None: another place is meant,
    or there is no session."""
    kernel = session_of(request.session, request.live or request.root is not None or request.dirname is not None)
    if kernel is None:
        return None
    from kobox.depot.kernel_target import KernelTarget

    request.root, release = system_of(kernel)
    request.release = request.release or release
    request.cmdline = kernel.info()["append"]
    request.on_kernel = True
    return KernelTarget(kernel)


# --- options ---------------------------------------------------------------------------------------------------------


def _environment_options() -> list[str]:
    """The words of MODPROBE_OPTIONS, quotes taken off, which come before the command line's."""
    text = os.environ.get(_ENVIRONMENT)
    return [] if text is None else list(_quoted_words(text))


def _quoted_words(text: str) -> Iterator[str]:
    word, quote = "", ""
    for char in text:
        if quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "\"'":
            quote = char
        elif char == " ":
            yield word
            word = ""
        else:
            word += char
    if word:
        yield word


def _pass_on(*words: str) -> None:
    """Add to MODPROBE_OPTIONS, so that a modprobe inside an install command behaves alike."""
    old = os.environ.get(_ENVIRONMENT)
    _set_environment(" ".join(words if old is None else (old, *words)))


def _set_environment(text: str | None) -> None:
    if text is None:
        os.environ.pop(_ENVIRONMENT, None)
    else:
        os.environ[_ENVIRONMENT] = text


_Option = Callable[[_Request, Console, str], None]


def _flag(**values: object) -> _Option:
    def set_values(request: _Request, console: Console, value: str) -> None:
        for name, wanted in values.items():
            setattr(request, name, wanted)

    return set_values


def _text(name: str) -> _Option:
    return lambda request, console, value: setattr(request, name, value)


def _set_flags(flags: int, force_remove: bool = False) -> _Option:
    def add(request: _Request, console: Console, value: str) -> None:
        request.flags |= flags
        request.force_remove |= force_remove

    return add


def _set_wait(request: _Request, console: Console, value: str) -> None:
    try:
        request.wait_ms = int(value, 0)
    except ValueError:
        console.say("ERROR", f"unexpected wait value '{value}'.")
        raise Stop(1) from None


def _add_config(request: _Request, console: Console, value: str) -> None:
    request.config_paths.append(value)
    _pass_on("-C", value)


def _set_syslog(request: _Request, console: Console, value: str) -> None:
    console.syslog = True
    _pass_on("-s")


def _set_quiet(request: _Request, console: Console, value: str) -> None:
    request.verbosity = 0
    _pass_on("-q")


def _set_verbose(request: _Request, console: Console, value: str) -> None:
    request.verbosity += 1
    _pass_on("-v")


_OPTIONS: dict[str, _Option] = {
    "a": _flag(all=True),
    "r": _flag(remove=True),
    "remove-dependencies": _flag(remove_holders=True),
    "w": _set_wait,
    "R": _flag(lookup=True),
    "first-time": _flag(first_time=True),
    "i": _flag(ignore_commands=True),
    "b": _flag(use_blacklist=True),
    "f": _set_flags(IGNORE_MODVERSIONS | IGNORE_VERMAGIC, force_remove=True),
    "force-modversion": _set_flags(IGNORE_MODVERSIONS),
    "force-vermagic": _set_flags(IGNORE_VERMAGIC),
    "D": _flag(ignore_loaded=True, dry_run=True, show=True),
    "c": _flag(action="config"),
    "show-modversions": _flag(action="modversions"),
    "show-exports": _flag(action="symbols"),
    "n": _flag(dry_run=True),
    "C": _add_config,
    "d": _text("dirname"),
    "S": _text("release"),
    "s": _set_syslog,
    "q": _set_quiet,
    "v": _set_verbose,
    "session": _text("session"),
    "root": _text("root"),
    "live": _flag(live=True),
    "json": _flag(json=True),
}


# --- what it is about ------------------------------------------------------------------------------------------------


def _tree(request: _Request) -> ModuleTree:
    if request.dirname is not None:
        release = request.release if request.release is not None else os.uname().release
        root = absolute(request.dirname) if request.dirname else ""
        return ModuleTree(root, release, "lib/modules")
    if request.root is None:
        return ModuleTree("", request.release)
    root = absolute(request.root).rstrip("/")
    if not os.path.isdir(request.root):
        raise UsageError(f"{request.root}: no such directory")
    tree = ModuleTree(root, request.release if request.release is not None else release_of(root))
    return indexed_for_kernel(tree) if request.on_kernel else tree


def _config(request: _Request, tree: ModuleTree, console: Console) -> Config:
    root = "" if request.root is None else absolute(request.root).rstrip("/")
    sources = request.config_paths or search_dirs(root)
    cmdline_name = f"{root}/proc/cmdline"
    cmdline = read_cmdline(cmdline_name) if request.cmdline is None else request.cmdline
    config = load_config(sources, tree=tree.indexes, cmdline=cmdline, cmdline_name=cmdline_name)
    for complaint in config.complaints:
        console.library(f"{complaint.reader}: {complaint.text}")
    return config


def _target(where: Where) -> Target:
    if where.live:
        from kobox.depot.live import LiveTarget

        return LiveTarget()
    return RootTarget(where.root or "")


# --- doing it --------------------------------------------------------------------------------------------------------


def _run(request: _Request, operands: list[str], resolver: Resolver, target: Target, console: Console) -> int:
    shown: Callable[[str], None] | None = None
    if request.show or console.verbosity > 4:
        shown = console.out
    if request.json:
        shown = None
    how = How(
        show=shown,
        say=console.say,
        dry_run=request.dry_run or request.json,
        ignore_loaded=request.ignore_loaded,
        first_time=request.first_time,
        flags=request.flags,
        force_remove=request.force_remove,
        remove_holders=request.remove_holders,
        wait_ms=request.wait_ms,
        complaint_level="WARNING" if request.all else "FATAL",
        holder_plan=lambda name: resolver.holder_removal(name, ignore_commands=request.ignore_commands),
    )
    plans: list[dict[str, object]] = []
    if request.remove or request.all:
        names, parameters = operands, ""
    else:
        names, parameters = operands[:1], _joined_parameters(operands[1:])
    act = _remove if request.remove else _insert
    failed = False
    for name in names:
        if act(request, name, parameters, resolver, target, how, plans) < 0:
            failed = True
    if request.json:
        print_json(plans)
    return 1 if failed else 0


def _joined_parameters(words: list[str]) -> str:
    """Parameters in one string; a value with blanks and no quotes of its own is put in quotes."""
    out = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and value[:1] not in ("'", '"') and " " in value:
            word = f'{name}="{value}"'
        out.append(word)
    return " ".join(out)


def _insert(
    request: _Request,
    name: str,
    parameters: str,
    resolver: Resolver,
    target: Target,
    how: How,
    plans: list[dict[str, object]],
) -> int:
    if request.lookup and not is_path(name):
        found = resolver.lookup(name)
        if not found:
            return _not_found(name, resolver, how)
        if request.json:
            plans.append({"request": name, "modules": [module for module, _ in found]})
        else:
            sys.stdout.writelines(f"{module}\n" for module, _ in found)
        return 0
    plan = resolver.insert(
        name, parameters, ignore_commands=request.ignore_commands, use_blacklist=request.use_blacklist
    )
    for complaint in plan.complaints:
        how.say("ERROR", complaint.text)
    if not plan.probes:
        return _not_found(name, resolver, how)
    if request.json:
        plans.append(insert_plan_json(plan))
    return insert(plan, target, how)


def _not_found(name: str, resolver: Resolver, how: How) -> int:
    how.say(how.complaint_level, f"Module {name} not found in directory {resolver.tree.directory}")
    return -ENOENT


def _remove(
    request: _Request,
    name: str,
    parameters: str,
    resolver: Resolver,
    target: Target,
    how: How,
    plans: list[dict[str, object]],
) -> int:
    plan = resolver.remove(name, ignore_commands=request.ignore_commands)
    for complaint in plan.complaints:
        how.say("ERROR", complaint.text)
    if not plan.removals:
        how.say(how.complaint_level, f"Module {name} not found.")
        return -ENOENT
    if request.json:
        plans.append(remove_plan_json(plan))
    return remove(plan, target, how)


# --- showing ---------------------------------------------------------------------------------------------------------


def _show_config(config: Config, tree: ModuleTree, console: Console, as_json: bool) -> None:
    if as_json:
        print_json(_config_json(config))
        return
    write = sys.stdout.write
    for line in config_lines(config):
        write(line + "\n")
    write("\n# End of configuration files. Dumping indexes now:\n\n")
    for name in ("modules.alias", "modules.symbols"):
        index = tree.index(name)
        if index is not None:
            sys.stdout.writelines(f"{key} {entry.value}\n" for key, entry in index.dump("alias "))


def config_lines(config: Config) -> Iterator[str]:
    """The configuration as ``modprobe -c`` lists it."""
    yield from (f"blacklist {line.module}" for line in config.blacklists)
    yield from (f"install {line.pattern} {line.command}" for line in config.install)
    yield from (f"remove {line.pattern} {line.command}" for line in config.remove)
    yield from (f"alias {line.pattern} {line.module}" for line in config.aliases)
    yield from (f"options {line.module} {line.options}" for line in config.options)
    yield from (f"softdep {soft.pattern} {soft.text()}" for soft in config.softdeps)
    yield from (f"weakdep {weak.pattern} {weak.text()}" for weak in config.weakdeps)


def _config_json(config: Config) -> dict[str, object]:
    kinds = ("blacklists", "install", "remove", "aliases", "options", "softdeps", "weakdeps", "complaints")
    out: dict[str, object] = {kind: [_fact_json(fact) for fact in getattr(config, kind)] for kind in kinds}
    out["files"] = [{"path": source.path, "hidden_by": source.hidden_by or None} for source in config.files]
    return out


def _fact_json(fact: object) -> dict[str, object]:
    values: dict[str, object] = fact._asdict()  # type: ignore[attr-defined]  # every fact is a named tuple
    place = values.pop("place")
    return values | {"file": place.file, "line": place.line}  # type: ignore[attr-defined]  # a Place


def _show_symbols(request: _Request, name: str, resolver: Resolver, console: Console) -> int:
    from kobox.depot.symbol_versions import exported_versions, needed_versions
    from kobox.ko import read_module

    paths = [name] if is_path(name) or os.path.exists(name) else _paths_of(name, resolver)
    if not paths or not os.path.exists(paths[0]):
        console.say("FATAL", f"Module {name} not found.")
        return 1
    found: list[dict[str, object]] = []
    for path in paths:
        try:
            module = read_module(path)
        except BadFile as error:
            console.say("FATAL", f"could not get {request.action} of {name}: {error}")
            return 1
        symbols = needed_versions(module) if request.action == "modversions" else exported_versions(module)
        if symbols is None:
            console.say("FATAL", f"could not get {request.action} of {name}: {os.strerror(ENOENT)}")
            return 1
        found.append({"path": path, "symbols": [{"name": symbol, "crc": crc} for symbol, crc in symbols]})
        if not request.json:
            sys.stdout.writelines(f"0x{crc:08x}\t{symbol}\n" for symbol, crc in symbols)
    if request.json:
        print_json(found)
    return 0


def _paths_of(name: str, resolver: Resolver) -> list[str]:
    found = (resolver.tree.find(module) for module, _ in resolver.lookup(name))
    return [path for path in found if path is not None]
