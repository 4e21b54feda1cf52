"""modinfo: what a module says of itself, by file, by name or by alias, built-in modules included.

Reading is as sparing as depmod's: section headers, ``.modinfo`` and the end of the file. How the lines look is the
command's business; here are records. Follows modinfo of kmod 30.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kobox.depot.modinfo_signature import SignatureInfo, claimed_size, signature_of
from kobox.depot.module_file import ModuleElf, info_strings, is_compressed, unpacked
from kobox.depot.names import module_name, module_name_of_path, normal_alias
from kobox.depot.sections import ELF64_LE, HEAD_SIZE, Odd, Sections
from kobox.depot.tree import ModuleTree

_USUAL_END = 4096
"""How much of a file's end holds any usual signature."""


class Parameter(NamedTuple):
    """A parameter of a module. ``type`` and ``description`` are None when the module doesn't say."""

    name: bytes
    type: bytes | None
    description: bytes | None


class Subject(NamedTuple):
    """A module that is asked about. Without a path it is built in, or nowhere to be found."""

    name: str
    path: str | None
    builtin: bool


class ModuleInfo(NamedTuple):
    """What a module says of itself."""

    subject: Subject
    fields: Sequence[tuple[bytes, bytes]]
    """(key, value) in the order of the file, parameters among them, the signature's not."""
    signature: SignatureInfo | None

    def get_all(self, key: str) -> list[bytes]:
        """The values of a key, the signature's included, in order."""
        wanted = key.encode("utf-8", "surrogateescape")
        return [value for name, value in self.all_fields() if name == wanted]

    def all_fields(self) -> list[tuple[bytes, bytes]]:
        """Fields and then the signature's, as modinfo lists them."""
        told = self.signature.fields() if self.signature is not None else []
        return [*self.fields, *[(key.encode(), value) for key, value in told]]

    def parameters(self) -> tuple[list[Parameter], list[tuple[bytes, bytes]]]:
        """Parameters in modinfo's order (the last named first), and the fields about parameters that make no
        sense."""
        found: dict[bytes, Parameter] = {}
        odd: list[tuple[bytes, bytes]] = []
        for key, value in self.fields:
            if key not in (b"parm", b"parmtype"):
                continue
            name, colon, text = value.partition(b":")
            if not colon:
                odd.append((key, value))
                continue
            known = found.get(name, Parameter(name, None, None))
            found[name] = known._replace(description=text) if key == b"parm" else known._replace(type=text)
        return list(reversed(found.values())), odd


def info_of_file(path: str) -> ModuleInfo:
    """A module file's own words. ``OSError`` when it can't be read as a module; ENOENT also without ``.modinfo``."""
    strings, end = _strings_and_end(path)
    return ModuleInfo(Subject(module_name_of_path(path), path, False), _fields(strings), signature_of(end))


def info_of_subject(tree: ModuleTree, subject: Subject) -> ModuleInfo:
    """As ``info_of_file`` for what ``find_subjects`` found.

    A built-in module's words are in modules.builtin.modinfo: ``OSError`` ENOENT without that file, ENOSYS when it
    doesn't name the module.
    """
    if subject.builtin:
        strings = tree.builtin_info(subject.name)
        if strings is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        raw = [text.encode("utf-8", "surrogateescape") for text in strings]
        return ModuleInfo(subject, _fields(raw), None)
    if subject.path is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return info_of_file(subject.path)._replace(subject=subject)


def find_subjects(tree: ModuleTree, text: str) -> list[Subject] | None:
    """The modules that a name or alias stands for, in kmod's order of places; None for an alias that can't be one."""
    alias = normal_alias(text)
    if alias is None:
        return None
    if ":" not in alias and tree.dep_line(alias) is not None:
        return [subject_of_name(tree, alias)]
    names: list[str] = []
    if alias.startswith("symbol:"):
        names = tree.modules_of_symbol(alias)
    names = names or tree.modules_of_alias(alias)
    if names:
        return [subject_of_name(tree, name) for name in names]
    if tree.is_builtin(alias):
        return [_builtin(tree, module_name(alias))]
    return [_builtin(tree, name) for name in tree.builtins_of_alias(alias)]


def find_subject(tree: ModuleTree, text: str) -> Subject | None:
    """The module of a name, aliases of modules not considered; None when there is none."""
    name = module_name(text)
    if tree.dep_line(name) is not None:
        return subject_of_name(tree, name)
    if tree.is_builtin(name):
        return _builtin(tree, name)
    return next((_builtin(tree, builtin) for builtin in tree.builtins_of_alias(name)), None)


def subject_of_name(tree: ModuleTree, name: str) -> Subject:
    """The module of a normalised name, wherever it is."""
    return Subject(name, tree.find(name), tree.is_builtin(name))


def _builtin(tree: ModuleTree, name: str) -> Subject:
    return Subject(name, tree.find(name), True)


def _fields(strings: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, _, value in (text.partition(b"=") for text in strings)]


def _strings_and_end(path: str) -> tuple[list[bytes], bytes]:
    """The strings of ``.modinfo``, and as much of the module's end as its signature may take."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, HEAD_SIZE, 0)
        if head[:6] == ELF64_LE:
            info = _modinfo(lambda: Sections.of_file(fd, head))
            if info is not None:
                return info_strings(info), _end(fd)
        with open(fd, "rb", buffering=0, closefd=False) as file:
            data = file.read()
    finally:
        os.close(fd)
    if is_compressed(data[:8]) or len(data) < 8:
        data = unpacked(data, path)
        info = _modinfo(lambda: Sections.of_bytes(data)) if data[:6] == ELF64_LE else None
        if info is not None:
            return info_strings(info), data
    strings = ModuleElf(data, path).info()
    if strings is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return strings, data


def _modinfo(opened: Callable[[], Sections]) -> bytes | None:
    """The section; None when it is missing or the file is for the plain reader."""
    try:
        return opened().bytes_of(b".modinfo\0")
    except Odd:
        return None


def _end(fd: int) -> bytes:
    """The end of a file, as much as its signature says to take."""
    size = os.fstat(fd).st_size
    start = max(size - _USUAL_END, 0)
    end = os.pread(fd, size - start, start)
    claimed = claimed_size(end)
    return os.pread(fd, claimed, max(size - claimed, 0)) if claimed > len(end) else end
