"""modprobe.d as kmod reads it: which files count, in which order, and every line as a fact that knows file and line.

Follows modprobe.d(5) and, where the page is silent, what kmod does. Sources are the directories (the first directory
wins per file name, the chosen files are read in the order of their names), ``modules.softdep`` and ``modules.weakdep``
of the tree, and the kernel command line (``cmdline``). What a fact means for a module is decided in ``resolve``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from kobox.depot.cmdline import add_cmdline
from kobox.depot.facts import (
    Alias,
    Blacklist,
    Command,
    Complaint,
    Config,
    Options,
    Place,
    Softdep,
    SourceFile,
    Weakdep,
    empty_config,
)
from kobox.depot.lines import logical_lines
from kobox.depot.names import normal_alias

KMOD_DIRS = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
"""Highest precedence first. kmod 30 does not know ``/usr/lib``, which systems with a merged /usr read as ``/lib``."""


# --- one file --------------------------------------------------------------------------------------------------------


def _next_token(rest: str) -> tuple[str | None, str]:
    """One word separated by blanks, and what follows the single blank after it (further blanks stay)."""
    rest = rest.lstrip("\t ")
    if not rest:
        return None, ""
    for i, char in enumerate(rest):
        if char in "\t ":
            return rest[:i], rest[i + 1 :]
    return rest, ""


_C_SPACE = " \t\n\v\f\r"


def soft_words(line: str) -> Iterator[str]:
    """Split as kmod's softdep reader does: a single blank in front stays part of the first word."""
    start = i = 0
    was_space = False
    while True:
        ended = i >= len(line)
        if not ended:
            if line[i] not in _C_SPACE:
                was_space = False
                i += 1
                continue
            if was_space:
                i += 1
                start = i
                continue
            was_space = True
            if start >= i:
                i += 1
                continue
        if not ended or not was_space:
            yield line[start:i]
        i += 1
        start = i
        if ended:
            return


def parse_softdep(pattern: str, line: str, place: Place) -> Softdep:
    groups: dict[str, list[str]] = {"": [], "pre:": [], "post:": []}
    mode = ""
    for word in soft_words(line):
        if word in ("pre:", "post:"):
            mode = word
        else:
            groups[mode].append(word)
    return Softdep(pattern, tuple(groups["pre:"]), tuple(groups["post:"]), place)


def parse_file(data: bytes, name: str, config: Config) -> None:
    """Add the facts of one file's bytes to ``config``. ``name`` is how its places call it."""
    for line in logical_lines(data):
        text = line.text
        if not text or text[0] == "#":
            continue
        keyword, rest = _next_token(text)
        if keyword is None:
            continue
        if keyword in ("include", "config"):
            place = Place(name, line.first)
            said = f"{name}: command {keyword} is deprecated and not parsed anymore"
            config.complaints.append(Complaint(place, said))
        elif not _add_fact(keyword, rest, Place(name, line.first), config):
            said = f"{name} line {line.last}: ignoring bad line starting with '{keyword}'"
            config.complaints.append(Complaint(Place(name, line.first), said))


def _add_fact(keyword: str, rest: str, place: Place, config: Config) -> bool:
    first, rest = _next_token(rest)
    subject = normal_alias(first) if first is not None else None
    if subject is None:
        return False
    if keyword == "alias":
        second, _ = _next_token(rest)
        module = normal_alias(second) if second is not None else None
        if module is None:
            return False
        config.aliases.append(Alias(subject, module, place))
        return True
    if keyword == "blacklist":
        config.blacklists.append(Blacklist(subject, place))
        return True
    if not rest:
        return False
    if keyword == "options":
        config.options.append(Options(subject, rest.replace("\t", " "), place))
    elif keyword == "install":
        config.install.append(Command(subject, rest, place))
    elif keyword == "remove":
        config.remove.append(Command(subject, rest, place))
    elif keyword == "softdep":
        config.softdeps.append(parse_softdep(subject, rest, place))
    elif keyword == "weakdep":
        config.weakdeps.append(Weakdep(subject, tuple(soft_words(rest)), place))
    else:
        return False
    return True


# --- which files -----------------------------------------------------------------------------------------------------


def conf_files(
    sources: Iterable[str], complaints: list[Complaint], first: Sequence[tuple[str, str]] = ()
) -> list[SourceFile]:
    """The files of ``sources`` (directories, or single files) in reading order; hidden ones are listed after them.

    ``first`` are (directory, file name) pairs that take part in the order with the highest precedence, whether or not
    they exist: kmod treats ``modules.softdep`` so.
    """
    chosen: dict[str, str] = {name: f"{directory}/{name}" for directory, name in first}
    hidden: list[SourceFile] = []
    for source in sources:
        for name, path in _candidates(source, complaints):
            if name in chosen:
                hidden.append(SourceFile(path, hidden_by=chosen[name]))
            else:
                chosen[name] = path
    order = sorted(chosen, key=os.fsencode)
    return [SourceFile(chosen[name]) for name in order] + hidden


def _candidates(source: str, complaints: list[Complaint]) -> Iterator[tuple[str, str]]:
    try:
        names = os.listdir(source)
    except NotADirectoryError:
        if os.path.exists(source):
            yield os.path.basename(source), source
        return
    except FileNotFoundError:
        return
    except OSError as error:
        complaints.append(Complaint(Place(source), f"opendir({source}): {error.strerror}", "conf_files_list"))
        return
    for name in names:
        if name.startswith(".") or not _is_conf_name(name):
            continue
        path = f"{source}/{name}"
        if os.path.isdir(path):
            said = f"Directories inside directories are not supported: {source}/{name}"
            complaints.append(Complaint(Place(path), said, "conf_files_filter_out"))
            continue
        yield name, path


def _is_conf_name(name: str) -> bool:
    return len(os.fsencode(name)) >= 6 and name.endswith((".conf", ".alias"))


def search_dirs(root: str = "", dirs: Sequence[str] = KMOD_DIRS) -> list[str]:
    """The configuration directories below ``root``; of ``/usr/lib`` and ``/lib`` only the latter if they are one."""
    paths = [root.rstrip("/") + directory for directory in dirs]
    out: list[str] = []
    for path in paths:
        twin = path.removesuffix("/usr/lib/modprobe.d") + "/lib/modprobe.d"
        if path.endswith("/usr/lib/modprobe.d") and twin in paths and _same(path, twin):
            continue
        out.append(path)
    return out


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def load_config(
    sources: Sequence[str], *, tree: str | None = None, cmdline: str | None = None, cmdline_name: str = "/proc/cmdline"
) -> Config:
    """Read everything: the sources in order of precedence, the tree's own soft and weak dependencies, the command line.

    A file that is gone by the time it is opened is passed over in silence; one that may not be read is named.
    """
    config = empty_config()
    own = [(tree, name) for name in ("modules.softdep", "modules.weakdep")] if tree is not None else []
    for source in conf_files(sources, config.complaints, own):
        if source.hidden_by:
            config.files.append(source)
            continue
        try:
            with open(source.path, "rb") as file:
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            config.complaints.append(Complaint(Place(source.path), f"{source.path}: {error.strerror}"))
            continue
        config.files.append(source)
        parse_file(data, source.path, config)
    if cmdline is not None:
        add_cmdline(cmdline, config, cmdline_name)
    return config
