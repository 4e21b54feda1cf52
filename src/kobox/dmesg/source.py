"""Where dmesg gets its records from, and clears them: a kernel of kobox, this host's ``/dev/kmsg``, a file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from errno import EAGAIN, EPIPE
from pathlib import Path
from typing import Protocol

from kobox.dmesg.read import parse_kmsg, parse_log_file
from kobox.errors import UsageError
from kobox.kernel.log import LogRecord

_PAUSE = 0.05
"""Seconds between two looks for new records."""
_RECORD_MAX = 8192
"""Bytes that a read of ``/dev/kmsg`` needs room for (PRINTKRB_RECORD_MAX, with all characters escaped)."""

CLEAR, CONSOLE_OFF, CONSOLE_ON, CONSOLE_LEVEL = 5, 6, 7, 8
"""Actions of ``syslog(2)``, include/linux/syslog.h."""


class LoggedKernel(Protocol):
    """The part of a kernel's face that is used here."""

    def dmesg(self, *, boot: bool = False) -> list[LogRecord]: ...
    def log_start(self) -> int: ...
    def syslog(self, action: int, value: int = 0) -> int: ...
    def read(self, path: str) -> bytes: ...
    def sleep(self, seconds: float) -> None: ...


class LogSource(Protocol):
    """What dmesg needs of a log."""

    def records(self) -> Iterable[LogRecord]:
        """Everything that was not cleared."""

    def boot_time(self) -> int:
        """Seconds since the epoch when the log's clock was 0."""

    def control(self, action: int, value: int = 0) -> None:
        """``syslog(2)``: one of the actions above."""

    def follow(self, after: int) -> Iterator[list[LogRecord]]:
        """Records with a sequence number above ``after`` as they come, for ever; an empty list now and then."""


class KernelLog:
    """The log of a kernel of kobox. While it is followed, the kernel runs: virtual time passes as real time does."""

    def __init__(self, kernel: LoggedKernel) -> None:
        self._kernel = kernel

    def records(self) -> list[LogRecord]:
        start = self._kernel.log_start()
        return [record for record in self._kernel.dmesg(boot=True) if record.sequence >= start]

    def boot_time(self) -> int:
        for line in self._kernel.read("/proc/stat").splitlines():
            if line.startswith(b"btime "):
                return int(line.split()[1])
        return 0

    def control(self, action: int, value: int = 0) -> None:
        self._kernel.syslog(action, value)

    def follow(self, after: int) -> Iterator[list[LogRecord]]:
        while True:
            new = [record for record in self._kernel.dmesg(boot=True) if record.sequence > after]
            after = new[-1].sequence if new else after
            yield new
            time.sleep(_PAUSE)
            self._kernel.sleep(_PAUSE)


class FileLog:
    """A saved log: it cannot be cleared, and nothing is added to it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.data = Path(path).read_bytes()

    def records(self) -> list[LogRecord]:
        return parse_log_file(self.data, self._path)

    def boot_time(self) -> int:
        return host_boot_time()

    def control(self, action: int, value: int = 0) -> None:
        raise UsageError(f"{self._path}: a file has no console and cannot be cleared")

    def follow(self, after: int) -> Iterator[list[LogRecord]]:
        return iter(())


class HostLog:
    """This host's log, read only."""

    def records(self) -> Iterator[LogRecord]:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(descriptor, 0, os.SEEK_DATA)
            yield from _kmsg_records(descriptor)
        finally:
            os.close(descriptor)

    def boot_time(self) -> int:
        return host_boot_time()

    def control(self, action: int, value: int = 0) -> None:
        raise UsageError("kobox does not change this host's log or console", hint="use util-linux's dmesg for that")

    def follow(self, after: int) -> Iterator[list[LogRecord]]:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                yield [record for record in _kmsg_records(descriptor) if record.sequence > after]
                time.sleep(_PAUSE)
        finally:
            os.close(descriptor)


def _kmsg_records(descriptor: int) -> Iterator[LogRecord]:
    while True:
        try:
            data = os.read(descriptor, _RECORD_MAX)
        except OSError as error:
            if error.errno == EPIPE:  # overwritten before it was read: go on with the next
                continue
            if error.errno == EAGAIN:
                return
            raise
        if not data:
            return
        record = parse_kmsg(data)
        if record is not None:
            yield record


def host_boot_time() -> int:
    """When this host was booted, in seconds since the epoch, as dmesg reckons it: by the clock that stops in suspend,
    plus what suspend took."""
    now, uptime = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    suspended = int(uptime) - int(time.clock_gettime(time.CLOCK_MONOTONIC))
    return int(now - uptime) + suspended


__all__ = [
    "CLEAR",
    "CONSOLE_LEVEL",
    "CONSOLE_OFF",
    "CONSOLE_ON",
    "FileLog",
    "HostLog",
    "KernelLog",
    "LogSource",
    "host_boot_time",
]
