"""A terminal: virtio-console with one port. Virtual I/O Device (VIRTIO) 1.2, 5.3."""

from __future__ import annotations

import struct

from kobox.devices.virtio import VirtioDevice
from kobox.devices.virtqueue import Queue

_SIZE = 0
_RECEIVE, _TRANSMIT = 0, 1
_PIECE = 64
"""Bytes that are handed over at once; a driver's buffers are a page, or less."""


class VirtioConsole(VirtioDevice):
    """``/dev/hvc0``. ``shown`` is all that the guest has written; ``columns`` and ``rows`` of the terminal."""

    kind, queues, class_code = 3, 2, 0x078000
    kept = ("shown", "_typed")

    def __init__(self, columns: int = 80, rows: int = 25) -> None:
        self.columns, self.rows = columns, rows
        self.shown = b""
        self._typed = b""
        super().__init__()

    def features(self) -> int:
        """See ``VirtioDevice``."""
        return 1 << _SIZE

    def config_bytes(self) -> bytes:
        """See ``VirtioDevice``."""
        return struct.pack("<HHII", self.columns, self.rows, 1, 0)

    def serve(self, number: int, queue: Queue) -> None:
        """See ``VirtioDevice``."""
        if number == _RECEIVE:
            self._deliver()
            return
        while (chain := self.take(queue)) is not None:
            self.shown += b"".join(chain.readable)
            self.give_back(queue, chain, 0)

    def type(self, data: bytes) -> None:
        """Somebody types; what the guest has no room for yet waits."""
        self._typed += data
        if self.board is not None:
            self.board.post(self._deliver)

    def _deliver(self) -> None:
        while self._typed and self.fill(_RECEIVE, self._typed[:_PIECE]):
            self._typed = self._typed[_PIECE:]
