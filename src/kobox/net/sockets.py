"""Sockets of the guest: its own system calls, with Python's names and addresses."""

from __future__ import annotations

import ipaddress
import struct
from types import TracebackType
from typing import Self

from kobox.errors import UsageError
from kobox.kernel.syscalls import Syscalls
from kobox.net.namespaces import Namespace

AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 2, 10, 16, 17
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW = 1, 2, 3
MSG_DONTWAIT = 0x40
_SOL_SOCKET, _SO_RCVTIMEO, _SO_SNDTIMEO = 1, 20, 21
_ADDRESS_ROOM = 128

HostPort = tuple[str, int]
"""An address of AF_INET or AF_INET6."""
PacketAddress = tuple[int, int]
"""An address of AF_PACKET: the device's index and the protocol (0x0003: all)."""


def open_socket(
    syscalls: Syscalls, family: int, kind: int, protocol: int = 0, namespace: Namespace | None = None
) -> GuestSocket:
    """A socket of a network namespace, which it keeps for all its life; None: of the one that the kernel booted
    with."""
    what, call = f"socket of family {family}, type {kind}", ("socket", family, kind, protocol)
    syscalls.window.clear()
    descriptor = syscalls.checked(what, *call) if namespace is None else namespace.checked(what, *call)
    return GuestSocket(syscalls, family, descriptor)


class GuestSocket:
    """An open socket of the guest. A context manager: it is closed at the end.

    A call that must wait lets virtual time pass, up to the kernel's limit for one call, or to ``settimeout``.
    """

    def __init__(self, syscalls: Syscalls, family: int, descriptor: int) -> None:
        self._sys, self.family, self.descriptor = syscalls, family, descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sys.checked("close", "close", self.descriptor)

    def settimeout(self, seconds: float) -> None:
        """Virtual seconds after which waiting ends with EAGAIN."""
        value = struct.pack("<qq", int(seconds), int(seconds % 1 * 1_000_000))
        for option in (_SO_RCVTIMEO, _SO_SNDTIMEO):
            self.setsockopt(_SOL_SOCKET, option, value)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        raw = struct.pack("<i", value) if isinstance(value, int) else value
        self._sys.window.clear()
        place = self._sys.window.put(raw)
        self._sys.checked("setsockopt", "setsockopt", self.descriptor, level, option, place, len(raw))

    def bind(self, address: HostPort | PacketAddress) -> None:
        self._with_address("bind", address)

    def connect(self, address: HostPort | PacketAddress) -> None:
        self._with_address("connect", address)

    def listen(self, backlog: int = 5) -> None:
        self._sys.checked("listen", "listen", self.descriptor, backlog)

    def accept(self) -> GuestSocket:
        descriptor = self._sys.checked("accept", "accept4", self.descriptor, 0, 0, 0)
        return GuestSocket(self._sys, self.family, descriptor)

    def getsockname(self) -> HostPort:
        """Its own address; AF_INET and AF_INET6 only."""
        self._sys.window.clear()
        room = self._sys.window.reserve(_ADDRESS_ROOM)
        size = self._sys.window.put(struct.pack("<I", _ADDRESS_ROOM))
        self._sys.checked("getsockname", "getsockname", self.descriptor, room, size)
        raw = self._sys.guest.read(room, _ADDRESS_ROOM)
        (port,) = struct.unpack_from(">H", raw, 2)
        return str(ipaddress.ip_address(raw[4:8] if self.family == AF_INET else raw[8:24])), port

    def send(self, data: bytes, flags: int = 0) -> int:
        """How much was taken; ``flags`` as Python's ``socket`` has them (``MSG_DONTWAIT``)."""
        self._sys.window.clear()
        place = self._sys.window.put(data)
        return self._sys.checked("send", "sendto", self.descriptor, place, len(data), flags, 0, 0)

    def sendto(self, data: bytes, address: HostPort | PacketAddress) -> int:
        self._sys.window.clear()
        place, raw = self._sys.window.put(data), self._packed(address)
        to = self._sys.window.put(raw)
        return self._sys.checked("send", "sendto", self.descriptor, place, len(data), 0, to, len(raw))

    def recv(self, size: int = 1 << 16, flags: int = 0) -> bytes:
        """Up to ``size`` bytes; of a datagram the rest is lost. Empty at the end of a stream."""
        self._sys.window.clear()
        room = self._sys.window.reserve(size)
        count = self._sys.checked("receive", "recvfrom", self.descriptor, room, size, flags, 0, 0)
        return self._sys.guest.read(room, count)

    def _with_address(self, call: str, address: HostPort | PacketAddress) -> None:
        raw = self._packed(address)
        self._sys.window.clear()
        self._sys.checked(f"{call} {address}", call, self.descriptor, self._sys.window.put(raw), len(raw))

    def _packed(self, address: HostPort | PacketAddress) -> bytes:
        """``struct sockaddr`` of the socket's family."""
        first, second = address
        if self.family == AF_PACKET and isinstance(first, int):
            return struct.pack("<H", AF_PACKET) + struct.pack(">H", second) + struct.pack("<iHBB8x", first, 0, 0, 0)
        if self.family in (AF_INET, AF_INET6) and isinstance(first, str):
            host = ipaddress.ip_address(first).packed
            head = struct.pack("<H", self.family) + struct.pack(">H", second)
            return head + host + bytes(8) if self.family == AF_INET else head + bytes(4) + host + bytes(4)
        raise UsageError(f"{address!r} is no address of family {self.family}")
