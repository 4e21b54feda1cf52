"""Turns what a kernel does into events: new log records, steps of loads, uevents, changed taint.

``look`` is called in the kernel's thread, behind every request and now and then while one runs; it costs a few memory
reads when nothing has happened. Uevents are what udev would hear, from a netlink socket in the guest; reading it takes
system calls, so they come when a request has ended.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from kobox.abi.taint import letters
from kobox.errors import GuestError
from kobox.kernel.log import LogRecord
from kobox.session.events import EventLog

if TYPE_CHECKING:
    from kobox.bare.kernel import BareKernel
    from kobox.box import Kernel

_AF_NETLINK, _SOCK_DGRAM, _SOCK_NONBLOCK, _SOCK_CLOEXEC, _KOBJECT_UEVENT = 16, 2, 0o4000, 0o2000000, 15
_SOL_SOCKET, _SO_RCVBUFFORCE, _MSG_DONTWAIT, _ENOBUFS = 1, 33, 0x40, 105
_BUFFER_BYTES = 32 << 20
"""Room for the uevents of one request: thousands."""
_MESSAGE_BYTES = 8192


class Uevents(Protocol):
    """Where uevents come from. ``take`` gives each as its lines, ``add@/module/x`` first; None stands for lost ones."""

    def take(self) -> Iterator[list[str] | None]: ...


class NetlinkUevents:
    """An image's uevents. ``descriptor`` of an earlier process, where the kernel was saved with its socket open."""

    def __init__(self, kernel: Kernel, descriptor: int = -1) -> None:
        self._kernel, self.descriptor = kernel, descriptor
        self._counter = kernel.guest.symbols.get("uevent_seqnum")
        if descriptor < 0:
            self.descriptor = self._open()
        self._seen = self._count()

    def _open(self) -> int:
        call, window = self._kernel.syscalls.call, self._kernel.syscalls.window
        descriptor = call("socket", _AF_NETLINK, _SOCK_DGRAM | _SOCK_NONBLOCK | _SOCK_CLOEXEC, _KOBJECT_UEVENT)
        if descriptor < 0:
            return -1  # a kernel without hotplug events
        window.clear()
        size = window.put(struct.pack("<i", _BUFFER_BYTES))
        call("setsockopt", descriptor, _SOL_SOCKET, _SO_RCVBUFFORCE, size, 4)
        window.clear()
        call("bind", descriptor, window.put(struct.pack("<HHII", _AF_NETLINK, 0, 0, 1)), 12)
        return descriptor

    def _count(self) -> int:
        """How many uevents the kernel has numbered: tells without a system call that there are none."""
        return self._kernel.guest.read_uint(self._counter) if self._counter is not None else -1

    def take(self) -> Iterator[list[str] | None]:
        count = self._count()
        if self.descriptor < 0 or (count == self._seen and self._counter is not None):
            return
        self._seen = count
        call, window = self._kernel.syscalls.call, self._kernel.syscalls.window
        while True:
            window.clear()
            buffer = window.reserve(_MESSAGE_BYTES)
            size = call("recvfrom", self.descriptor, buffer, _MESSAGE_BYTES, _MSG_DONTWAIT, 0, 0)
            if size == -_ENOBUFS:
                yield None
                continue
            if size <= 0:
                return
            text = self._kernel.guest.read(buffer, size).decode("utf-8", "surrogateescape")
            yield [line for line in text.split("\0") if line]


class BareUevents:
    """The bare kernel notes its uevents in a list."""

    def __init__(self, kernel: BareKernel) -> None:
        self._kernel = kernel

    def take(self) -> Iterator[list[str] | None]:
        guest = self._kernel.guest
        heard, guest.uevents = guest.uevents, []
        yield from heard


class Watcher:
    """Looks at one kernel. ``operation`` is the load that runs, if any: its steps are told as they end."""

    def __init__(self, kernel: Kernel | BareKernel, uevents: Uevents, events: EventLog) -> None:
        self._kernel, self._uevents, self._events = kernel, uevents, events
        self._log = kernel.follow_log()
        self._tainted = kernel.tainted
        self._operation: Any = None
        self._module, self._steps = "", 0

    def loading(self, operation: Any, module: str) -> None:
        """A load begins; its ``trace`` grows."""
        self._operation, self._module, self._steps = operation, module, 0

    def loaded(self, result: int, reason: str) -> None:
        """It has ended."""
        self.look(at_rest=True)
        self._operation = None
        self._events.add("load", module=self._module, result=result, reason=reason)

    def unloaded(self, module: str, result: int) -> None:
        """An unload has ended."""
        self._events.add("unload", module=module, result=result)

    def look(self, at_rest: bool = False) -> None:
        """Tell what is new, as far as memory says it. Safe in the middle of a run."""
        for record in self._log(at_rest):
            self._events.add("log", **log_fields(record))
        if self._operation is not None:
            steps = self._operation.trace
            for step in steps[self._steps :]:
                self._events.add("step", module=self._module, name=step.name, ms=round(step.ms, 3))
            self._steps = len(steps)
        tainted = self._kernel.tainted
        if tainted != self._tainted:
            self._events.add("taint", value=tainted, letters=letters(tainted), before=self._tainted)
            self._tainted = tainted

    def settle(self) -> None:
        """As ``look`` behind a request, with what takes calls into the kernel."""
        self.look(at_rest=True)
        try:
            for lines in self._uevents.take():
                if lines is None:
                    self._events.add("gap", what="uevent")
                    continue
                variables = dict(line.split("=", 1) for line in lines[1:] if "=" in line)
                action, _, path = lines[0].partition("@")
                self._events.add("uevent", action=action, path=path, variables=variables)
        except GuestError as error:  # the kernel is dead: it sends nothing any more
            self._uevents = _Silent()
            self._events.add("dead", why=error.text)


class _Silent:
    def take(self) -> Iterator[list[str] | None]:
        yield from ()


def log_fields(record: LogRecord) -> dict[str, Any]:
    """A record as the API shows it; text that is no UTF-8 keeps its bytes as lone surrogates, escaped in JSON."""
    return record._asdict()
