"""Memory of a guest process, mapped as a program maps it: for calls that hold on to the pages of a buffer, as direct
input and output and crypto sockets do. The window for system calls (``syscalls``) has no pages that the
kernel knows."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from kobox.kernel.syscalls import Syscalls

_READ_WRITE, _PRIVATE_ANONYMOUS_POPULATED = 0x3, 0x2 | 0x20 | 0x8000


class UserPages:
    """``size`` bytes for as long as the block lasts; every task that works for Python sees them."""

    def __init__(self, syscalls: Syscalls, size: int) -> None:
        self._sys, self.size = syscalls, size
        self.address = 0

    def __enter__(self) -> Self:
        what = f"map {self.size} bytes"
        self.address = self._sys.checked(
            what, "mmap", 0, self.size, _READ_WRITE, _PRIVATE_ANONYMOUS_POPULATED, -1, 0
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sys.checked("unmap", "munmap", self.address, self.size)

    def put(self, data: bytes, offset: int = 0) -> int:
        """Store bytes; their address."""
        self._sys.guest.write(self.address + offset, data)
        return self.address + offset

    def read(self, size: int, offset: int = 0) -> bytes:
        return self._sys.guest.read(self.address + offset, size)
