"""Guest-physical memory: one flat range of this process's address space, put back to a snapshot by mapping it again.

Everything is addressed physically here; virtual addresses are the business of ``paging``. The range is an anonymous
mapping at first, and a private mapping of a snapshot file afterwards, so that a reset costs the pages that were written
and nothing else. Pages that were written before the first two resets will be written again: they are not given back but
overwritten, since a first write to a page costs twenty times as much as copying one.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import NamedTuple

PAGE_SIZE = 4096
PAGE_MASK = ~(PAGE_SIZE - 1)

_PROT_RW = 1 | 2
_PROT_READ = 1
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000
_MADV_DONTNEED = 4
_MOST_KEPT = 512
"""Pages that a reset copies at most; where more are written each time, giving them back is as cheap."""
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Layer(NamedTuple):
    """What was written over the snapshot up to some moment: runs of pages (start in bytes, their contents)."""

    runs: tuple[tuple[int, bytes], ...]


class PhysicalMemory:
    """``size`` bytes of RAM from physical address 0. ``bytes`` and ``words`` are live views (1 and 8 bytes a step)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.host_address = _map(None, size, -1)
        raw = (ctypes.c_char * size).from_address(self.host_address)
        self.bytes = memoryview(raw).cast("B")
        self.words = self.bytes.cast("Q")
        self._snapshot_fd = -1
        self._original = 0
        """Where the snapshot is mapped a second time, to copy pages from; 0: not yet."""
        self._written: bytes | None = None
        """A byte for each page: 1 where it was written before the first reset."""
        self._kept: list[tuple[int, int]] | None = None
        """Runs of pages [start, end) that a reset copies back, in bytes; None: not known yet."""
        self._layers: list[_Layer] = []

    def read(self, paddr: int, size: int) -> bytes:
        return bytes(self.bytes[paddr : paddr + size])

    def write(self, paddr: int, data: bytes) -> None:
        self.bytes[paddr : paddr + len(data)] = data

    def use_file(self, path: str | os.PathLike[str]) -> None:
        """Take the contents of ``path`` (exactly ``size`` bytes, sparse where zero) as the state to reset to."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(fd).st_size != self.size:
            os.close(fd)
            raise ValueError(f"{path}: a snapshot of {os.fstat(fd).st_size} bytes for {self.size} bytes of memory")
        self.use_fd(fd)

    def use_fd(self, fd: int) -> None:
        """As ``use_file``; the descriptor becomes this object's own."""
        if self._snapshot_fd >= 0:
            os.close(self._snapshot_fd)
        self._forget_original()
        self._layers.clear()
        self._snapshot_fd = fd
        _map(self.host_address, self.size, fd)

    def freeze(self) -> None:
        """Make the present contents the state to reset to, without a file that outlives the process."""
        fd = os.memfd_create("kobox-snapshot", os.MFD_CLOEXEC)
        os.ftruncate(fd, self.size)
        self.save(fd)
        self.use_fd(fd)

    def push(self) -> None:
        """Make the present contents the state to reset to until ``pop``: pages that differ from the snapshot are kept
        on top of it, so that it costs what was written since. Memory must stand on a snapshot."""
        own = _page_flags(self.host_address, self.size, _IS_OWN)
        runs = re.finditer(_RUN_OF_OWN, own)
        places = ((found.start() * PAGE_SIZE, found.end() * PAGE_SIZE) for found in runs)
        self._layers.append(_Layer(tuple((start, bytes(self.bytes[start:end])) for start, end in places)))

    def pop(self) -> None:
        """Make the state before the last ``push`` the one to reset to; the next ``reset`` goes there."""
        self._layers.pop()

    def save(self, fd: int) -> None:
        """Write the contents into an empty file of ``size`` bytes, leaving holes where memory is zero."""
        zero = bytes(PAGE_SIZE)
        for touched in re.finditer(b"\1+", self._touched()):
            start, end = touched.start() * PAGE_SIZE, touched.end() * PAGE_SIZE
            run_start = None
            for page in range(start, end + PAGE_SIZE, PAGE_SIZE):
                used = page < end and self.bytes[page : page + PAGE_SIZE] != zero
                if used and run_start is None:
                    run_start = page
                elif not used and run_start is not None:
                    _write_all(fd, self.bytes[run_start:page], run_start)
                    run_start = None

    def _touched(self) -> bytearray:
        """A byte for each page: 0 where it was never written and is a hole of the snapshot, so that it must be zero."""
        pages = bytearray(_page_flags(self.host_address, self.size, _WAS_TOUCHED))
        end = 0
        while self._snapshot_fd >= 0 and end < self.size:
            try:
                start = os.lseek(self._snapshot_fd, end, os.SEEK_DATA)
            except OSError:
                break  # no data behind this point
            end = os.lseek(self._snapshot_fd, start, os.SEEK_HOLE)
            first, behind = start // PAGE_SIZE, -(-end // PAGE_SIZE)
            pages[first:behind] = b"\1" * (behind - first)
        return pages

    def reset(self) -> None:
        """Forget every write since the snapshot, or since the last ``push`` that was not taken back."""
        if self._layers:
            self._lay(self._layers[-1])
            return
        if self._kept is None:
            self._learn()
            _map(self.host_address, self.size, self._snapshot_fd)
            return
        behind = 0
        for start, end in self._kept:
            self._give_back(behind, start)
            ctypes.memmove(self.host_address + start, self._original + start, end - start)
            behind = end
        self._give_back(behind, self.size)

    def _lay(self, layer: _Layer) -> None:
        behind = 0
        for start, contents in layer.runs:
            self._give_back(behind, start)
            ctypes.memmove(self.host_address + start, contents, len(contents))
            behind = start + len(contents)
        self._give_back(behind, self.size)

    def _learn(self) -> None:
        """At each of the first two resets: which pages were written."""
        written = _page_flags(self.host_address, self.size, _IS_OWN)
        if self._written is None:
            self._written = written
            return
        before, now = (int.from_bytes(flags, "little") for flags in (self._written, written))
        few = (flags for flags in (before | now, before & now, 0) if flags.bit_count() <= _MOST_KEPT)
        runs = re.finditer(b"\1+", next(few).to_bytes(len(written), "little"))
        self._kept = [(found.start() * PAGE_SIZE, found.end() * PAGE_SIZE) for found in runs]
        self._original = _map(None, self.size, self._snapshot_fd, _PROT_READ)

    def _give_back(self, start: int, end: int) -> None:
        if start < end and _libc.madvise(self.host_address + start, end - start, _MADV_DONTNEED):
            error = ctypes.get_errno()
            raise OSError(error, f"cannot reset guest memory: {os.strerror(error)}")

    def _forget_original(self) -> None:
        if self._original:
            _libc.munmap(self._original, self.size)
        self._original, self._written, self._kept = 0, None, None

    def close(self) -> None:
        """Give the memory back. No view may be used afterwards."""
        if self.host_address:
            self.words.release()
            self.bytes.release()
            self._forget_original()
            _libc.munmap(self.host_address, self.size)
            self.host_address = 0
            if self._snapshot_fd >= 0:
                os.close(self._snapshot_fd)
                self._snapshot_fd = -1


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    """A disk that is nearly full takes a part, and refuses the next."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


_WAS_TOUCHED = bytes(0 if flags < 0x40 else 1 for flags in range(256))
_IS_OWN = bytes(1 if flags & 0xC0 and not flags & 0x20 else 0 for flags in range(256))
"""By the highest byte of a pagemap entry (bit 7, the page is there; bit 6, it was swapped out; bit 5, it is a file's):
whether it was ever touched, and whether it was written, so that it is no longer the file's."""


_RUN_OF_OWN = re.compile(b"\1(?:\0{0,7}\1)*")
"""Pages that differ from the snapshot; a few between two that do not cost less to copy than another call."""


def _page_flags(address: int, size: int, meaning: bytes) -> bytes:
    """A byte for each page of this process's memory, by its flags; all 1 where pagemap does not tell."""
    count = size // PAGE_SIZE
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b"\1" * count
    try:
        entries = os.pread(fd, count * 8, address // PAGE_SIZE * 8)
    except OSError:
        return b"\1" * count
    finally:
        os.close(fd)
    return entries[7::8].translate(meaning) if len(entries) == count * 8 else b"\1" * count


def _map(address: int | None, size: int, fd: int, protection: int = _PROT_RW) -> int:
    flags = _MAP_NORESERVE | (_MAP_PRIVATE if protection == _PROT_RW else _MAP_SHARED)
    if address is not None:
        flags |= _MAP_FIXED
    if fd < 0:
        flags |= _MAP_ANONYMOUS
    got: int | None = _libc.mmap(address, size, protection, flags, fd, 0)
    if got is None or got == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot map {size} bytes of guest memory: {os.strerror(error)}")
    return got
