"""``kobox modinfo``: kmod's options, lines and exit codes, of a root directory, of files, or of this host; or
JSON."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

from kobox.cli.gnu_getopt import getopt_long
from kobox.cli.kmod_face import Console, guarded, indexed_for_kernel, session_of, system_of, version_lines
from kobox.cli.kmod_options import MODINFO
from kobox.cli.options import getopt_tables, help_text
from kobox.depot.modinfo import (
    ModuleInfo,
    Parameter,
    Subject,
    find_subject,
    find_subjects,
    info_of_subject,
)
from kobox.depot.names import absolute_path, is_module_file, module_name_of_path
from kobox.depot.tree import ModuleTree, release_of

SHORT, LONG = getopt_tables(MODINFO.options)

_FIELDS = {"a": "author", "d": "description", "l": "license", "p": "parm", "n": "filename"}


def main(argv: Sequence[str], on_kernel: bool = False) -> int:
    """Run ``modinfo``; ``on_kernel``: what ``argv`` names is the system of a kernel of the caller's."""
    console = Console("modinfo", verbosity=4)
    return guarded(console, lambda: _main(list(argv), console, on_kernel))


def _main(argv: list[str], console: Console, on_kernel: bool) -> int:
    options, operands = getopt_long(argv, SHORT, LONG)
    root, release, field, session = None, None, None, None
    is_system = False
    flags: set[str] = set()
    for name, value in options:
        if name in ("h", "V"):
            sys.stdout.write(help_text(MODINFO) if name == "h" else "\n".join(version_lines()) + "\n")
            return 0
        if name in ("b", "root"):
            root, is_system = value, name == "root"
        elif name == "k":
            release = value
        elif name == "session":
            session = value
        elif name == "F":
            field = value
        elif name in _FIELDS:
            field = _FIELDS[name]
        else:
            flags.add(name)
    if not operands and "all" not in flags:
        console.say("ERROR", "missing module or filename.")
        return 1
    kernel = session_of(session, root is not None or release is not None)
    if kernel is not None and not all(map(_is_file, operands)):
        root, release = system_of(kernel)
        is_system = on_kernel = True
    if is_system and release is None and ("all" in flags or not all(map(_is_file, operands))):
        release = release_of(root or "", hint="choose one with -k")
    found = ModuleTree(absolute_path(root) if root else "", release)
    with indexed_for_kernel(found) if on_kernel and is_system else found as tree:
        writer = _JsonWriter(field) if "json" in flags else _LineWriter(field, "\0" if "0" in flags else "\n", console)
        asked = _Asked(tree, console, writer)
        if "all" in flags:
            asked.all()
        for operand in operands:
            asked.about(operand, by_name="m" in flags)
        writer.close()
    return int(asked.failed)


class _Asked:
    """Operands become modules, modules become lines; what goes wrong is said and remembered."""

    def __init__(self, tree: ModuleTree, console: Console, writer: _LineWriter | _JsonWriter) -> None:
        self.tree, self.console, self.writer = tree, console, writer
        self.failed = False

    def all(self) -> None:
        """Every module of the tree."""
        directory = self.tree.directory
        if not any(os.path.exists(f"{directory}/modules.dep{suffix}") for suffix in ("", ".bin")):
            self._fail(f"{directory} has no modules.dep")
        for name, line in self.tree.all_deps():
            self._tell(Subject(name, self.tree.path(line.path), False))

    def about(self, operand: str, by_name: bool) -> None:
        """One operand: a name, a file, or an alias."""
        if by_name:
            subject = find_subject(self.tree, operand)
            if subject is None:
                self._fail(f"Module name {operand} not found.")
            else:
                self._tell(subject)
        elif _is_file(operand):
            self._tell(Subject(module_name_of_path(operand), absolute_path(operand), False))
        else:
            self._alias(operand)

    def _alias(self, operand: str) -> None:
        subjects = find_subjects(self.tree, operand)
        if subjects is None:
            self._fail(f"Module alias {operand} not found.")
        elif not subjects:
            self._fail(f"Module {operand} not found.")
        for subject in subjects or ():
            self._tell(subject)

    def _tell(self, subject: Subject) -> None:
        self.writer.begin(subject)
        if not self.writer.wants_info:
            return
        try:
            info = info_of_subject(self.tree, subject)
        except OSError as error:
            if subject.path is None and error.errno == errno.ENOENT:  # an old tree without words of built-in modules
                self.writer.info(ModuleInfo(subject, (), None))
                return
            self._fail(f"could not get modinfo from '{subject.name}': {os.strerror(error.errno or errno.EIO)}")
            return
        self.writer.info(info)

    def _fail(self, text: str) -> None:
        self.writer.flush()
        self.console.say("ERROR", text)
        self.failed = True


