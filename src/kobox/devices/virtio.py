"""Virtio devices on PCI: the registers that negotiate features and set queues up. What a queue does is a model's.

Virtual I/O Device (VIRTIO) 1.2, 4.1 (virtio over PCI), modern devices only.
"""

from __future__ import annotations

import copy
import struct
from typing import Any, ClassVar

from kobox.devices.virtqueue import MAX_SIZE, BrokenQueue, Chain, Queue
from kobox.machine.pci_function import Bar, Identity, PciFunction

_VENDOR, _FIRST_DEVICE = 0x1AF4, 0x1040
_VENDOR_SPECIFIC = 0x09
_BAR, _MSIX_BAR = 0, 1
_COMMON, _ISR, _DEVICE, _NOTIFY = 0x0000, 0x1000, 0x2000, 0x3000
_BLOCK = 0x1000
_COMMON_CFG, _NOTIFY_CFG, _ISR_CFG, _DEVICE_CFG = 1, 2, 3, 4
_NOTIFY_STEP = 4
VERSION_1, INDIRECT = 1 << 32, 1 << 28
_DRIVER_OK, _FEATURES_OK, _NEEDS_RESET = 4, 8, 0x40
_QUEUE_CHANGED, _CONFIG_CHANGED = 1, 2
_NO_VECTOR = 0xFFFF

_REGISTERS = {
    0x00: "feature_select", 0x04: "offered", 0x08: "driver_select", 0x0C: "accepted", 0x10: "config_vector",
    0x12: "queue_count", 0x14: "status", 0x15: "generation", 0x16: "queue_select", 0x18: "queue_size",
    0x1A: "queue_vector", 0x1C: "queue_enable", 0x1E: "queue_notify",
    0x20: "descriptors", 0x24: "descriptors_high", 0x28: "driver", 0x2C: "driver_high", 0x30: "device",
    0x34: "device_high",
}  # fmt: skip
_PLAIN = frozenset({"feature_select", "driver_select", "config_vector", "queue_select"})


