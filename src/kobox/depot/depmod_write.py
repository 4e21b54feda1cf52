"""depmod's files: what each holds, as bytes, and how they come into place.

Rendering is pure; texts and tries are kmod's byte by byte. ``publish`` writes every file under a temporary name
first and renames only when all are complete, so that a failure leaves the old index.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kobox.depot.depmod_config import Report
from kobox.depot.depmod_search import DepmodError, Module
from kobox.depot.index_write import IndexValues, write_index
from kobox.depot.khash import hash_order
from kobox.depot.module_facts import Facts, listed
from kobox.depot.names import module_name_of_path, normal_alias

FILES: tuple[str, ...] = (
    "modules.dep",
    "modules.dep.bin",
    "modules.alias",
    "modules.alias.bin",
    "modules.softdep",
    "modules.weakdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.builtin.bin",
    "modules.builtin.alias.bin",
    "modules.devname",
)
"""Everything depmod writes, in kmod's order. ``modules.weakdep`` is kmod's since release 33."""

_SYMBOL_BUCKETS = 2048
_DEVICE = re.compile(rb"(char|block)-major-\s*([+-]?\d+)-\s*([+-]?\d+)")
_LEFTOVER = re.compile(r"modules\.[a-z.]+\.(\d+)\.\d+\.\d+")

Rendered = Mapping[str, bytes]
"""File name to its content."""


class Indexed(NamedTuple):
    """The modules in load order, and for each what was read and what it needs (all of it, in modules.dep's order)."""

    modules: Sequence[Module]
    facts: Sequence[Facts]
    needs: Sequence[Sequence[int]]


class Style(NamedTuple):
    """How files are written: the order of nodes in ``.bin`` files (none are made without), and whether duplicates
    are reported."""

    order: str | None
    warn_duplicates: bool = False


def dep_files(indexed: Indexed, style: Style, report: Report) -> Rendered:
    """modules.dep and its index."""
    shown = [os.fsencode(module.shown) for module in indexed.modules]
    lines: list[bytes] = []
    values = IndexValues()
    for module, needs in zip(indexed.modules, indexed.needs, strict=True):
        line = b" ".join([shown[module.index] + b":", *[shown[index] for index in needs]])
        lines.append(line)
        values.add(os.fsencode(module.name), module.index, line)
    text = b"\n".join([*lines, b""])
    return {"modules.dep": text, "modules.dep.bin": _index(values, style, report)}


def alias_files(indexed: Indexed, style: Style, report: Report) -> Rendered:
    """modules.alias and its index; aliases with a bracket that has no partner are only in the text."""
    text = [b"# Aliases extracted from modules themselves.\n"]
    values = IndexValues()
    for module, facts in zip(indexed.modules, indexed.facts, strict=True):
        if not facts.aliases:
            continue
        name = os.fsencode(module.name)
        line_end = b" " + name + b"\n"
        text.append(b"alias " + facts.aliases[:-1].replace(b"\0", line_end + b"alias ") + line_end)
        if not style.order:
            continue
        if not style.warn_duplicates:
            values.add_all(_normal_aliases(facts.aliases, report), module.index, name)
            continue
        for alias in listed(facts.aliases):
            for key in _normal_aliases(alias + b"\0", report):
                if values.add(key, module.index, name):
                    report("WARNING", f"duplicate module alias:\n{os.fsdecode(key)} {module.name}")
    return {"modules.alias": b"".join(text), "modules.alias.bin": _index(values, style, report)}


def symbol_files(indexed: Indexed, owners: Mapping[bytes, int], style: Style, report: Report) -> Rendered:
    """modules.symbols, in the order of kmod's hash table, and its index."""
    names = [os.fsencode(module.name) for module in indexed.modules]
    tails = [b" " + name + b"\n" for name in names]
    text = b"".join(
        [b"# Aliases for symbols, used by symbol_request().\n"]
        + [b"alias symbol:" + symbol + tails[owners[symbol]] for symbol in hash_order(owners, _SYMBOL_BUCKETS)]
    )
    values = IndexValues()
    if style.order:
        values.add_owned({b"symbol:" + symbol: index for symbol, index in owners.items()}, names)
    return {"modules.symbols": text, "modules.symbols.bin": _index(values, style, report)}


def small_files(indexed: Indexed, tree: str, style: Style, report: Report) -> Rendered:
    """Soft and weak dependencies, device nodes, and the indexes of built-in modules."""
    softdeps = [b"# Soft dependencies extracted from modules themselves.\n"]
    weakdeps = [b"# Weak dependencies extracted from modules themselves.\n"]
    for module, facts in zip(indexed.modules, indexed.facts, strict=True):
        name = os.fsencode(module.name)
        softdeps += [b"softdep " + name + b" " + text + b"\n" for text in listed(facts.softdeps)]
        weakdeps += [b"weakdep " + name + b" " + text + b"\n" for text in listed(facts.weakdeps)]
    return {
        "modules.softdep": b"".join(softdeps),
        "modules.weakdep": b"".join(weakdeps),
        "modules.builtin.bin": _builtin_index(tree, style, report),
        "modules.builtin.alias.bin": _builtin_alias_index(tree, style, report),
        "modules.devname": _device_nodes(indexed, report),
    }


def publish(files: Rendered, directory: str) -> None:
    """Put files into a directory, all or none as far as a file system can: complete under other names, then renamed.

    Raises ``DepmodError`` when one can't be written; then no file was replaced and no temporary one is left.
    """
    _remove_leftovers(directory)
    moment = time.time_ns()
    suffix = f"{os.getpid()}.{moment // 1000 % 1_000_000}.{moment // 1_000_000_000}"
    written: list[tuple[str, str]] = []
    at = ""
    try:
        for name in files:
            at = name
            temporary = f"{directory}/{name}.{suffix}"
            _write(temporary, files[name], written, f"{directory}/{name}")
        for temporary, final in written:
            at = final.rpartition("/")[2]
            os.rename(temporary, final)
    except OSError as error:
        raise DepmodError(f"could not write {directory}/{at}: {error.strerror}; the index is unchanged") from error
    finally:
        for temporary, _ in written:
            _unlink(temporary)


def touch(names: Sequence[str], directory: str) -> None:
    """Give files that are as they have to be today's date, as if they had been written."""
    for name in names:
        os.utime(f"{directory}/{name}")


def _write(temporary: str, content: bytes, written: list[tuple[str, str]], final: str) -> None:
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    written.append((temporary, final))
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _remove_leftovers(directory: str) -> None:
    """Temporary files of runs that were killed: those that name a process which is gone."""
    for name in os.listdir(directory):
        leftover = _LEFTOVER.fullmatch(name)
        if leftover and not os.path.exists(f"/proc/{leftover[1]}") and os.path.exists("/proc/self"):
            _unlink(f"{directory}/{name}")


def _index(values: IndexValues, style: Style, report: Report) -> bytes:
    for key in values.drop_unfit():
        report("ERROR", f"Module index: only 7-bit ASCII is supported, left out: {os.fsdecode(key)}")
    return write_index(values, style.order) if style.order else b""


def _normal_aliases(aliases: bytes, report: Report) -> list[bytes]:
    """The aliases as an index has them, of texts that end in NUL."""
    if b"[" not in aliases and b"]" not in aliases:
        return listed(aliases.replace(b"-", b"_"))
    normal: list[bytes] = []
    for alias in listed(aliases):
        text = os.fsdecode(alias)
        key = normal_alias(text)
        if key is None:
            report("WARNING", f"Unmatched bracket in {text}")
        else:
            normal.append(os.fsencode(key))
    return normal


def _device_nodes(indexed: Indexed, report: Report) -> bytes:
    nodes: list[bytes] = []
    for module, facts in zip(indexed.modules, indexed.facts, strict=True):
        if b"devname:" in facts.aliases:
            nodes += _device_line(module.name, listed(facts.aliases), report)
    return b"".join([b"# Device nodes to trigger on-demand module loading.\n", *nodes]) if nodes else b""


def _device_line(module: str, aliases: Sequence[bytes], report: Report) -> list[bytes]:
    """The module's line in modules.devname: its last device name before both name and numbers are known."""
    name: bytes | None = None
    device = b""
    for alias in aliases:
        numbers = _DEVICE.match(alias)
        if alias.startswith(b"devname:"):
            name = alias[8:]
        elif numbers:
            major, minor = (int(text) & 0xFFFFFFFF for text in numbers.group(2, 3))
            device = b"%s%d:%d" % (numbers[1][:1], major, minor)
        if name is not None and device:
            return [os.fsencode(module) + b" " + name + b" " + device + b"\n"]
    if name is not None:
        shown = os.fsdecode(name)
        report("ERROR", f"Module '{module}' has devname ({shown}) but lacks major and minor information. Ignoring.")
    return []


def _builtin_index(tree: str, style: Style, report: Report) -> bytes:
    data = _read(tree, "modules.builtin", report) if style.order else None
    if data is None:
        return b""
    values = IndexValues()
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        if not line[:1].isalpha():
            report("ERROR", f"Invalid modules.builtin line: {os.fsdecode(line)}")
            continue
        values.add(os.fsencode(module_name_of_path(os.fsdecode(line))), 0, b"")
    return _index(values, style, report)


def _builtin_alias_index(tree: str, style: Style, report: Report) -> bytes:
    data = _read(tree, "modules.builtin.modinfo", report) if style.order else None
    if data is None:
        return b""
    values = IndexValues()
    strings = iter(data.split(b"\0")[:-1])
    for string in strings:
        name, dot, told = string.partition(b".")
        key, equals, alias = told.partition(b"=")
        if not name or not dot:
            continue
        if not equals:
            next(strings, None)  # kmod looks for the end of this string behind its end
        elif key == b"alias" and alias:
            for normal in _normal_aliases(alias + b"\0", report):
                values.add(normal, 0, name)
    return _index(values, style, report)


def _read(tree: str, name: str, report: Report) -> bytes | None:
    try:
        with open(f"{tree}/{name}", "rb") as file:
            return file.read()
    except OSError as error:
        report("WARNING", f"could not open {name} at {tree}: {error.strerror}")
        return None
