"""An NVMe controller with one namespace in front of a backing.

NVM Express Base Specification 1.4 (registers: 3; queues: 4; commands: 5 and 6), NVM Express over PCIe. Memory is named
by PRPs only; no SGLs, no metadata, no controller memory buffer.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kobox.devices import nvme_data as data
from kobox.devices.backing import SECTOR, Backing, Undo
from kobox.devices.device import PciDevice
from kobox.devices.registers import Register
from kobox.machine.pci_function import Bar

_MOST_ENTRIES, _MOST_QUEUES = 1024, 8
_CAPABILITIES = (_MOST_ENTRIES - 1) | 1 << 16 | 4 << 24 | 1 << 37
_ENABLE, _SHUTDOWN = 1, 3 << 14
_READY, _FATAL, _SHUT_DOWN = 1, 2, 2 << 2
_DOORBELLS = 0x1000
_COMMAND_SIZE, _RESULT_SIZE = 64, 16
_COMMAND = struct.Struct("<BBHI8xQQQ6I")

_GENERIC, _SPECIFIC, _NO_RETRY = 0, 1 << 8, 1 << 14
SUCCESS = 0
INVALID_OPCODE, INVALID_FIELD, INVALID_NAMESPACE, OUT_OF_RANGE = 0x01, 0x02, 0x0B, 0x80
TRANSFER_ERROR, INTERNAL_ERROR = 0x04, 0x06
INVALID_QUEUE, INVALID_SIZE, INVALID_LOG = _SPECIFIC | 1, _SPECIFIC | 2, _SPECIFIC | 9
WRITE_FAULT, READ_ERROR, READ_ONLY = 0x280, 0x281, 0x182
_PENDING = -1
"""No result yet."""
_FEATURE_QUEUES = 7
_FEATURES = frozenset({1, 2, 4, 5, 6, 8, 9, 0xA, 0xB})
_ALL_NAMESPACES = 0xFFFF_FFFF


class _Command(NamedTuple):
    opcode: int
    flags: int
    number: int
    namespace: int
    metadata: int
    prp1: int
    prp2: int
    cdw10: int
    cdw11: int
    cdw12: int
    cdw13: int
    cdw14: int
    cdw15: int


@dataclass(slots=True)
class _Submission:
    address: int
    size: int
    completion: int
    head: int = 0
    tail: int = 0


@dataclass(slots=True)
class _Completion:
    address: int
    size: int
    vector: int
    interrupts: bool
    head: int = 0
    tail: int = 0
    phase: int = 1
    waiting: list[bytes] = field(default_factory=list)
    """Results for which the driver has left no room yet."""


class _Failed(Exception):
    """A command ends with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Nvme(PciDevice):
    """``/dev/nvme0n1`` with what the backing holds. ``serial``: at most 20 characters."""

    device, class_code = 0x0053, 0x010802
    bars = {0: Bar(1 << 14, wide=True)}  # noqa: RUF012
    pin, msix = 1, _MOST_QUEUES
    kept_outside = frozenset({"backing"})

    capabilities = Register(0x00, 8, reset=_CAPABILITIES, writable=0)
    version = Register(0x08, reset=data.VERSION, writable=0)
    mask_set = Register(0x0C, writable=0)
    mask_clear = Register(0x10, writable=0)
    configuration = Register(0x14)
    status = Register(0x1C, writable=0)
    admin_sizes = Register(0x24)
    admin_submission = Register(0x28, 8)
    admin_completion = Register(0x30, 8)

    def __init__(self, backing: Backing, *, read_only: bool = False, serial: str = "kobox") -> None:
        self.backing, self.read_only, self.serial = Undo(backing), read_only, serial
        super().__init__()

    @property
    def sectors(self) -> int:
        """The size of the namespace."""
        return self.backing.size // SECTOR

    def reset(self) -> None:
        """See ``PciDevice``."""
        super().reset()
        self._stop()

    def _stop(self) -> None:
        self.submissions: dict[int, _Submission] = {}
        self.completions: dict[int, _Completion] = {}
        self.features: dict[int, int] = {}
        self.rung: list[int] = []

    # -- registers ------------------------------------------------------------------------------------------------

    @mask_set.on_write
    def _mask(self, bits: int) -> None:
        self.mask_set |= bits
        self._drive_line()

    @mask_clear.on_write
    def _unmask(self, bits: int) -> None:
        self.mask_set &= ~bits
        self._drive_line()

    @configuration.on_write
    def _configure(self, value: int) -> None:
        if value & _ENABLE and not self.status & _READY:
            sizes = self.admin_sizes
            self.submissions[0] = _Submission(self.admin_submission & -data.PAGE, (sizes & 0xFFF) + 1, 0)
            self.completions[0] = _Completion(
                self.admin_completion & -data.PAGE, (sizes >> 16 & 0xFFF) + 1, 0, interrupts=True
            )
            self.status = _READY
        elif not value & _ENABLE and self.status & _READY:
            self._stop()
            self.status = 0
            self.lower_irq()
        if value & _SHUTDOWN:
            self.backing.flush()
            self.status |= _SHUT_DOWN

    def write_other(self, bar: int, offset: int, size: int, value: int) -> None:
        """Doorbells: a tail of a submission queue, a head of a completion queue."""
        if bar or offset < _DOORBELLS or self.board is None:
            return
        number, is_head = divmod((offset - _DOORBELLS) // 4, 2)
        value &= 0xFFFF
        queue = (self.completions if is_head else self.submissions).get(number)
        if queue is None or value >= queue.size:
            return
        if isinstance(queue, _Completion):
            queue.head = value
            self._drive_line()
            if not queue.waiting:
                return
        else:
            queue.tail = value
        if not self.rung:
            self.board.post(self._work)
        self.rung.append(number)

    # -- queues ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Every command behind a doorbell that was rung."""
        while self.rung:
            number = self.rung.pop(0)
            if (completion := self.completions.get(number)) is not None and completion.waiting:
                waiting, completion.waiting = completion.waiting, []
                for entry in waiting:
                    self._complete(completion, entry)
            queue = self.submissions.get(number)
            while queue is not None and queue.head != queue.tail:
                raw = self.dma_view(queue.address + queue.head * _COMMAND_SIZE, _COMMAND_SIZE)
                if raw is None:
                    self.status |= _FATAL
                    return
                queue.head = (queue.head + 1) % queue.size
                self._execute(number, queue, _Command(*_COMMAND.unpack(raw)))
                queue = self.submissions.get(number)

    def _execute(self, number: int, queue: _Submission, command: _Command) -> None:
        result = 0
        try:
            result = self._admin(command) if number == 0 else self._io(command)
            status = SUCCESS
        except _Failed as failed:
            status = failed.status | _NO_RETRY
        except OSError:
            status = READ_ERROR if command.opcode == 2 else WRITE_FAULT
        if result == _PENDING:
            return
        head = self.submissions[number].head if number in self.submissions else queue.head
        self._complete(
            self.completions[queue.completion],
            struct.pack("<I4xHHHH", result, head, number, command.number, status << 1),
        )

    def _complete(self, queue: _Completion, entry: bytes) -> None:
        following = (queue.tail + 1) % queue.size
        if following == queue.head:
            queue.waiting.append(entry)
            return
        marked = bytearray(entry)
        marked[14] |= queue.phase
        self.dma_write(queue.address + queue.tail * _RESULT_SIZE, marked)
        queue.tail = following
        if following == 0:
            queue.phase ^= 1
        if queue.interrupts and self.uses_msix:
            self.raise_irq(queue.vector)
        else:
            self._drive_line()

    def _drive_line(self) -> None:
        """The interrupt by line: up while a queue with interrupts holds a result that the driver has not seen."""
        if self.uses_msix:
            return
        unseen = any(queue.interrupts and queue.head != queue.tail for queue in self.completions.values())
        if unseen and not self.mask_set & 1:
            self.raise_irq()
        else:
            self.lower_irq()

    # -- memory of a command --------------------------------------------------------------------------------------

    def _pages(self, command: _Command, size: int, *, write: bool) -> list[memoryview]:
        """The memory that a command names, in order: the first page from an offset on, then whole ones."""
        first = min(size, data.PAGE - command.prp1 % data.PAGE)
        places, size = [(command.prp1, first)], size - first
        if 0 < size <= data.PAGE:
            places.append((command.prp2, size))
        elif size:
            places += self._listed(command.prp2, size)
        views = []
        for address, count in _joined(places):
            view = self.dma_view(address, count, write=write)
            if view is None:
                raise _Failed(TRANSFER_ERROR)
            views.append(view)
        return views

    def _listed(self, address: int, size: int) -> list[tuple[int, int]]:
        """A list of pages; the last entry of a page of it leads to the next, where more is to come."""
        places: list[tuple[int, int]] = []
        while size:
            count = (data.PAGE - address % data.PAGE) // 8
            wanted = -(-size // data.PAGE)
            raw = self.dma_view(address, 8 * min(count, wanted))
            if raw is None or address % 8:
                raise _Failed(TRANSFER_ERROR)
            entries = raw.cast("Q").tolist()
            if wanted > count:
                address = entries.pop()
            for entry in entries:
                places.append((entry, min(size, data.PAGE)))
                size -= places[-1][1]
        return places

    def _answer(self, command: _Command, content: bytes) -> int:
        for view in self._pages(command, len(content), write=True):
            view[:], content = content[: len(view)], content[len(view) :]
        return 0

    # -- commands -------------------------------------------------------------------------------------------------

    def _admin(self, command: _Command) -> int:
        handler = _ADMIN.get(command.opcode)
        if handler is None:
            raise _Failed(INVALID_OPCODE)
        result: int = handler(self, command)
        return result

    def _identify(self, command: _Command) -> int:
        kind = command.cdw10 & 0xFF
        if kind in (0, 3) and command.namespace != 1:
            raise _Failed(INVALID_NAMESPACE)
        identifier = hashlib.sha256(self.serial.encode()).digest()[:8]
        if kind == 0:
            return self._answer(command, data.namespace(self.sectors, identifier))
        if kind == 1:
            identity = data.controller(self.vendor, self.serial, "kobox NVMe disk", self.backing.discards)
            return self._answer(command, identity)
        if kind == 2:
            return self._answer(command, data.active_namespaces(command.namespace))
        if kind == 3:
            return self._answer(command, data.descriptors(identifier))
        raise _Failed(INVALID_FIELD)

    def _get_log(self, command: _Command) -> int:
        page = data.log_page(command.cdw10 & 0xFF)
        if page is None:
            raise _Failed(INVALID_LOG)
        size = ((command.cdw11 & 0xFFFF) << 16 | command.cdw10 >> 16) * 4 + 4
        start = command.cdw12 | command.cdw13 << 32
        return self._answer(command, page[start : start + size].ljust(min(size, data.PAGE), b"\0"))

    def _set_feature(self, command: _Command) -> int:
        number = command.cdw10 & 0xFF
        if number == _FEATURE_QUEUES:
            granted = min(_MOST_QUEUES - 2, command.cdw11 & 0xFFFF, command.cdw11 >> 16)
            self.features[number] = granted << 16 | granted
            return self.features[number]
        if number not in _FEATURES:
            raise _Failed(INVALID_FIELD)
        self.features[number] = command.cdw11
        return 0

    def _get_feature(self, command: _Command) -> int:
        number = command.cdw10 & 0xFF
        if number != _FEATURE_QUEUES and number not in _FEATURES:
            raise _Failed(INVALID_FIELD)
        return self.features.get(number, 1 if number == 6 else 0)

    def _create_completion(self, command: _Command) -> int:
        number, size = command.cdw10 & 0xFFFF, (command.cdw10 >> 16) + 1
        self._check_queue(number, size, command, self.completions)
        vector, interrupts = command.cdw11 >> 16, bool(command.cdw11 & 2)
        if vector >= _MOST_QUEUES:
            raise _Failed(_SPECIFIC | 8)
        self.completions[number] = _Completion(command.prp1 & -data.PAGE, size, vector, interrupts)
        return 0

    def _create_submission(self, command: _Command) -> int:
        number, size, completion = command.cdw10 & 0xFFFF, (command.cdw10 >> 16) + 1, command.cdw11 >> 16
        self._check_queue(number, size, command, self.submissions)
        if completion == 0 or completion not in self.completions:
            raise _Failed(_SPECIFIC)
        self.submissions[number] = _Submission(command.prp1 & -data.PAGE, size, completion)
        return 0

    def _check_queue(self, number: int, size: int, command: _Command, known: dict[int, Any]) -> None:
        if not 0 < number < _MOST_QUEUES or number in known:
            raise _Failed(INVALID_QUEUE)
        if not 2 <= size <= _MOST_ENTRIES:
            raise _Failed(INVALID_SIZE)
        if not command.cdw11 & 1:
            raise _Failed(INVALID_FIELD)  # a queue in pieces

    def _delete_submission(self, command: _Command) -> int:
        if command.cdw10 & 0xFFFF == 0 or self.submissions.pop(command.cdw10 & 0xFFFF, None) is None:
            raise _Failed(INVALID_QUEUE)
        return 0

    def _delete_completion(self, command: _Command) -> int:
        number = command.cdw10 & 0xFFFF
        if any(queue.completion == number for queue in self.submissions.values()) or number == 0:
            raise _Failed(_SPECIFIC | 0xC)
        if self.completions.pop(number, None) is None:
            raise _Failed(INVALID_QUEUE)
        return 0

    def _abort(self, command: _Command) -> int:
        """Commands end before the next one is looked at: there is none to abort."""
        return 1

    def _wait_for_event(self, command: _Command) -> int:
        """Nothing ever happens that a driver would have to be told."""
        return _PENDING

    def _io(self, command: _Command) -> int:
        if command.namespace not in (1, _ALL_NAMESPACES if command.opcode == 0 else 1):
            raise _Failed(INVALID_NAMESPACE)
        if command.opcode == 0:
            self.backing.flush()
            return 0
        if self.read_only and command.opcode != 2:
            raise _Failed(READ_ONLY)
        if command.opcode == 9:
            return self._discard(command)
        offset = (command.cdw10 | command.cdw11 << 32) * SECTOR
        size = ((command.cdw12 & 0xFFFF) + 1) * SECTOR
        self._check_range(offset, size)
        if command.opcode == 2:
            self.backing.read_into(offset, self._pages(command, size, write=True))
        elif command.opcode == 1:
            self.backing.write_from(offset, self._pages(command, size, write=False))
            if command.cdw12 >> 30 & 1:
                self.backing.flush()  # force unit access
        elif command.opcode == 8:
            self.backing.write_from(offset, [memoryview(bytes(size))])
        else:
            raise _Failed(INVALID_OPCODE)
        return 0

    def _discard(self, command: _Command) -> int:
        count = (command.cdw10 & 0xFF) + 1
        ranges = b"".join(self._pages(command, 16 * count, write=False))
        for _, sectors, start in struct.iter_unpack("<IIQ", ranges):
            self._check_range(start * SECTOR, sectors * SECTOR)
            if command.cdw11 & 4 and self.backing.discards:
                self.backing.discard(start * SECTOR, sectors * SECTOR)
        return 0

    def _check_range(self, offset: int, size: int) -> None:
        if offset + size > self.sectors * SECTOR:
            raise _Failed(OUT_OF_RANGE)

    # -- resets of the kernel -------------------------------------------------------------------------------------

    def capture(self) -> Any:
        """The contents belong to the state, as a virtio disk's do."""
        return super().capture(), self.backing.mark()

    def restore(self, state: Any) -> None:
        """As at ``capture``."""
        function, kept = state
        super().restore(function)
        self.rung.clear()
        self.backing.back_to(kept)


_ADMIN = {
    0x00: Nvme._delete_submission,
    0x01: Nvme._create_submission,
    0x02: Nvme._get_log,
    0x04: Nvme._delete_completion,
    0x05: Nvme._create_completion,
    0x06: Nvme._identify,
    0x08: Nvme._abort,
    0x09: Nvme._set_feature,
    0x0A: Nvme._get_feature,
    0x0C: Nvme._wait_for_event,
}


def _joined(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours as one."""
    joined: list[tuple[int, int]] = []
    for address, count in places:
        if joined and sum(joined[-1]) == address:
            joined[-1] = joined[-1][0], joined[-1][1] + count
        else:
            joined.append((address, count))
    return joined
