"""Everything that passes between a driver and its device, as a list to assert on, to keep, and to play again without
the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kobox.errors import BadFile
from kobox.machine.pci_function import Bar, Identity, PciFunction, Shape
from kobox.machine.pci_tap import Tap

READ, WRITE, INTERRUPT, LOWER, FROM_RAM, TO_RAM = "read", "write", "interrupt", "lower", "from RAM", "to RAM"
_BY_DRIVER = frozenset({READ, WRITE})
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Event:
    """One access of the driver (``read``, ``write``: ``bar``, ``at`` the offset, ``size``, ``value``), or one act of
    the device: ``interrupt`` (``value`` is the vector), ``lower`` (of its line), ``from RAM`` and ``to RAM`` (``at``
    the address, ``size``, and ``data`` as far as it is known). ``name``: of the register."""

    kind: str
    bar: int = 0
    at: int = 0
    size: int = 0
    value: int = 0
    data: bytes = b""
    name: str = ""

    def __str__(self) -> str:
        if self.kind in _BY_DRIVER:
            place = self.name or f"BAR {self.bar} + {self.at:#x}"
            return f"{self.kind} {place} {self.value:#x}"
        if self.kind == INTERRUPT:
            return f"interrupt {self.value}"
        return self.kind if self.kind == LOWER else f"{self.kind} {self.at:#x}, {self.size} bytes"


class Recording(Tap):
    """Notes what passes while it taps a function. ``events`` in order; it may be kept as JSON."""

    def __init__(self, function: PciFunction) -> None:
        self._name_of: Callable[[int, int], str] = function.register_name
        self.shape = function.shape
        self.events: list[Event] = []

    def read(self, bar: int, offset: int, size: int, value: int) -> int:
        """See ``Tap``."""
        self.events.append(Event(READ, bar, offset, size, value, name=self._name_of(bar, offset)))
        return value

    def write(self, bar: int, offset: int, size: int, value: int) -> int | None:
        """See ``Tap``."""
        self.events.append(Event(WRITE, bar, offset, size, value, name=self._name_of(bar, offset)))
        return value

    def interrupt(self, vector: int) -> bool:
        """See ``Tap``."""
        self.events.append(Event(INTERRUPT, value=vector))
        return True

    def lower(self) -> None:
        """See ``Tap``."""
        self.events.append(Event(LOWER))

    def dma(self, address: int, size: int, write: bool) -> int:
        """See ``Tap``."""
        self.events.append(Event(TO_RAM if write else FROM_RAM, at=address, size=size))
        return address

    def moved(self, address: int, data: bytes, write: bool) -> None:
        """The transfer that was begun last now has its contents."""
        kind = TO_RAM if write else FROM_RAM
        for index in range(len(self.events) - 1, -1, -1):
            event = self.events[index]
            if event.kind == kind and event.at == address and event.size == len(data):
                self.events[index] = Event(kind, at=address, size=event.size, data=data)
                return

    def of(self, name: str) -> list[Event]:
        """Accesses to the register of that name."""
        return [event for event in self.events if event.name == name]

    def lines(self) -> list[str]:
        """As people read it."""
        return [str(event) for event in self.events]

    def to_json(self) -> str:
        """All of it, as ``Replay.from_json`` takes it."""
        identity, bars, *rest = self.shape
        rows = [[e.kind, e.bar, e.at, e.size, e.value, e.data.hex(), e.name] for e in self.events]
        return json.dumps(
            {
                "format": _FORMAT,
                "identity": [getattr(identity, name) for name in Identity.__slots__],
                "bars": {
                    str(index): [bar.size, bar.io, bar.wide, bar.prefetchable] for index, bar in bars.items()
                },
                "interrupts": rest,
                "events": rows,
            }
        )  # fmt: skip


@contextmanager
def recording(function: PciFunction) -> Iterator[Recording]:
    """Record what passes inside a ``with`` block."""
    with function.tapped(Recording(function)) as record:
        yield record


class Replay(PciFunction):
    """A device that does what one did while it was recorded, and nothing else. It wants the driver to do the same.

    ``deviations`` says where it did not; from the first one on the device is as if it were pulled out (all ones).
    """

    def __init__(self, shape: Shape, events: Iterable[Event]) -> None:
        super().__init__(
            shape.identity, shape.bars, pin=shape.pin, msi=shape.msi, msix=shape.msix, msix_bar=shape.msix_bar
        )
        self._events: Sequence[Event] = tuple(events)
        self._at = 0
        self.deviations: list[str] = []

    @classmethod
    def from_json(cls, text: str) -> Replay:
        """Of a recording that was kept."""
        try:
            kept = json.loads(text)
            if kept["format"] != _FORMAT:
                raise BadFile("recording", "format", "number", kept["format"], _FORMAT)
            bars = {int(index): Bar(*fields) for index, fields in kept["bars"].items()}
            shape = Shape(Identity(*kept["identity"]), bars, *kept["interrupts"])
            rows = [
                Event(kind, bar, at, size, value, bytes.fromhex(data), name)
                for kind, bar, at, size, value, data, name in kept["events"]
            ]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BadFile("recording", "JSON", f"not a recording of a device: {error}") from error
        return cls(shape, rows)

    @classmethod
    def of(cls, record: Recording) -> Replay:
        """Of a recording that was just made."""
        return cls(record.shape, record.events)

    @property
    def left(self) -> int:
        """How many accesses of the driver have not happened yet."""
        return sum(event.kind in _BY_DRIVER for event in self._events[self._at :])

    def check(self) -> None:
        """``AssertionError`` unless the driver did all that was recorded, and nothing else."""
        if self.deviations:
            raise AssertionError(self.deviations[0])
        if self.left:
            raise AssertionError(f"{self.left} recorded accesses did not happen, the next one is: {self._next()}")

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        """See ``PciFunction``."""
        event = self._expect(Event(READ, bar, offset, size))
        return (1 << 8 * size) - 1 if event is None else event.value

    def write_bar(self, bar: int, offset: int, size: int, value: int) -> None:
        """See ``PciFunction``."""
        self._expect(Event(WRITE, bar, offset, size, value))

    def _next(self) -> Event | None:
        return next((event for event in self._events[self._at :] if event.kind in _BY_DRIVER), None)

    def _expect(self, seen: Event) -> Event | None:
        """The recorded access, when it is the one that happens now; what the device did after it is done again."""
        wanted = self._next()
        if self.deviations or wanted is None or not _fits(wanted, seen):
            self.deviations.append(f"the driver does: {seen}; recorded was: {wanted or 'nothing more'}")
            return None
        self._at = self._events.index(wanted, self._at) + 1
        for event in self._events[self._at :]:
            if event.kind in _BY_DRIVER:
                break
            self._act(event)
        return wanted

    def _act(self, event: Event) -> None:
        if event.kind == INTERRUPT:
            self.interrupt(event.value)
        elif event.kind == LOWER:
            self.lower_line()
        elif event.kind == TO_RAM and event.data:
            self.dma_write(event.at, event.data)

    def capture(self) -> Any:
        """See ``PciFunction``."""
        return super().capture(), self._at, tuple(self.deviations)

    def restore(self, state: Any) -> None:
        """See ``PciFunction``."""
        function, self._at, deviations = state
        super().restore(function)
        self.deviations = list(deviations)


def _fits(wanted: Event, seen: Event) -> bool:
    place = (wanted.kind, wanted.bar, wanted.at, wanted.size) == (seen.kind, seen.bar, seen.at, seen.size)
    return place and (seen.kind == READ or wanted.value == seen.value)
