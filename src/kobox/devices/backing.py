"""What lies behind a disk: a file of the host, bytes in memory, or any object with a few methods.

A backing that stands on a state of the kernel (``mark``) can be put back to it: see ``Undo``.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

SECTOR = 512
_BATCH = 1000
"""Buffers of one system call; the host takes 1024 (IOV_MAX)."""


@runtime_checkable
class Backing(Protocol):
    """A store of ``size`` bytes. Ranges that are asked for lie inside it; an ``OSError`` becomes an I/O error of the
    disk. ``flush`` returns when all that was written lasts."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, count: int) -> bytes | bytearray | memoryview: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None: ...


class BulkBacking(Backing, Protocol):
    """A backing that reads and writes the guest's memory itself, without a copy between."""

    def read_into(self, offset: int, parts: Sequence[memoryview]) -> None: ...

    def write_from(self, offset: int, parts: Sequence[memoryview]) -> None: ...


class Discarding(Protocol):
    """A backing that can do without the contents of a range; it reads as zeros then."""

    def discard(self, offset: int, count: int) -> None: ...


class FileBacking:
    """A file or block device of the host. Data goes straight between it and the guest's memory."""

    def __init__(self, path: str | os.PathLike[str], read_only: bool = False) -> None:
        self.path = os.fspath(path)
        self._descriptor = os.open(self.path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        self._closer = weakref.finalize(self, os.close, self._descriptor)
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self, offset: int, count: int) -> bytes:
        """Zeros where the file has become shorter."""
        return os.pread(self._descriptor, count, offset).ljust(count, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        self.write_from(offset, [memoryview(data)])

    def read_into(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill the parts, one after the other."""
        for start in range(0, len(parts), _BATCH):
            batch = parts[start : start + _BATCH]
            wanted = sum(map(len, batch))
            if os.preadv(self._descriptor, batch, offset) != wanted:
                self._read_piecewise(offset, batch)
            offset += wanted

    def _read_piecewise(self, offset: int, parts: Sequence[memoryview]) -> None:
        """After a short read: a signal, or the end of the file."""
        for part in parts:
            part[:] = self.read(offset, len(part))
            offset += len(part)

    def write_from(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Store the parts, one after the other."""
        for start in range(0, len(parts), _BATCH):
            batch = parts[start : start + _BATCH]
            wanted = sum(map(len, batch))
            done = os.pwritev(self._descriptor, batch, offset)
            rest = b"".join(batch)[done:] if done != wanted else b""
            while rest:
                count = os.pwrite(self._descriptor, rest, offset + wanted - len(rest))
                rest = rest[count:]
            offset += wanted

    def flush(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file; happens by itself when nobody holds this object any more."""
        self._closer()


class MemoryBacking:
    """Bytes of this process; ``data`` is what they are now."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = bytearray(data)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def read_into(self, offset: int, parts: Sequence[memoryview]) -> None:
        whole = memoryview(self.data)
        for part in parts:
            part[:] = whole[offset : offset + len(part)]
            offset += len(part)

    def write_from(self, offset: int, parts: Sequence[memoryview]) -> None:
        for part in parts:
            self.data[offset : offset + len(part)] = part
            offset += len(part)

    def discard(self, offset: int, count: int) -> None:
        self.data[offset : offset + count] = bytes(count)

    def flush(self) -> None:
        """Nothing lasts longer than this process anyway."""


class Undo:
    """A backing whose contents at the latest mark can be had again: what is overwritten is kept first, once."""

    _GRAIN = 64 << 10

    def __init__(self, inner: Backing) -> None:
        self.inner = inner
        self._kept: dict[int, bytes] | None = None
        """Grains as they were at the mark, by number; None: nothing is marked."""

    @property
    def size(self) -> int:
        return self.inner.size

    def read_into(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill the parts from the store, by its own way where it has one."""
        bulk = getattr(self.inner, "read_into", None)
        if bulk is not None:
            bulk(offset, parts)
            return
        total = sum(map(len, parts))
        data = memoryview(self.inner.read(offset, total))
        if len(data) != total:
            raise OSError(f"{self.inner!r}: {len(data)} bytes read at {offset:#x}, {total} expected")
        for part in parts:
            part[:], data = data[: len(part)], data[len(part) :]

    def write_from(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Store the parts."""
        if self._kept is not None:
            self._keep(offset, sum(map(len, parts)))
        bulk = getattr(self.inner, "write_from", None)
        if bulk is not None:
            bulk(offset, parts)
        else:
            self.inner.write(offset, b"".join(parts))

    @property
    def discards(self) -> bool:
        """Whether the store can do without contents."""
        return hasattr(self.inner, "discard")

    def discard(self, offset: int, count: int) -> None:
        """Do without the contents of a range."""
        if self._kept is not None:
            self._keep(offset, count)
        discard = getattr(self.inner, "discard")  # noqa: B009  # optional; ``discards`` told
        discard(offset, count)

    def flush(self) -> None:
        self.inner.flush()

    def mark(self) -> dict[int, bytes]:
        """From now on keep what is overwritten. Returns the keepsake for ``back_to``."""
        self._kept = {}
        return self._kept

    def back_to(self, kept: dict[int, bytes]) -> None:
        """Make the contents what they were at that mark, and go on keeping for it. What was kept for later marks is
        older there and goes first."""
        now = self._kept
        if now is not None and now is not kept:
            self._put_back(now)
        self._put_back(kept)
        self._kept = kept

    def _put_back(self, kept: dict[int, bytes]) -> None:
        for number, data in kept.items():
            self.inner.write(number * self._GRAIN, data)
        kept.clear()

    def _keep(self, offset: int, count: int) -> None:
        assert self._kept is not None
        for number in range(offset // self._GRAIN, (offset + count - 1) // self._GRAIN + 1):
            if number not in self._kept:
                start = number * self._GRAIN
                self._kept[number] = bytes(self.inner.read(start, min(self._GRAIN, self.size - start)))
