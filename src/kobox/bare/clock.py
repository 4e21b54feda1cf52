"""Virtual time on the bare kernel: jiffies, timers and work, run to completion one after the other.

Timer rounding follows the wheel of kernel/time/timer.c: the farther off, the coarser.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kobox.bare.calls import Steps
from kobox.kernel.tasks import JobTimeout

if TYPE_CHECKING:
    from kobox.bare.guest import BareGuest

_MASK = (1 << 64) - 1
_LIST_POISON2 = 0xDEAD_0000_0000_0122
_PENDING = 1
_LEVEL_BITS, _CLOCK_SHIFT, _LEVELS = 6, 3, 9
_START_SECONDS = -300
"""Jiffies begin so that they wrap around five minutes after boot, for bugs to show."""


class BareClock:
    """Timers by address with the jiffy they fall due at; work in the order of queueing."""

    def __init__(self, guest: BareGuest, hz: int) -> None:
        self._guest, self.hz = guest, hz
        self._tick_ns = 1_000_000_000 // hz
        self._first = _START_SECONDS * hz & 0xFFFF_FFFF
        self.timers: dict[int, int] = {}
        self.work: deque[int] = deque()
        self.in_timer = False
        self.limit_ns = 120_000_000_000
        """Virtual time that one call from Python may take."""
        self._started = 0
        guest.machine.on_due = self.tick

    def start_call(self) -> None:
        """Python is about to call guest code."""
        clock = self._guest.machine.clock
        self._started = clock.now
        clock.deadline = clock.now + self._tick_ns
        self.show()

    def tick(self) -> None:
        """A jiffy is over while guest code runs, or waits in ``hlt``."""
        clock = self._guest.machine.clock
        clock.deadline = clock.now + self._tick_ns
        self.show()

    @property
    def jiffies(self) -> int:
        return self._first + self._guest.machine.clock.now // self._tick_ns & _MASK

    def show(self) -> None:
        """Bring the guest's own ``jiffies`` up to date, where a module has asked for it."""
        address = self._guest.known("jiffies")
        if address:
            self._guest.write_uint(address, self.jiffies)

    # -- timers ---------------------------------------------------------------------------------------------------

    def start_timer(self, timer: int, expires: int) -> bool:
        """Set a timer; whether it was pending."""
        view = self._guest.view("timer_list", timer)
        pending = timer in self.timers
        view["expires"], view["entry.pprev"] = expires, timer
        self.timers[timer] = self._due(expires)
        return pending

    def stop_timer(self, timer: int) -> bool:
        pending = self.timers.pop(timer, None) is not None
        self._detach(timer)
        return pending

    def _detach(self, timer: int) -> None:
        view = self._guest.view("timer_list", timer)
        view["entry.pprev"], view["entry.next"] = 0, _LIST_POISON2

    def _due(self, expires: int) -> int:
        distance = expires - self.jiffies & _MASK
        if distance >> 63:
            return self.jiffies + 1
        level = 0
        while level < _LEVELS - 1 and distance >= (1 << _LEVEL_BITS) - 1 << _CLOCK_SHIFT * level:
            level += 1
        shift = _CLOCK_SHIFT * level
        return (expires + (1 << shift) >> shift) << shift

    # -- work -----------------------------------------------------------------------------------------------------

    def queue_work(self, work: int) -> bool:
        """Whether it was not queued already."""
        view = self._guest.view("work_struct", work)
        if view["data"] & _PENDING:
            return False
        view["data"] = view["data"] | _PENDING
        self.work.append(work)
        return True

    def is_queued(self, work: int) -> bool:
        return work in self.work

    def cancel_work(self, work: int) -> bool:
        if work not in self.work:
            return False
        self.work.remove(work)
        self._mark_idle(work)
        return True

    def _mark_idle(self, work: int) -> None:
        view = self._guest.view("work_struct", work)
        view["data"] = view["data"] & ~_PENDING

    # -- running them ---------------------------------------------------------------------------------------------

    def run_work(self) -> Steps:
        """Everything that is queued, and what that queues for once: work that queues itself again waits its turn."""
        for _ in range(len(self.work)):
            if not self.work:
                return
            work = self.work.popleft()
            self._mark_idle(work)
            yield self._guest.view("work_struct", work)["func"], work

    def pass_time(self, nanoseconds: int) -> Steps:
        """Let time pass: timers fire at their jiffy, work runs between them."""
        clock = self._guest.machine.clock
        end = clock.now + nanoseconds
        if self._guest.calls.busy and end > self._started + self.limit_ns:
            raise JobTimeout(f"a sleep of {nanoseconds / 1e9:g} seconds leaves no result within the virtual time")
        yield from self.run_work()
        while self.timers:
            timer = min(self.timers, key=self.timers.__getitem__)
            due = (self.timers[timer] - self._first) * self._tick_ns
            if due > end:
                break
            clock.now = max(clock.now, due)
            del self.timers[timer]
            self._detach(timer)
            self.show()
            self.in_timer = True
            yield self._guest.view("timer_list", timer)["function"], timer
            self.in_timer = False
            yield from self.run_work()
        clock.now = max(clock.now, end)
        self.show()
