"""A kernel whose tree is a directory of this host, so that sh and coreutils can be asked about the same files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kobox.errors import Errno
from kobox.kernel.log import LogRecord
from kobox.kernel.modules import ModuleRecord, parse_proc_modules
from kobox.kernel.records import DirEntry, Status
from kobox.shell import TOOLS, Exit, Shell, help_command

T = TypeVar("T")


def kernel_call(call: Callable[[], T]) -> T:
    """What the host refuses is refused as a kernel does it."""
    try:
        return call()
    except OSError as error:
        raise Errno(error.errno or 5, str(error.filename)) from None


class FolderFiles:
    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, path: str) -> Path:
        assert path.startswith("/"), path
        return self._root / path.lstrip("/")

    def read(self, path: str) -> bytes:
        return kernel_call(self.place(path).read_bytes)

    def write(self, path: str, data: bytes, flags: int = os.O_WRONLY) -> int:
        def write() -> int:
            descriptor = os.open(self.place(path), flags, 0o644)
            try:
                return os.write(descriptor, data)
            finally:
                os.close(descriptor)

        return kernel_call(write)

    def list(self, path: str) -> list[DirEntry]:
        def kind(entry: os.DirEntry[str]) -> str:
            return "link" if entry.is_symlink() else "dir" if entry.is_dir() else "file"

        return kernel_call(lambda: [DirEntry(entry.name, kind(entry)) for entry in os.scandir(self.place(path))])

    def status(self, path: str) -> Status:
        found = kernel_call(self.place(path).lstat)
        return Status(found.st_mode, found.st_size, found.st_uid, found.st_gid)

    def readlink(self, path: str) -> str:
        return kernel_call(lambda: os.readlink(self.place(path)))


class FolderKernel:
    """As much of a kernel as the shell needs."""

    release = "6.1.0-test"
    modules_folder = None

    def __init__(self, root: Path) -> None:
        self.files = FolderFiles(root)
        self.now = 1.5
        self.interrupts = 0

    def read(self, path: str) -> bytes:
        return self.files.read(path)

    def ls(self, path: str) -> list[DirEntry]:
        return self.files.list(path)

    @property
    def modules(self) -> list[ModuleRecord]:
        return parse_proc_modules("hello 16384 0 - Live 0x0\nbonding 204800 1 hello, Live 0x0\n")

    def dmesg(self, *, boot: bool = False) -> list[LogRecord]:
        return []

    def log_start(self) -> int:
        return 0

    def syslog(self, action: int, value: int = 0) -> int:
        raise Errno(38, "syslog")

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def init_module(self, data: bytes, parameters: str = "", flags: int = 0) -> None:
        raise Errno(8, "not a module")

    def delete_module(self, name: str, flags: int) -> int:
        return -2

    def set_timeout(self, seconds: float) -> None: ...

    def interrupt(self, wanted: bool = True) -> None:
        self.interrupts += wanted

    def close(self) -> None: ...


class Ran:
    """One shell and what it said."""

    def __init__(self, root: Path, name: str = "sh") -> None:
        self._out, self._err = io.BytesIO(), io.BytesIO()
        self.shell = Shell(FolderKernel(root), TOOLS, self._out, self._err, name)
        self.shell.commands["help"] = help_command(lambda: self.shell.commands)

    def __call__(self, text: str) -> tuple[int, str, str]:
        """(status, output, messages) of a script."""
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        try:
            status = self.shell.run(text)
        except Exit as left:
            status = left.status
        return status, self._out.getvalue().decode("utf-8", "surrogateescape"), self._err.getvalue().decode()
