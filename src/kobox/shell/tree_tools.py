"""The shell's tools on the kernel's tree: cat, ls, test, readlink."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence

from kobox.errors import Errno
from kobox.kernel.records import DirEntry, Status
from kobox.shell.command import Command, Failed, Io, Output, lines_of, split_options
from kobox.shell.interpreter import reason
from kobox.shell.text_tools import encoded, sources

_MARKS = {"dir": "/", "link": "@", "fifo": "|", "socket": "="}


def cat(io: Io, arguments: Sequence[str]) -> Output:
    options, operands = split_options(arguments, "nu")
    chunks = (chunk for source in sources(io, operands, "cat") for chunk in source.chunks)
    if "n" in options:
        yield from (b"%6d\t%s" % (number, line) for number, line in enumerate(lines_of(chunks), 1))
    else:
        yield from chunks
    return int(io.failures > 0)


# --- ls --------------------------------------------------------------------------------------------------------------


def ls(io: Io, arguments: Sequence[str]) -> Output:
    options, operands = split_options(arguments, "laAd1FRh")
    files: list[DirEntry] = []
    folders: list[str] = []
    for path in operands or ["."]:
        try:
            kind = "dir" if io.tree.is_folder(path) and "d" not in options else _kind(io.tree.status(path))
        except (Errno, OSError) as error:
            io.complain(f"ls: cannot access '{path}': {reason(error)}")
            continue
        if kind == "dir" and "d" not in options:
            folders.append(path)
        else:
            files.append(DirEntry(path, kind))
    folders.sort()
    yield from _entries(io, "", files, options)
    titles = len(operands) > 1 or "R" in options
    for number, path in enumerate(_tree(io, folders, options)):
        if titles:
            yield encoded("\n" * bool(number or files) + f"{path}:\n")
        try:
            entries = [e for e in io.tree.entries(path) if {"a", "A"} & options.keys() or not e.name.startswith(".")]
        except (Errno, OSError) as error:
            io.complain(f"ls: cannot open directory '{path}': {reason(error)}")
            continue
        if "a" in options:
            entries += [DirEntry(".", "dir"), DirEntry("..", "dir")]
        yield from _entries(io, path, entries, options)
    return 2 if io.failures else 0


def _tree(io: Io, folders: list[str], options: dict[str, str]) -> Iterator[str]:
    for path in folders:
        yield path
        if "R" in options:
            try:
                inside = sorted(entry.name for entry in io.tree.entries(path) if entry.kind == "dir")
            except (Errno, OSError):
                continue  # said when it is listed
            yield from _tree(io, [posixpath.join(path, name) for name in inside], options)


def _entries(io: Io, folder: str, entries: list[DirEntry], options: dict[str, str]) -> Iterator[bytes]:
    entries = sorted(entries)
    if "l" in options:
        yield from _long(io, folder, entries)
        return
    names = [entry.name + (_MARKS.get(entry.kind, "") if "F" in options else "") for entry in entries]
    if names and io.terminal and "1" not in options:
        yield from _columns(names, io.columns)
    else:
        yield from (encoded(f"{name}\n") for name in names)


def _columns(names: list[str], width: int) -> Iterator[bytes]:
    """Downwards, in as many columns as fit."""
    for count in range(min(len(names), max(width // 3, 1)), 0, -1):
        rows = -(-len(names) // count)
        columns = [names[at : at + rows] for at in range(0, len(names), rows)]
        widths = [max(map(len, column)) + 2 for column in columns]
        if sum(widths) - 2 <= width or count == 1:
            break
    for row in range(rows):
        cells = [column[row].ljust(size) for column, size in zip(columns, widths, strict=True) if row < len(column)]
        yield encoded("".join(cells).rstrip() + "\n")


def _long(io: Io, folder: str, entries: list[DirEntry]) -> Iterator[bytes]:
    rows: list[tuple[Status | None, str, str]] = []
    for entry in entries:
        path = posixpath.join(folder, entry.name) if folder else entry.name
        try:
            status = io.tree.status(path)
            target = f" -> {io.tree.readlink(path)}" if stat.S_ISLNK(status.mode) else ""
            rows.append((status, entry.name, target))
        except (Errno, OSError) as error:
            io.complain(f"ls: cannot access '{path}': {reason(error)}")
            rows.append((None, entry.name, ""))
    size = max((len(str(row[0].size)) for row in rows if row[0] is not None), default=1)
    for found, name, target in rows:
        if found is None:
            yield encoded(f"?????????? ? ? {'?':>{size}} {name}\n")
        else:
            mode = stat.filemode(found.mode)
            yield encoded(f"{mode} {_owner(found.uid):<5} {_owner(found.gid):<5} {found.size:>{size}} {name}{target}\n")


def _owner(number: int) -> str:
    return "root" if number == 0 else str(number)


def _kind(status: Status) -> str:
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "dir"), (stat.S_ISLNK, "link"), (stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket"),
    )  # fmt: skip
    return next((name for test, name in kinds if test(status.mode)), "file")


# --- test, readlink --------------------------------------------------------------------------------------------------

_STRINGS: dict[str, Callable[[str, str], bool]] = {
    "=": str.__eq__, "==": str.__eq__, "!=": str.__ne__, "<": str.__lt__, ">": str.__gt__,
}  # fmt: skip
_NUMBERS: dict[str, Callable[[int, int], bool]] = {
    "-eq": int.__eq__, "-ne": int.__ne__, "-lt": int.__lt__, "-le": int.__le__, "-gt": int.__gt__, "-ge": int.__ge__,
}  # fmt: skip
_FILES: dict[str, Callable[[Status], bool]] = {
    "-e": lambda status: True,
    "-f": lambda status: stat.S_ISREG(status.mode),
    "-s": lambda status: status.size > 0,
    "-c": lambda status: stat.S_ISCHR(status.mode),
    "-b": lambda status: stat.S_ISBLK(status.mode),
    "-L": lambda status: stat.S_ISLNK(status.mode),
}


def test(io: Io, arguments: Sequence[str]) -> Output:
    return int(not _truth(io, list(arguments)))
    yield b""


def bracket(io: Io, arguments: Sequence[str]) -> Output:
    if not arguments or arguments[-1] != "]":
        raise Failed("no ] at the end", 2)
    return (yield from test(io, arguments[:-1]))


def _truth(io: Io, words: list[str]) -> bool:
    if words[:1] == ["!"] and len(words) > 1:
        return not _truth(io, words[1:])
    match words:
        case []:
            return False
        case [text]:
            return text != ""
        case ["-n", text]:
            return text != ""
        case ["-z", text]:
            return text == ""
        case ["-d", path]:
            return io.tree.is_folder(path)
        case [operator, path] if operator in _FILES:
            try:
                return _FILES[operator](io.tree.status(path))
            except (Errno, OSError):
                return False
        case [one, operator, other] if operator in _STRINGS:
            return _STRINGS[operator](one, other)
        case [one, operator, other] if operator in _NUMBERS:
            try:
                return _NUMBERS[operator](int(one), int(other))
            except ValueError:
                raise Failed(f"{one} {operator} {other}: not numbers", 2) from None
    raise Failed(f"{' '.join(words)}: not understood", 2, "'help test' lists what is")


def readlink(io: Io, arguments: Sequence[str]) -> Output:
    if not arguments:
        raise Failed("no path", 2)
    for path in arguments:
        try:
            yield encoded(io.tree.readlink(path) + "\n")
        except (Errno, OSError):
            io.failures += 1
    return int(io.failures > 0)


TREE_TOOLS = (
    Command("cat", "[-n] [FILE ...]", "Print files; -n with line numbers. 'host:FILE' is a file of this machine.", cat,
            ("cat /proc/version", "cat /sys/module/*/refcnt"), ("-n",)),
    Command("ls", "[-l] [-aAd1FR] [PATH ...]", "List directories. -l with mode, owner and size, -R all below.", ls,
            ("ls /sys/bus/pci/drivers", "ls -l /dev"), ("-l", "-a", "-d", "-1", "-F", "-R")),
    Command("readlink", "PATH ...", "Where symbolic links lead.", readlink, ("readlink /sys/class/net/lo",)),
    Command("test", "EXPRESSION", "Status 0 if an expression holds.\n"
            "-e -f -d -s -c -b -L PATH, -n -z TEXT, TEXT = TEXT, !=, NUMBER -eq -ne -lt -le -gt -ge NUMBER,\n"
            "! EXPRESSION. Also as [ EXPRESSION ].", test,
            ("test -e /dev/null && echo there",)),
    Command("[", "EXPRESSION ]", "As test.", bracket, ("[ -d /sys/module/hello ] || insmod hello.ko",)),
)  # fmt: skip
