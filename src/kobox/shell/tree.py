"""Paths as the shell means them: the kernel's own tree with a current directory, and ``host:PATH`` for this machine."""

from __future__ import annotations

import fnmatch
import posixpath
import re
import stat
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.errors import Errno
from kobox.kernel.records import DirEntry, Status

if TYPE_CHECKING:
    from kobox.shell.kernel import ShellKernel

HOST = "host:"
_WRITE, _CREATE, _TRUNCATE, _APPEND = 0o1, 0o100, 0o1000, 0o2000
_CHUNK = 1 << 16
_MAGIC = re.compile(r"[*?[]")


class Tree:
    """Files by the names that a user types. Errors are ``Errno`` (the kernel's) and ``OSError`` (this host's)."""

    def __init__(self, kernel: ShellKernel) -> None:
        self._kernel = kernel
        self.folder = "/"

    def absolute(self, path: str) -> str:
        """The kernel's path that is meant; ``..`` is taken off by name, as a shell's ``cd`` does."""
        return posixpath.normpath(posixpath.join(self.folder, path)).replace("//", "/")

    def change(self, path: str) -> None:
        """``cd``."""
        target = self.absolute(path)
        self._kernel.ls(target)
        self.folder = target

    def read(self, path: str) -> bytes:
        if path.startswith(HOST):
            return Path(path.removeprefix(HOST)).read_bytes()
        return self._kernel.read(self.absolute(path))

    def chunks(self, path: str) -> Generator[bytes, None, None]:
        """A file piece by piece, as one ``read`` after the other gives it: one without an end can be followed. A kernel
        in another process reads whole files. What goes wrong at the beginning is raised here, not later."""
        files = self._kernel.files
        if path.startswith(HOST) or not hasattr(files, "open"):
            return _given([self.read(path)])
        descriptor = files.open(self.absolute(path))
        try:
            first = files.read_from(descriptor, _CHUNK)
        except BaseException:
            files.close(descriptor)
            raise
        return _read_on(files, descriptor, first)

    def write(self, path: str, data: bytes, append: bool = False) -> None:
        """All of ``data``, in one call where the kernel takes it so."""
        if path.startswith(HOST):
            with open(path.removeprefix(HOST), "ab" if append else "wb") as file:
                file.write(data)
            return
        target = self.absolute(path)
        flags = _WRITE | _CREATE | (_APPEND if append else _TRUNCATE)
        count = self._kernel.files.write(target, data, flags)
        while 0 < count < len(data):
            data = data[count:]
            count = self._kernel.files.write(target, data, _WRITE | _APPEND)

    def entries(self, path: str) -> list[DirEntry]:
        if path.startswith(HOST):
            return [_host_entry(entry) for entry in Path(path.removeprefix(HOST) or ".").iterdir()]
        return self._kernel.ls(self.absolute(path))

    def status(self, path: str) -> Status:
        """``lstat``."""
        if path.startswith(HOST):
            own = Path(path.removeprefix(HOST)).lstat()
            return Status(own.st_mode, own.st_size, own.st_uid, own.st_gid)
        found: Status = self._kernel.files.status(self.absolute(path))
        return found

    def readlink(self, path: str) -> str:
        if path.startswith(HOST):
            return str(Path(path.removeprefix(HOST)).readlink())
        target: str = self._kernel.files.readlink(self.absolute(path))
        return target

    def is_folder(self, path: str) -> bool:
        """Whether it is a directory, or a link to one."""
        try:
            mode = self.status(path).mode
            if stat.S_ISLNK(mode):
                self.entries(path)
                return True
        except (Errno, OSError):
            return False
        return stat.S_ISDIR(mode)

    def glob(self, pattern: str) -> list[str]:
        """Names that match, sorted; empty where there is none. A backslash takes a character as it is; a slash at
        the end leaves directories only."""
        prefix, pattern = (HOST, pattern[len(HOST) :]) if pattern.startswith(HOST) else ("", pattern)
        found = [prefix + ("/" if pattern.startswith("/") else "")]
        parts = [part for part in pattern.split("/") if part]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            found = [name for base in found for name in self._matches(base, part, last)]
        if pattern.endswith("/"):
            return sorted(f"{name}/" for name in found if self.is_folder(name))
        return sorted(found)

    def _matches(self, base: str, part: str, last: bool) -> list[str]:
        start = base if not base or base.endswith(("/", ":")) else f"{base}/"
        if not has_magic(part):
            name = start + unescape(part)
            return [name] if not last or self._exists(name) else []
        try:
            entries = self.entries(start or ".")
        except (Errno, OSError):
            return []
        matches = re.compile(fnmatch.translate(_to_fnmatch(part))).match
        return [
            start + entry.name
            for entry in entries
            if matches(entry.name) and (part.startswith(".") or not entry.name.startswith("."))
            if last or entry.kind in ("dir", "link", "unknown")
        ]

    def _exists(self, path: str) -> bool:
        try:
            self.status(path)
        except (Errno, OSError):
            return False
        return True


def _given(pieces: list[bytes]) -> Generator[bytes, None, None]:
    yield from pieces


def _read_on(files: Any, descriptor: int, first: bytes) -> Generator[bytes, None, None]:
    try:
        chunk = first
        while chunk:
            yield chunk
            chunk = files.read_from(descriptor, _CHUNK)
    finally:
        files.close(descriptor)


def has_magic(pattern: str) -> bool:
    """Whether it has a wildcard that no backslash takes away."""
    return _MAGIC.search(re.sub(r"\\.", "", pattern, flags=re.DOTALL)) is not None


def escape(text: str) -> str:
    """``text`` with every wildcard taken as it is."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def unescape(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def _to_fnmatch(pattern: str) -> str:
    return re.sub(r"\\(.)", lambda found: f"[{found[1]}]" if found[1] in "*?[" else found[1], pattern, flags=re.DOTALL)


def _host_entry(path: Path) -> DirEntry:
    kind = "link" if path.is_symlink() else "dir" if path.is_dir() else "file"
    return DirEntry(path.name, kind)