class _LineWriter:
    """modinfo's own form."""

    def __init__(self, field: str | None, end: str, console: Console) -> None:
        self.field, self.end, self.console = field, end.encode(), console
        self.wants_info = field != "filename"
        self.out: list[bytes] = []

    def begin(self, subject: Subject) -> None:
        """The lines that need no look into the module."""
        name = os.fsencode(subject.name)
        filename = b"(builtin)" if subject.path is None else os.fsencode(subject.path)
        if subject.path is None and self.field in (None, "name"):
            self._line(b"name", name)
        if self.field in (None, "filename"):
            self._line(b"filename", filename)

    def info(self, info: ModuleInfo) -> None:
        """All fields, or the one asked for; parameters last."""
        if self.field not in (None, "parm"):
            self.out += [value + self.end for value in info.get_all(self.field or "")]
            self.flush_large()
            return
        parameters, odd = info.parameters()
        for key, value in odd:
            self.flush()
            self.console.say("ERROR", f"Found invalid \"{os.fsdecode(key)}={os.fsdecode(value)}\": missing ':'")
        if self.field == "parm":
            self.out += [_parameter(parameter, b": (%b)") + self.end for parameter in parameters]
        else:
            for key, value in info.all_fields():
                if key not in (b"parm", b"parmtype"):
                    self.out.append(key + b"=" + value + b"\0" if self.end == b"\0" else _padded(key) + value + b"\n")
            self.out += [_padded(b"parm") + _parameter(parameter, b":%b") + self.end for parameter in parameters]
        self.flush_large()

    def _line(self, key: bytes, value: bytes) -> None:
        self.out.append((value if self.field else _padded(key) + value) + self.end)

    def flush_large(self) -> None:
        """Let go of what is finished when it has become much."""
        if len(self.out) > 4096:
            self.flush()

    def flush(self) -> None:
        """Write what is finished, before a message."""
        sys.stdout.buffer.write(b"".join(self.out))
        sys.stdout.buffer.flush()
        self.out.clear()

    close = flush


class _JsonWriter:
    """A list of records; docs/modinfo.md describes them."""

    wants_info = True

    def __init__(self, field: str | None) -> None:
        self.field = field
        self.records: list[dict[str, Any]] = []

    def begin(self, subject: Subject) -> None:
        """Nothing stands before the record."""

    def info(self, info: ModuleInfo) -> None:
        """One record."""
        self.records.append(info_json(info, self.field))

    def flush(self) -> None:
        """Records are written together at the end."""

    def close(self) -> None:
        """Write them."""
        import json

        sys.stdout.write("[\n" + ",\n".join(map(json.dumps, self.records)) + "\n]\n" if self.records else "[]\n")
        sys.stdout.flush()


def info_json(info: ModuleInfo, only: str | None = None) -> dict[str, Any]:
    """The record of ``--json``; with ``only`` just that one of its fields."""
    fields: dict[str, list[str]] = {}
    for key, value in info.fields:
        if key not in (b"parm", b"parmtype"):
            fields.setdefault(_text(key), []).append(_text(value))
    signature = info.signature
    record: dict[str, Any] = {
        "name": info.subject.name,
        "filename": info.subject.path,
        "builtin": info.subject.path is None,
    }
    if only is not None:
        return record | ({} if only in record else {only: [_text(value) for value in info.get_all(only)]})
    record["fields"] = fields
    record["parameters"] = [
        {"name": _text(name), "type": _text(kind), "description": _text(description)}
        for name, kind, description in info.parameters()[0]
    ]
    record["signature"] = signature and {
        "id": signature.kind,
        "signer": _text(signature.signer),
        "key": signature.key.hex(),
        "hash": signature.hash,
        "value": signature.value.hex(),
    }
    return record


def _text(value: bytes | None) -> Any:
    return None if value is None else value.decode("utf-8", "replace")


def _padded(key: bytes) -> bytes:
    """``key:`` in a column of 16; a longer key is followed by as many spaces as it is too long, as printf has it."""
    return key + b":" + b" " * abs(15 - len(key))


def _parameter(parameter: Parameter, only_type: bytes) -> bytes:
    name, kind, description = parameter
    if description is None:
        return name + only_type % (kind or b"")
    return name + b":" + description + (b" (" + kind + b")" if kind is not None else b"")


def _is_file(name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name).st_mode) and is_module_file(name)
    except OSError:
        return False
