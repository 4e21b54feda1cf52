"""A disk: virtio-blk in front of a backing. Requests go in bulk between the backing and the guest's memory.

Virtual I/O Device (VIRTIO) 1.2, 5.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from kobox.devices.backing import SECTOR, Backing, Undo
from kobox.devices.virtio import VirtioDevice
from kobox.devices.virtqueue import BrokenQueue, Chain, Queue

_SEG_MAX, _READ_ONLY, _BLOCK_SIZE, _FLUSH, _DISCARD, _WRITE_ZEROES = 2, 5, 6, 9, 13, 14
_SEGMENTS = 254
"""Buffers of a request: as many as fit a queue with its header and status."""
_IN, _OUT, _FLUSH_OUT, _GET_ID, _DISCARD_OUT, _ZEROES_OUT = 0, 1, 4, 8, 11, 13
_OK, _IO_ERROR, _UNSUPPORTED = 0, 1, 2
_HEADER = struct.Struct("<IIQ")
_RANGE = struct.Struct("<QII")
_MOST_SECTORS = 1 << 16
_MOST_RANGES = 16
_ID_SIZE = 20


class VirtioBlock(VirtioDevice):
    """``/dev/vda`` and so on, with what the backing holds. ``serial``: at most 20 bytes. A rest of less than a sector
    at the end of the backing is left out."""

    kind = 2
    class_code = 0x010000

    def __init__(self, backing: Backing, *, read_only: bool = False, serial: str = "", block_size: int = 512) -> None:
        self.backing = Undo(backing)
        self.read_only = read_only
        self.serial, self.block_size = serial, block_size
        super().__init__()

    @property
    def sectors(self) -> int:
        """Its capacity."""
        return self.backing.size // SECTOR

    def features(self) -> int:
        """See ``VirtioDevice``."""
        bits = 1 << _SEG_MAX | 1 << _BLOCK_SIZE | 1 << _FLUSH
        if self.read_only:
            return bits | 1 << _READ_ONLY
        return bits | 1 << _WRITE_ZEROES | (1 << _DISCARD if self.backing.discards else 0)

    def config_bytes(self) -> bytes:
        """See ``VirtioDevice``."""
        limits = (_MOST_SECTORS, _MOST_RANGES)
        return struct.pack(
            "<QII4xI8x4xIIIIIB3x",
            self.sectors, 0, _SEGMENTS, self.block_size, *limits, self.block_size // SECTOR, *limits, 0,
        )  # fmt: skip

    def serve(self, number: int, queue: Queue) -> None:
        """See ``VirtioDevice``."""
        while (chain := self.take(queue)) is not None:
            self.give_back(queue, chain, self._request(chain))

    def _request(self, chain: Chain) -> int:
        """Carry a request out; how many bytes were written to the guest."""
        header, data_out = _split(chain.readable, _HEADER.size)
        if len(header) < _HEADER.size or not chain.writable or not len(chain.writable[-1]):
            raise BrokenQueue("a request without its header, or without room for its status")
        kind, _, sector = _HEADER.unpack(header)
        *data_in, last = chain.writable
        if len(last) > 1:
            data_in.append(last[:-1])
        try:
            status = self._do(kind, sector * SECTOR, data_out, data_in)
        except OSError:
            status = _IO_ERROR
        last[-1] = status
        return 1 + (sum(map(len, data_in)) if kind in (_IN, _GET_ID) else 0)

    def _do(self, kind: int, offset: int, data_out: Sequence[memoryview], data_in: Sequence[memoryview]) -> int:
        if kind == _IN:
            if not self._inside(offset, sum(map(len, data_in))):
                return _IO_ERROR
            self.backing.read_into(offset, data_in)
        elif kind == _FLUSH_OUT:
            self.backing.flush()
        elif kind == _GET_ID:
            text = self.serial.encode().ljust(_ID_SIZE, b"\0")
            for part in data_in:
                part[:], text = text[: len(part)].ljust(len(part), b"\0"), text[len(part) :]
        elif self.read_only:
            return _IO_ERROR
        elif kind == _OUT:
            if not self._inside(offset, sum(map(len, data_out))):
                return _IO_ERROR
            self.backing.write_from(offset, data_out)
        elif kind in (_DISCARD_OUT, _ZEROES_OUT):
            return self._clear(b"".join(data_out), discard=kind == _DISCARD_OUT)
        else:
            return _UNSUPPORTED
        return _OK

    def _clear(self, ranges: bytes, *, discard: bool) -> int:
        if len(ranges) % _RANGE.size:
            return _UNSUPPORTED
        for sector, count, flags in _RANGE.iter_unpack(ranges):
            offset, size = sector * SECTOR, count * SECTOR
            if count > _MOST_SECTORS or not self._inside(offset, size):
                return _IO_ERROR
            if (discard or flags & 1) and self.backing.discards:
                self.backing.discard(offset, size)
            elif not discard:
                self.backing.write_from(offset, [memoryview(bytes(size))])
        return _OK

    def _inside(self, offset: int, size: int) -> bool:
        return size % SECTOR == 0 and offset + size <= self.sectors * SECTOR

    def capture(self) -> Any:
        """The contents belong to the state: what is written from now on can be taken back."""
        return super().capture(), self.backing.mark()

    def restore(self, state: Any) -> None:
        """As at ``capture``, the contents too: the guest's caches know them as they were then."""
        function, kept = state
        super().restore(function)
        self.backing.back_to(kept)


def _split(parts: Sequence[memoryview], size: int) -> tuple[bytes, list[memoryview]]:
    """The first bytes of the parts, and the rest: a driver may cut its buffers where it likes."""
    head, rest = b"", list(parts)
    while rest and len(head) < size:
        part = rest.pop(0)
        wanted = size - len(head)
        head += bytes(part[:wanted])
        if len(part) > wanted:
            rest.insert(0, part[wanted:])
    return head, rest
