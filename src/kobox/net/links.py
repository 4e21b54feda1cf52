"""Network devices and addresses of a guest through its rtnetlink, as ``ip link`` and ``ip address`` do it."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from kobox.errors import Errno
from kobox.kernel.syscalls import Syscalls
from kobox.net import netlink
from kobox.net.netlink import ACK, CREATE, DUMP, EXCLUSIVE, NLMSG_DONE, REPLACE, REQUEST, Message, Value
from kobox.net.sockets import AF_INET, AF_INET6, AF_NETLINK, SOCK_RAW, GuestSocket, open_socket

_ROUTE = 0
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 17, 18, 20, 22
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP = 1
_LINK, _ADDRESS = struct.Struct("<BxHiII"), struct.Struct("<BBBBi")
_ENODEV = 19


class Link(NamedTuple):
    """One network device. ``kind`` is empty where no link type made it; ``master`` is an ``ifindex``, 0 for none."""

    ifindex: int
    name: str
    kind: str
    up: bool
    mtu: int
    master: int
    address: str


class Address(NamedTuple):
    """``text`` with its prefix length: 10.0.0.1/24."""

    link: int
    text: str


class Net:
    """The network of one guest: of the namespace that it booted with."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._sys = syscalls
        self._sequence = 0

    def socket(self, family: int = AF_INET, kind: int = 1, protocol: int = 0) -> GuestSocket:
        """A socket of the guest; numbers as in Python's ``socket``. The kernel may load a module for its family."""
        return open_socket(self._sys, family, kind, protocol)

    # -- links --------------------------------------------------------------------------------------------------

    def add_link(
        self, name: str, kind: str, *, peer: str = "", mtu: int = 0, address: str = "", data: Value | None = None
    ) -> Link:
        """``ip link add NAME type KIND``: the kernel loads the module of the kind.

        ``peer`` is the other end of a veth, ``address`` a hardware address (``02:00:00:00:00:01``), ``data`` what else
        the kind takes (``IFLA_INFO_DATA``).
        """
        info: dict[int, Value] = {_INFO_KIND: kind}
        if peer:
            data = {_VETH_INFO_PEER: _LINK.pack(0, 0, 0, 0, 0) + netlink.attributes({_IFLA_IFNAME: peer})}
        if data is not None:
            info[_INFO_DATA] = data
        wanted = _common(mtu, address)
        wanted[_IFLA_IFNAME], wanted[_IFLA_LINKINFO] = name, info
        body = _LINK.pack(0, 0, 0, 0, 0) + netlink.attributes(wanted)
        self._ask(f"add link {name} of type {kind}", _NEWLINK, CREATE | EXCLUSIVE | ACK, body)
        return self.link(name)

    def set_link(
        self, name: str, *, up: bool | None = None, master: str | None = None, mtu: int = 0, address: str = ""
    ) -> Link:
        """``ip link set``; ``master`` is the bridge or bond that it goes into, empty takes it out."""
        wanted = _common(mtu, address)
        if master is not None:
            wanted[_IFLA_MASTER] = self.link(master).ifindex if master else 0
        flags, change = (_IFF_UP if up else 0), (0 if up is None else _IFF_UP)
        body = _LINK.pack(0, 0, self.link(name).ifindex, flags, change) + netlink.attributes(wanted)
        self._ask(f"set link {name}", _NEWLINK, ACK, body)
        return self.link(name)

    def delete_link(self, name: str) -> None:
        body = _LINK.pack(0, 0, self.link(name).ifindex, 0, 0)
        self._ask(f"delete link {name}", _DELLINK, ACK, body)

    def links(self) -> list[Link]:
        """All devices, in the kernel's order."""
        answers = self._ask("list links", _GETLINK, DUMP, _LINK.pack(0, 0, 0, 0, 0))
        return [_link_of(answer.body) for answer in answers if answer.type == _NEWLINK]

    def link(self, name: str) -> Link:
        """One device by name; ``Errno(ENODEV)``."""
        for link in self.links():
            if link.name == name:
                return link
        raise Errno(_ENODEV, f"no link {name!r}")

    # -- addresses ----------------------------------------------------------------------------------------------

    def add_address(self, link: str, text: str) -> None:
        """``ip address add TEXT dev LINK``; ``text`` is ``10.0.0.1/24`` or of IPv6."""
        interface = ipaddress.ip_interface(text)
        family = AF_INET if interface.version == 4 else AF_INET6
        raw = interface.ip.packed
        body = _ADDRESS.pack(family, interface.network.prefixlen, 0, 0, self.link(link).ifindex)
        body += netlink.attributes({_IFA_LOCAL: raw, _IFA_ADDRESS: raw})
        self._ask(f"add address {text} to {link}", _NEWADDR, CREATE | REPLACE | ACK, body)

    def addresses(self, link: str | None = None) -> list[Address]:
        """All addresses, or those of one device."""
        index = None if link is None else self.link(link).ifindex
        found = []
        for answer in self._ask("list addresses", _GETADDR, DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            if answer.type == _NEWADDR:
                _, prefix, _, _, owner = _ADDRESS.unpack_from(answer.body)
                values = netlink.read_attributes(answer.body[_ADDRESS.size :])
                raw = values.get(_IFA_LOCAL) or values[_IFA_ADDRESS]
                if index in (None, owner):
                    found.append(Address(owner, f"{ipaddress.ip_address(raw)}/{prefix}"))
        return found

    # -- asking -------------------------------------------------------------------------------------------------

    def _ask(self, what: str, type_: int, flags: int, body: bytes) -> list[Message]:
        """One request and everything that comes back; ``Errno`` as the kernel answers it."""
        self._sequence += 1
        with open_socket(self._sys, AF_NETLINK, SOCK_RAW, _ROUTE) as socket:
            socket.send(netlink.message(type_, flags | REQUEST, self._sequence, body))
            answers: list[Message] = []
            while True:
                for answer in netlink.messages(socket.recv(1 << 15)):
                    netlink.check(answer, what)
                    answers.append(answer)
                if flags & DUMP != DUMP or any(answer.type == NLMSG_DONE for answer in answers):
                    return answers


def _common(mtu: int, address: str) -> dict[int, Value]:
    wanted: dict[int, Value] = {_IFLA_MTU: mtu} if mtu else {}
    if address:
        wanted[_IFLA_ADDRESS] = bytes.fromhex(address.replace(":", ""))
    return wanted


def _link_of(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values = netlink.read_attributes(body[_LINK.size :])
    info = netlink.read_attributes(values.get(_IFLA_LINKINFO, b""))
    number = {key: int.from_bytes(values.get(key, b""), "little") for key in (_IFLA_MTU, _IFLA_MASTER)}
    return Link(
        index,
        _text(values.get(_IFLA_IFNAME, b"")),
        _text(info.get(_INFO_KIND, b"")),
        bool(flags & _IFF_UP),
        number[_IFLA_MTU],
        number[_IFLA_MASTER],
        values.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("latin-1")
