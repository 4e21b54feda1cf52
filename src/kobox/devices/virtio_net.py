"""A network card: virtio-net with one pair of queues. Frames go to and come from Python.

Virtual I/O Device (VIRTIO) 1.2, 5.1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from kobox.devices.virtio import VirtioDevice
from kobox.devices.virtqueue import Queue
from kobox.errors import UsageError

_MAC, _STATUS = 5, 16
_LINK_UP = 1
_RECEIVE, _TRANSMIT = 0, 1
_HEADER = struct.Struct("<BBHHHHH")
_ONE_BUFFER = _HEADER.pack(0, 0, 0, 0, 0, 0, 1)
_MAC_SIZE = 6
_MOST_WAITING = 1024


class VirtioNet(VirtioDevice):
    """``eth0`` and so on. ``mac``: as ``02:00:00:00:00:01``. ``wire`` is called with each frame that the guest sends,
    while the guest stands still, and may call ``receive``; ``sent`` keeps the frames, ``dropped`` counts those for the
    guest that it had no room for."""

    kind, queues, class_code = 1, 2, 0x020000
    kept = ("sent", "dropped", "_waiting", "_up")

    def __init__(self, mac: str = "02:00:00:00:00:01", wire: Callable[[bytes], None] | None = None) -> None:
        try:
            self.mac = bytes.fromhex(mac.replace(":", ""))
        except ValueError:
            self.mac = b""
        if len(self.mac) != _MAC_SIZE:
            raise UsageError(f"{mac!r} is no MAC address", hint="six bytes: 02:00:00:00:00:01")
        self.wire = wire
        self.sent: list[bytes] = []
        self.dropped = 0
        self._waiting: list[bytes] = []
        self._up = True
        super().__init__()

    def features(self) -> int:
        """See ``VirtioDevice``."""
        return 1 << _MAC | 1 << _STATUS

    def config_bytes(self) -> bytes:
        """See ``VirtioDevice``."""
        return self.mac + struct.pack("<HHH", _LINK_UP if self._up else 0, 1, 0)

    def serve(self, number: int, queue: Queue) -> None:
        """See ``VirtioDevice``."""
        if number == _RECEIVE:
            self._deliver()
            return
        while (chain := self.take(queue)) is not None:
            frame = b"".join(chain.readable)[_HEADER.size :]
            self.give_back(queue, chain, 0)
            if self._up:
                self.sent.append(frame)
                if self.wire is not None:
                    self.wire(frame)

    def receive(self, frame: bytes) -> None:
        """A frame comes from the wire (without its checksum); it waits until the guest has room for it."""
        if self.board is None or not self._up or len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(frame)
        self.board.post(self._deliver)

    def set_link(self, up: bool) -> None:
        """Pull the cable, or put it in."""
        self._up = up
        self.config_changed()

    def _deliver(self) -> None:
        while self._waiting and self.fill(_RECEIVE, _ONE_BUFFER + self._waiting[0]):
            del self._waiting[0]
