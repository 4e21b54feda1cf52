"""What a kernel announces of its devices while somebody listens (``udevadm monitor --kernel``)."""

from __future__ import annotations

import struct
from errno import EAGAIN, ENOBUFS
from types import TracebackType
from typing import Self

from kobox.errors import Errno
from kobox.kernel.syscalls import Syscalls
from kobox.kernel.udev import parse

_AF_NETLINK, _SOCK_RAW, _KOBJECT_UEVENT, _NONBLOCK = 16, 3, 15, 0o4000
_SOL_SOCKET, _SO_RCVBUFFORCE = 1, 33
_GROUP_KERNEL = 1
_QUEUE, _MESSAGE = 4 << 20, 8192


class Uevents:
    """A listener; it hears what happens while it is open as a context manager."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._sys, self._socket = syscalls, -1

    def __enter__(self) -> Self:
        call, window = self._sys.checked, self._sys.window
        self._socket = call("a socket for uevents", "socket", _AF_NETLINK, _SOCK_RAW | _NONBLOCK, _KOBJECT_UEVENT)
        window.clear()
        size = window.put(struct.pack("<i", _QUEUE))
        call("the queue of uevents", "setsockopt", self._socket, _SOL_SOCKET, _SO_RCVBUFFORCE, size, 4)
        address = window.put(struct.pack("<HHII", _AF_NETLINK, 0, 0, _GROUP_KERNEL))
        call("listen to uevents", "bind", self._socket, address, 12)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sys.checked("close the socket for uevents", "close", self._socket)

    def heard(self) -> list[dict[str, str]]:
        """Events that were sent since the last call, each as its variables; of more than the queue holds, the rest is
        lost."""
        events: list[dict[str, str]] = []
        window = self._sys.window
        while True:
            window.clear()
            buffer = window.reserve(_MESSAGE)
            try:
                count = self._sys.checked("hear a uevent", "recvfrom", self._socket, buffer, _MESSAGE, 0, 0, 0)
            except Errno as error:
                if error.number == ENOBUFS:
                    continue
                if error.number == EAGAIN:
                    return events
                raise
            events.append(parse(self._sys.guest.read(buffer, count)))
