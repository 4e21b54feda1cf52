"""The clock of a trace: the work that the guest did, plus the time it waited.

Virtual time moves by traps, so the kernel's own trace clock would say nothing of how long a function takes, and each
reading of it would be a trap. While a trace is on, the body of ``trace_clock_local`` is replaced by guest code that
adds two words: one counts executed machine code (``machine/work.py``), the other the nanoseconds that passed while the
guest waited. The tracer's own code is not counted.
"""

from __future__ import annotations

import struct

from kobox.debug.tracing.records import VIRTUAL, WORK
from kobox.kernel.dispatch import body_of
from kobox.kernel.guest import Guest
from kobox.machine import traps
from kobox.machine.work import CodeCounter

_BYTES_PER_NS_SHIFT = 2
"""Four bytes of code, about one instruction, count as a nanosecond."""
_WORDS_AT = 1024 - 64
"""In the mailbox page, behind what ``tasks`` and before what ``bringup`` keeps there."""
_END = 1 << 64
_JUMP = 5


class TraceClock:
    """One for each guest; installed while a trace is on. ``name`` says which clock the kernel's tracer then has."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        machine = guest.machine
        self._work = machine.area.mailbox_addr + _WORDS_AT
        self._waited = self._work + 8
        place = machine.pages.physical(self._work)
        assert place is not None, "kobox's own pages are always there"
        self._counter = CodeCounter.make(machine.cpu, machine.memory.host_address + place)
        self._before = b""
        self._entry = self._stub = 0
        usable = self._counter is not None and guest.has("trace_clock_local")
        self.name = WORK if usable else VIRTUAL

    def install(self, tracer_code: list[tuple[int, int]]) -> None:
        """Start counting; ``tracer_code`` are the ranges that do not count."""
        if self.name == VIRTUAL:
            return
        guest, clock = self._guest, self._guest.machine.clock
        guest.write(self._work, struct.pack("<2Q", 0, clock.now))
        self._entry = body_of(guest, guest.symbol("trace_clock_local"))
        self._before = guest.read(self._entry, _JUMP)
        code = _reader(self._work, self._waited)
        if not self._stub:
            self._stub = guest.machine.area.code(code)
        guest.write(self._stub, code)  # a reset has taken it away
        guest.machine.patch(self._entry, traps.jump(self._entry, self._stub))
        clock.on_wait = self._on_wait
        self.leave_out(tracer_code)

    def leave_out(self, tracer_code: list[tuple[int, int]]) -> None:
        """Count everything but these ranges from now on."""
        if self._counter is not None and self.name == WORK:
            self._counter.start(_complement(tracer_code))

    def remove(self) -> None:
        """Give the kernel its own clock back."""
        if self._before:
            self._guest.machine.patch(self._entry, self._before)
        self.abandon()

    def abandon(self) -> None:
        """The guest was reset: only what lies outside of it must go."""
        self._before = b""
        self._guest.machine.clock.on_wait = None
        if self._counter is not None:
            self._counter.stop()

    def _on_wait(self, nanoseconds: int) -> None:
        self._guest.write_uint(self._waited, self._guest.read_uint(self._waited) + nanoseconds)


def _reader(work: int, waited: int) -> bytes:
    """``mov rax, [work]; shr rax, 2; add rax, [waited]; ret``."""
    return (
        b"\x48\x8b\x04\x25" + struct.pack("<I", work & 0xFFFF_FFFF)
        + b"\x48\xc1\xe8" + bytes([_BYTES_PER_NS_SHIFT])
        + b"\x48\x03\x04\x25" + struct.pack("<I", waited & 0xFFFF_FFFF)
        + b"\xc3"
    )  # fmt: skip


def _complement(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What lies between the given ranges, in all of the address space."""
    left, at = [], 0
    for start, end in sorted(ranges):
        if at < start:
            left.append((at, start))
        at = max(at, end)
    return [*left, (at, _END)]
