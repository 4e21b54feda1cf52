"""A session's log as a source for dmesg: followed by its events, not by running its kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kobox.dmesg.source import KernelLog
from kobox.kernel.log import LogRecord

if TYPE_CHECKING:
    from kobox.session.client import RemoteKernel

_FIELDS = ("sequence", "time", "level", "text", "facility", "caller", "continued")


class SessionLog(KernelLog):
    """The log of a kernel in another process."""

    def __init__(self, kernel: RemoteKernel) -> None:
        super().__init__(kernel)
        self._session = kernel

    def follow(self, after: int) -> Iterator[list[LogRecord]]:
        """What came since ``after``, then what the session tells of. It ends with the session."""
        for event in self._session.events(kinds=["log"]):
            if event["type"] in ("hello", "gap"):  # from now on nothing is missed; a gap is filled from the log itself
                new = [record for record in self._session.dmesg(boot=True) if record.sequence > after]
            elif event["type"] == "log" and event["sequence"] > after:
                new = [LogRecord(**{name: event[name] for name in _FIELDS})]
            else:
                continue
            after = new[-1].sequence if new else after
            yield new