class VirtioDevice(PciFunction):
    """A virtio device. A model sets ``kind`` (the virtio id), ``queues`` (how many), ``class_code``, and overrides
    ``features``, ``config_bytes`` and ``serve``. ``kept`` names attributes that belong to the state of the kernel."""

    kind: ClassVar[int]
    class_code: ClassVar[int] = 0xFF0000
    queues: ClassVar[int] = 1
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        identity = Identity(_VENDOR, _FIRST_DEVICE + self.kind, self.class_code, _VENDOR, 0x1100, 1)
        super().__init__(identity, {_BAR: Bar(4 * _BLOCK)}, pin=1, msix=self.queues + 1, msix_bar=_MSIX_BAR)
        for number, offset in ((_COMMON_CFG, _COMMON), (_ISR_CFG, _ISR), (_DEVICE_CFG, _DEVICE)):
            self._add_place(number, offset)
        self._add_place(_NOTIFY_CFG, _NOTIFY, struct.pack("<I", _NOTIFY_STEP))
        self._reset()

    def _add_place(self, number: int, offset: int, more: bytes = b"") -> None:
        body = struct.pack("<BBB3xII", 16 + len(more), number, _BAR, offset, _BLOCK) + more
        self.config.add_capability(_VENDOR_SPECIFIC, body)

    def _reset(self) -> None:
        self.registers = dict.fromkeys(_PLAIN, 0) | {"status": 0, "config_vector": _NO_VECTOR}
        self.accepted = 0
        """Features that the driver has taken."""
        self.rings = [Queue() for _ in range(self.queues)]
        self._why = 0
        """What the interrupt by line is for."""
        self._notified: set[int] = set()
        self.lower_line()

    # -- what a model overrides -----------------------------------------------------------------------------------

    def features(self) -> int:
        """Feature bits of this kind of device."""
        return 0

    def config_bytes(self) -> bytes:
        """The device's own configuration, as the driver reads it."""
        return b""

    def write_config_byte(self, offset: int, value: int) -> None:
        """The driver writes into it."""

    def serve(self, number: int, queue: Queue) -> None:
        """The driver has put something into a queue. Called while the guest stands still."""
        raise NotImplementedError

    # -- for models -----------------------------------------------------------------------------------------------

    def view(self, address: int, size: int, write: bool) -> memoryview | None:
        """``virtqueue.ViewOf`` of this device."""
        return self.dma_view(address, size, write=write)

    def take(self, queue: Queue) -> Chain | None:
        """The next chain of a queue."""
        return queue.take(self.view)

    def give_back(self, queue: Queue, chain: Chain, written: int) -> None:
        """A chain is done; the driver is told if it wants to be."""
        if queue.give_back(self.view, chain, written):
            self._tell(_QUEUE_CHANGED, queue.vector)

    def config_changed(self) -> None:
        """Tell the driver that ``config_bytes`` are others now."""
        self._tell(_CONFIG_CHANGED, self.registers["config_vector"])

    def fill(self, number: int, data: bytes) -> bool:
        """Put data into the next chain that the driver has offered for it; False where it has offered none, or one that
        is too small (which it gets back empty)."""
        queue = self.rings[number]
        if not self.works(queue):
            return False
        chain = self.take(queue)
        if chain is None:
            return False
        fits, rest = sum(map(len, chain.writable)) >= len(data), data
        for part in chain.writable if fits else ():
            part[: len(rest)] = rest[: len(part)]
            rest = rest[len(part) :]
        self.give_back(queue, chain, len(data) if fits else 0)
        return fits

    def works(self, queue: Queue) -> bool:
        """Whether the driver has set the queue up and says that it is ready."""
        return queue.enabled and self.registers["status"] & (_DRIVER_OK | _NEEDS_RESET) == _DRIVER_OK

    def _tell(self, why: int, vector: int) -> None:
        if not self.uses_msix:
            self._why |= why
            self.interrupt()
        elif vector != _NO_VECTOR:
            self.interrupt(vector)

    # -- registers ------------------------------------------------------------------------------------------------

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        """See ``PciFunction``."""
        block, at = offset & ~(_BLOCK - 1), offset & (_BLOCK - 1)
        if block == _COMMON:
            return self._read_register(_REGISTERS.get(at, "")) & (1 << 8 * size) - 1
        if block == _ISR:
            why, self._why = self._why, 0
            self.lower_line()
            return why
        if block == _DEVICE:
            return int.from_bytes(self.config_bytes()[at : at + size], "little")
        return 0

    def write_bar(self, bar: int, offset: int, size: int, value: int) -> None:
        """See ``PciFunction``."""
        block, at = offset & ~(_BLOCK - 1), offset & (_BLOCK - 1)
        if block == _COMMON:
            self._write_register(_REGISTERS.get(at, ""), value)
        elif block == _NOTIFY:
            self._notify(at // _NOTIFY_STEP)
        elif block == _DEVICE:
            for byte in range(size):
                self.write_config_byte(at + byte, value >> 8 * byte & 0xFF)

    def _read_register(self, name: str) -> int:
        queue = self._selected
        values = {
            "offered": (self.features() | VERSION_1 | INDIRECT) >> 32 * self.registers["feature_select"],
            "accepted": self.accepted >> 32 * self.registers["driver_select"],
            "queue_count": self.queues,
            "queue_notify": self.registers["queue_select"],
            "queue_size": queue.size if queue else 0,
            "queue_vector": queue.vector if queue else _NO_VECTOR,
            "queue_enable": int(queue.enabled) if queue else 0,
        }
        if queue is not None and name.removesuffix("_high") in ("descriptors", "driver", "device"):
            whole: int = getattr(queue, name.removesuffix("_high"))
            return (whole >> 32 if name.endswith("_high") else whole) & 0xFFFF_FFFF
        return values.get(name, self.registers.get(name, 0))

    def _write_register(self, name: str, value: int) -> None:
        queue = self._selected
        if name in ("feature_select", "driver_select"):
            self.registers[name] = min(value, 2)  # beyond the second word there are no features
        elif name in _PLAIN:
            self.registers[name] = self._known_vector(value) if name == "config_vector" else value & 0xFFFF
        elif name == "accepted":
            shift = 32 * self.registers["driver_select"]
            self.accepted = self.accepted & ~(0xFFFF_FFFF << shift) | (value << shift & (1 << 64) - 1)
        elif name == "status":
            self._write_status(value)
        elif queue is not None:
            self._write_queue(queue, name, value)

    def _write_status(self, value: int) -> None:
        if value == 0:
            self._reset()
            return
        if value & _FEATURES_OK and self.accepted & ~(self.features() | VERSION_1 | INDIRECT):
            value &= ~_FEATURES_OK
        self.registers["status"] = value
        for number, queue in enumerate(self.rings):
            if value & _DRIVER_OK and queue.enabled:
                self._notify(number)

    def _write_queue(self, queue: Queue, name: str, value: int) -> None:
        if name == "queue_vector":
            queue.vector = self._known_vector(value)
        elif queue.enabled:
            return
        elif name == "queue_size":
            if 0 < value <= MAX_SIZE and not value & value - 1:
                queue.size = value
        elif name == "queue_enable":
            queue.enabled = bool(value & 1)
        elif name.endswith("_high"):
            place = name.removesuffix("_high")
            setattr(queue, place, getattr(queue, place) & 0xFFFF_FFFF | value << 32)
        elif name in ("descriptors", "driver", "device"):
            setattr(queue, name, getattr(queue, name) & ~0xFFFF_FFFF | value)

    def _known_vector(self, value: int) -> int:
        """One that is not in the table reads back as none, which the driver understands."""
        return value if value <= self.queues else _NO_VECTOR

    @property
    def _selected(self) -> Queue | None:
        number = self.registers["queue_select"]
        return self.rings[number] if number < len(self.rings) else None

    # -- work -----------------------------------------------------------------------------------------------------

    def _notify(self, number: int) -> None:
        if number >= len(self.rings) or self.board is None or number in self._notified:
            return
        self._notified.add(number)
        self.board.post(lambda: self._work(number))

    def _work(self, number: int) -> None:
        """Serve a queue; a driver that breaks the rules gets a device that wants to be reset."""
        if number not in self._notified:
            return  # reset since
        self._notified.discard(number)
        queue = self.rings[number]
        if not self.works(queue):
            return
        try:
            self.serve(number, queue)
        except BrokenQueue:
            self.registers["status"] |= _NEEDS_RESET
            self._tell(_CONFIG_CHANGED, self.registers["config_vector"])

    # -- resets of the kernel -------------------------------------------------------------------------------------

    def capture(self) -> Any:
        """See ``PciFunction``."""
        kept = {name: getattr(self, name) for name in self.kept}
        return super().capture(), copy.deepcopy((self.registers, self.accepted, self.rings, self._why, kept))

    def restore(self, state: Any) -> None:
        """See ``PciFunction``."""
        function, own = state
        super().restore(function)
        self.registers, self.accepted, self.rings, self._why, kept = copy.deepcopy(own)
        for name, value in kept.items():
            setattr(self, name, value)
        self._notified = set()
