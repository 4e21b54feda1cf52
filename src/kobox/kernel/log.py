"""The kernel's log: records read straight from its own ring buffer, each once, before the ring can wrap over them.

Formatting, levels, time stamps and continuation lines are the kernel's own; here they become frozen records. Follows
``kernel/printk/printk_ringbuffer.h``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kobox.kernel.guest import Guest

_COMMITTED, _FINALIZED = 1, 2
_CONTINUED = 8
_ID_SIZE = 8
"""Each text block starts with the id of its descriptor."""
_GATHERED = 32
"""Records that may gather in the ring before it is read in the middle of a run."""


class LogRecord(NamedTuple):
    """One line of the log. ``time`` is virtual nanoseconds since boot, ``level`` 0 (emerg) to 7 (debug)."""

    sequence: int
    time: int
    level: int
    text: str
    facility: int = 0
    caller: int = 0
    continued: bool = False
    """The line was printed in pieces (``KERN_CONT``)."""

    def __str__(self) -> str:
        return f"[{self.time // 1_000_000_000:5}.{self.time // 1000 % 1_000_000:06}] {self.text}"


class Log:
    """All records since boot, oldest first. ``read`` looks for new ones."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._records: list[LogRecord] = []
        self._load_older: Callable[[], list[LogRecord]] | None = None
        self._older = 0
        """How many records of a restored boot have not been loaded."""
        self._next = 0
        self._head_at = 0
        self._head_seen = 0
        ring = guest.layouts
        self._desc_size, self._info_size = ring.size("prb_desc"), ring.size("printk_info")
        self._state_at = ring.offset("prb_desc", "state_var")
        self._begin_at = ring.offset("prb_desc", "text_blk_lpos.begin")
        self._end_at = ring.offset("prb_desc", "text_blk_lpos.next")
        self._fields = {
            name: ring.field("printk_info", name)
            for name in ("seq", "ts_nsec", "text_len", "facility", "flags", "level", "caller_id")
        }

    def load_all(self) -> None:
        """Read what an earlier process has left, while it is still there."""
        if self._load_older is not None:
            self._records[:0] = self._load_older()
            self._load_older, self._older = None, 0

    @property
    def records(self) -> list[LogRecord]:
        """Everything since boot."""
        self.load_all()
        return self._records

    def mark(self) -> int:
        """A position: ``since(mark)`` gives what came after it."""
        self.read()
        return self._older + len(self._records)

    def since(self, mark: int) -> list[LogRecord]:
        """Records from a mark on."""
        self.read()
        if mark >= self._older:
            return self._records[mark - self._older :]
        return self.records[mark:]

    def position(self) -> tuple[int, int]:
        """(number of records, next sequence number): what ``rewind`` and ``restore`` take."""
        return self._older + len(self._records), self._next

    def rewind(self, position: tuple[int, int]) -> None:
        """Forget what came after a position, as the ring has forgotten it."""
        count, self._next = position
        del self._records[max(0, count - self._older) :]

    def restore(self, position: tuple[int, int], load: Callable[[], list[LogRecord]]) -> None:
        """Stand at a position of an earlier process; ``load`` reads its records when somebody wants them."""
        self._older, self._next = position
        self._records, self._load_older = [], load

    def catch_up(self, gathered: int = _GATHERED) -> None:
        """In the middle of a run: read once more than so many have gathered, so that the ring does not wrap over
        them."""
        if self._head_at == 0:
            self._find_ring()
        head = self._guest.machine.memory.words[self._head_at]
        if head - self._head_seen & (1 << 62) - 1 > gathered:
            self.read(_FINALIZED)

    def follow(self) -> Callable[[bool], list[LogRecord]]:
        """A function that gives what is new since it was called last. Its argument: whether the guest rests; while it
        does not, a line that may still be continued comes later."""
        seen = self.mark()

        def new(at_rest: bool) -> list[LogRecord]:
            nonlocal seen
            if at_rest:
                self.read()
            else:
                self.catch_up(0)
            records = self._records[seen - self._older :] if seen >= self._older else self.records[seen:]
            seen += len(records)
            return records

        return new

    def read(self, least: int = _COMMITTED) -> None:
        """Append every finished record that is not known yet; ``least`` is how far it must be (a line that was only
        committed may still be continued: read in the middle of a run, half of it would be lost)."""
        guest = self._guest
        if self._head_at == 0:
            self._find_ring()
        ring = guest.view("printk_ringbuffer", guest.read_uint(guest.symbol("prb")))
        count = 1 << ring["desc_ring.count_bits"]
        descs, infos = ring["desc_ring.descs"], ring["desc_ring.infos"]
        text_size = 1 << ring["text_data_ring.size_bits"]
        text_data = ring["text_data_ring.data"]
        head = self._head_seen = guest.machine.memory.words[self._head_at]
        # descriptor ids count up with the records; the newest is at head, and sequence numbers tell which are new
        new = []
        for back in range(count):
            index = (head - back) % count
            state, begin, end = self._descriptor(descs + index * self._desc_size)
            info = infos + index * self._info_size
            sequence = self._info(info, "seq")
            finished = least <= state <= _FINALIZED
            if finished and sequence >= self._next:
                new.append(self._record(info, begin, end, text_data, text_size))
                continue
            if state < least == _FINALIZED and sequence >= self._next:
                new.clear()  # what follows a record that is being written is taken with it, the next time
                continue
            never_used = bool(back) and sequence == 0 and not self._info(info, "ts_nsec")
            if finished or never_used:
                break
        new.sort(key=lambda record: record.sequence)
        if new:
            self._next = new[-1].sequence + 1
            self._records += new

    def _find_ring(self) -> None:
        guest = self._guest
        ring = guest.view("printk_ringbuffer", guest.read_uint(guest.symbol("prb")))
        paddr = guest.machine.pages.physical(ring.at("desc_ring.head_id"))
        self._head_at = (paddr or 0) >> 3

    def _descriptor(self, address: int) -> tuple[int, int, int]:
        read = self._guest.read_uint
        return read(address + self._state_at) >> 62, read(address + self._begin_at), read(address + self._end_at)

    def _info(self, address: int, name: str) -> int:
        field = self._fields[name]
        if field.bit_size:
            whole = self._guest.read_uint(address + field.bit_offset // 8, 1)
            return whole >> field.bit_offset % 8 & ((1 << field.bit_size) - 1)
        return self._guest.read_uint(address + field.offset, field.size)

    def _record(self, info: int, begin: int, end: int, text_data: int, text_size: int) -> LogRecord:
        length = self._info(info, "text_len")
        text = b""
        if length and not begin & 1:  # odd positions mark records without text
            start = begin % text_size
            if begin // text_size != end // text_size and end % text_size:
                start = 0  # the block did not fit before the ring's end and lies at its start
            text = self._guest.read(text_data + start + _ID_SIZE, length)
        return LogRecord(
            sequence=self._info(info, "seq"),
            time=self._info(info, "ts_nsec"),
            level=self._info(info, "level"),
            text=text.decode("utf-8", "surrogateescape"),
            facility=self._info(info, "facility"),
            caller=self._info(info, "caller_id"),
            continued=bool(self._info(info, "flags") & _CONTINUED),
        )
