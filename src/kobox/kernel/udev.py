"""A small udev: one guest task that hears the kernel's uevents and loads the modules that devices are for.

The rule is the one of ``80-drivers.rules``: an event ``add`` with a ``MODALIAS`` is given to modprobe (with ``-b``: the
kmod in udev heeds the blacklist for names, too). Other events and all other rules (names, links, permissions) are not
its business. The task sleeps in ``recvfrom`` on a netlink socket and costs nothing until a device comes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator

from kobox.errors import Errno
from kobox.kernel.files import Files
from kobox.kernel.guest import Guest, signed64
from kobox.kernel.modprobe import Modprobe
from kobox.kernel.syscalls import O_WRONLY, Syscalls

_AF_NETLINK, _SOCK_RAW, _KOBJECT_UEVENT = 16, 3, 15
_SOL_SOCKET, _SO_RCVBUFFORCE = 1, 33
_GROUP_KERNEL = 1
_QUEUE = 16 << 20
"""Bytes of messages that may wait: a coldplug sends some hundreds while the first of them loads modules."""
_ENOBUFS, _ENOENT, _ENODEV = 105, 2, 19
COMM = "(udev-worker)"
_SETTLE_STEP_NS, _SETTLE_STEPS = 20_000_000, 3000


class Udev:
    """Hears one guest's uevents. ``modprobe`` is asked for when the first alias comes."""

    def __init__(self, guest: Guest, syscalls: Syscalls, modprobe: Callable[[], Modprobe]) -> None:
        self._guest, self._sys, self._modprobe = guest, syscalls, modprobe
        self._programs = guest.helpers.programs
        self._programs.listen(COMM, self._steps)

    def start(self) -> None:
        """Begin to listen; nothing where it does already."""
        self._programs.in_flight()  # an old one may have died
        state = self._guest.tasks.state
        if state.listener:
            return
        call, window = self._sys.checked, self._sys.window
        descriptor = call("a socket for uevents", "socket", _AF_NETLINK, _SOCK_RAW, _KOBJECT_UEVENT)
        window.clear()
        size = window.put(struct.pack("<i", _QUEUE))
        call("the queue of uevents", "setsockopt", descriptor, _SOL_SOCKET, _SO_RCVBUFFORCE, size, 4)
        address = window.put(struct.pack("<HHII", _AF_NETLINK, 0, 0, _GROUP_KERNEL))
        call("listen to uevents", "bind", descriptor, address, 12)
        state.listener_socket = descriptor
        self._programs.start_listener()
        self._guest.tasks.sleep(_SETTLE_STEP_NS)  # until it sleeps in its first call

    def coldplug(self, files: Files) -> None:
        """Have the kernel announce every device with an alias once more, as ``udevadm trigger`` does, and settle."""
        for bus in files.list("/sys/bus"):
            for device in files.list(f"/sys/bus/{bus.name}/devices"):
                folder = f"/sys/bus/{bus.name}/devices/{device.name}"
                try:
                    files.status(f"{folder}/modalias")
                    files.write(f"{folder}/uevent", b"add", O_WRONLY)
                except Errno as error:
                    if error.number not in (_ENOENT, _ENODEV):
                        raise
        self.settle()

    def settle(self) -> None:
        """Let time pass until every event so far was dealt with (``udevadm settle``)."""
        for _ in range(_SETTLE_STEPS):
            self._guest.tasks.sleep(_SETTLE_STEP_NS)
            if not self._programs.listener_busy:
                return
        raise Errno(110, "the modules of new devices are still being loaded")

    def _steps(self, received: int | None) -> Generator[tuple[int, ...], int, int]:
        """The task: ``received`` is the result of a ``recvfrom`` that was under way when the guest was put aside."""
        window = self._sys.listener_window
        while True:
            if received is None:
                self._programs.listener_busy = False
                socket = self._guest.tasks.state.listener_socket
                received = signed64(
                    (yield self._sys.prepare_at(window.regs, "recvfrom", socket, window.buffer, window.size, 0, 0, 0))
                )
            self._programs.listener_busy = True
            if received < 0 and received != -_ENOBUFS:
                return 1
            if received > 0:
                yield from self._heed(parse(self._guest.read(window.buffer, received)))
            received = None

    def _heed(self, event: dict[str, str]) -> Generator[tuple[int, ...], int, None]:
        if event.get("ACTION") == "add" and (alias := event.get("MODALIAS")):
            yield from self._modprobe().load_for_device(alias, event.get("DEVPATH", ""))


def parse(message: bytes) -> dict[str, str]:
    """The variables of an event; its first line (``add@/devices/…``) is not one."""
    lines = message.decode("utf-8", "surrogateescape").split("\0")[1:]
    return dict(line.split("=", 1) for line in lines if "=" in line)
