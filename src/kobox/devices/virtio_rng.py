"""A source of random numbers: virtio-rng. Virtual I/O Device (VIRTIO) 1.2, 5.4."""

from __future__ import annotations

import os
from collections.abc import Callable

from kobox.devices.virtio import VirtioDevice
from kobox.devices.virtqueue import Queue


class VirtioRng(VirtioDevice):
    """``/dev/hwrng``. ``source`` gives so many bytes, or fewer; without it they are the host's. What it gives is the
    same after a reset only if the source is."""

    kind, class_code = 4, 0x00FF00

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self.source = source
        super().__init__()

    def serve(self, number: int, queue: Queue) -> None:
        """See ``VirtioDevice``."""
        while (chain := self.take(queue)) is not None:
            written = 0
            for part in chain.writable:
                data = self.source(len(part))
                part[: len(data)] = data
                written += len(data)
                if len(data) < len(part):
                    break
            self.give_back(queue, chain, written)
