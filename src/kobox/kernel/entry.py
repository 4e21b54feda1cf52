"""The system calls of modules, up to where a load or an unload begins: who may, which flags, how the file is read.

Files are read by the guest's own ``kernel_read_file_from_fd``, so that every odd descriptor gets the kernel's own
answer. Generators as in ``loader``. Follows the end of kernel/module/main.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator

from kobox.errors import Errno
from kobox.kernel.env import Call, Result, Steps
from kobox.kernel.loader import IGNORE_MODVERSIONS, IGNORE_VERMAGIC, Loader, Step, signed32
from kobox.kernel.unloader import Unloader
from kobox.ko import decompress

COMPRESSED_FILE = 4
_CAP_SYS_MODULE = 16
_INT_MAX = (1 << 31) - 1
_ELF_HEADER_SIZE = 64
_BUFFER_OFFSET = 0x100
_COMPRESSIONS = ("MODULE_COMPRESS_GZIP", "MODULE_COMPRESS_XZ", "MODULE_COMPRESS_ZSTD")


class Entry:
    """``finit_module``, ``init_module`` and ``delete_module``. ``None`` for bytes stands for a NULL pointer."""

    def __init__(self, loader: Loader, unloader: Unloader) -> None:
        self._loader, self._unloader = loader, unloader
        self._guest = loader.guest
        self._env = loader.env

    def finit_module(
        self, descriptor: int, arguments: bytes | None, flags: int, steps: list[Step] | None = None
    ) -> Result:
        return (yield from self._load_file(lambda: self._read_file(descriptor), arguments, flags, steps))

    def load_file(
        self, data: bytes | int, arguments: bytes | None, flags: int, steps: list[Step] | None = None
    ) -> Result:
        """``finit_module`` of a file outside of the guest: its bytes, or the errno for which it cannot be read."""
        return (yield from self._load_file(lambda: _given(data), arguments, flags, steps))

    def _load_file(
        self,
        read: Callable[[], Generator[Call, int, bytes]],
        arguments: bytes | None,
        flags: int,
        steps: list[Step] | None,
    ) -> Result:
        try:
            yield from self._may()
            if flags & ~(IGNORE_MODVERSIONS | IGNORE_VERMAGIC | COMPRESSED_FILE):
                raise Errno(errno.EINVAL, f"unknown flags {flags:#x}")
            data = yield from read()
            if flags & COMPRESSED_FILE:
                data = self._decompress(data)
        except Errno as refused:
            return -refused.number
        return (yield from self._loader.load(data, arguments, flags, steps, from_file=True))

    def init_module(
        self, data: bytes | None, length: int, arguments: bytes | None, steps: list[Step] | None = None
    ) -> Result:
        """``length`` as the caller said it; ``data`` is what can be read there."""
        try:
            yield from self._may()
            if length < _ELF_HEADER_SIZE:
                raise Errno(errno.ENOEXEC, "shorter than an ELF header")
            if length >> 12 > self._guest.read_uint(self._guest.symbol("_totalram_pages")):
                raise Errno(errno.ENOMEM, "longer than all memory")
            if data is None or len(data) < length:
                raise Errno(errno.EFAULT, "the module's bytes cannot be read")
        except Errno as refused:
            return -refused.number
        return (yield from self._loader.load(data[:length], arguments, 0, steps))

    def delete_module(self, name: bytes | None, flags: int) -> Result:
        try:
            yield from self._may()
            if name is None:
                raise Errno(errno.EFAULT, "no name")
        except Errno as refused:
            return -refused.number
        return (yield from self._unloader.unload(name.decode("latin-1"), flags))

    def _may(self) -> Steps:
        allowed = yield (self._guest.symbol("capable"), _CAP_SYS_MODULE)
        if not allowed & 0xFF or self._guest.read_uint(self._guest.symbol("modules_disabled"), 4):
            raise Errno(errno.EPERM, "not allowed, or modules are disabled")

    def _read_file(self, descriptor: int) -> Generator[Call, int, bytes]:
        guest = self._guest
        place = self._env.scratch(bytes(8), _BUFFER_OFFSET)
        kind = guest.layouts.enum("kernel_read_file_id")["READING_MODULE"]
        read = guest.symbol("kernel_read_file_from_fd")
        length = signed32((yield (read, descriptor, 0, place, _INT_MAX, 0, kind)))
        if length < 0:
            raise Errno(-length, "the file cannot be read as a module")
        buffer = guest.read_uint(place)
        data = guest.read(buffer, length)
        yield (guest.symbol("vfree"), buffer)
        return data

    def _decompress(self, data: bytes) -> bytes:
        config = self._guest.image.config
        if not config.enabled("MODULE_DECOMPRESS"):
            raise Errno(errno.EOPNOTSUPP, "this kernel does not decompress modules")
        if not any(config.enabled(name) for name in _COMPRESSIONS):
            raise Errno(errno.EOPNOTSUPP, "this kernel knows no compression of modules")
        return bytes(decompress(data, "module"))


def _given(data: bytes | int) -> Generator[Call, int, bytes]:
    """What was read already."""
    if isinstance(data, int):
        raise Errno(data, "the file cannot be read as a module")
    yield from ()
    return data
