"""The host's own kernel as a target: finit_module, init_module and delete_module through the C library.

Reached only through ``--live``. Compressed modules are given to the kernel as they are where it can read them, else
uncompressed by kobox: as bytes, or, when something is to be ignored, which only finit_module can be told, as a file
in memory.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from errno import ENOENT, ENOSYS

from kobox.depot.targets import IGNORE_MODVERSIONS, IGNORE_VERMAGIC, Loaded, SysModules
from kobox.errors import Errno, NotModelled
from kobox.ko import decompress

COMPRESSED_FILE = 4
"""Flag of finit_module(2)."""

_SUFFIXES = {"xz": ".xz", "gzip": ".gz", "zstd": ".zst"}

_NUMBERS = {
    "x86_64": {"init_module": 175, "delete_module": 176, "finit_module": 313},
    "aarch64": {"init_module": 105, "delete_module": 106, "finit_module": 273},
    "riscv64": {"init_module": 105, "delete_module": 106, "finit_module": 273},
}
"""System call numbers by machine; the C library has no functions for these calls."""


class LiveTarget:
    """This host. Needs CAP_SYS_MODULE for everything but ``loaded``."""

    def loaded(self) -> Mapping[str, Loaded]:
        return SysModules()

    def insert(self, path: str, options: str, flags: int) -> None:
        compressed = not path.endswith(".ko")
        forced = flags & (IGNORE_MODVERSIONS | IGNORE_VERMAGIC)
        if not compressed or path.endswith(_kernel_suffix()):
            error = _insert_file(_open(path), options, flags | (COMPRESSED_FILE if compressed else 0))
            if error != ENOSYS or forced:
                _check(error, path)
                return
        data = _uncompressed(path)
        if forced:
            _check(_insert_file(_file_in_memory(data), options, flags), path)
        else:
            _check(_call("init_module", data, len(data), os.fsencode(options)), path)

    def remove(self, name: str, flags: int) -> None:
        _check(_call("delete_module", os.fsencode(name), flags), name)

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        saved = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            status = os.waitstatus_to_exitcode(os.system(command))
        finally:
            for name, value in saved.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        return status if status >= 0 else 128 - status


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Errno(error.errno or ENOENT, path) from error


def _insert_file(fd: int, options: str, flags: int) -> int:
    """Insert from a descriptor, which is closed; 0 or the errno."""
    try:
        return _call("finit_module", fd, os.fsencode(options), flags)
    finally:
        os.close(fd)


def _file_in_memory(data: bytes) -> int:
    """A descriptor for reading only: the kernel takes no module from a file that is open for writing."""
    writing = os.memfd_create("module")
    try:
        with open(writing, "wb", closefd=False) as file:
            file.write(data)
        return os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)


def _kernel_suffix() -> str:
    """The suffix of compressed modules that the kernel uncompresses itself; one that no file has if it can't."""
    try:
        with open("/sys/module/compression", encoding="ascii") as file:
            return _SUFFIXES.get(file.read().strip(), "\0")
    except OSError:
        return "\0"


def _uncompressed(path: str) -> bytes:
    with open(path, "rb") as file:
        return bytes(decompress(file.read(), path))


def _call(name: str, *args: object) -> int:
    """Make a system call; 0 or the positive errno."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        raise NotModelled(f"--live on {platform.machine()}: its system call numbers are not known to kobox")
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in args]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(numbers[name]), *values)
    return ctypes.get_errno() if result != 0 else 0


def _check(error: int, what: str) -> None:
    if error:
        raise Errno(error, what)
