"""Network devices, addresses and routes of a guest through its rtnetlink, as ``ip link``, ``ip address`` and ``ip
route`` do it, in the namespace that the kernel booted with or in another (``ip netns``)."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from kobox.errors import Errno
from kobox.kernel.files import Files
from kobox.kernel.syscalls import AT_FDCWD, O_RDONLY, O_WRONLY, Syscalls
from kobox.net import namespaces, netlink
from kobox.net.namespaces import Namespace
from kobox.net.netlink import ACK, CREATE, DUMP, EXCLUSIVE, REPLACE, Message, Value
from kobox.net.sockets import AF_INET, AF_INET6, AF_NETLINK, SOCK_RAW, GuestSocket, open_socket
from kobox.net.wireguard import WireGuard

_ROUTE = 0
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE = 16, 17, 18, 20, 22, 24
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 3, 0, 253, 1
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP = 1
_LINK, _ADDRESS, _ROUTE_ROW = struct.Struct("<BxHiII"), struct.Struct("<BBBBi"), struct.Struct("<8BI")
_ENODEV = 19
_HOME = "/proc/1/ns/net"


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
    """The network of one guest: of the namespace that it booted with, or of the one that ``namespace`` gave."""

    def __init__(self, syscalls: Syscalls, namespace: Namespace | None = None) -> None:
        self._sys, self._namespace = syscalls, namespace

    def __repr__(self) -> str:
        return f"<Net {self.name}>" if self.name else "<Net>"

    @property
    def name(self) -> str:
        """Of the namespace; empty for the one that the kernel booted with."""
        return "" if self._namespace is None else self._namespace.name

    def socket(self, family: int = AF_INET, kind: int = 1, protocol: int = 0) -> GuestSocket:
        """A socket of this namespace; numbers as in Python's ``socket``. The kernel may load a module for its
        family."""
        return open_socket(self._sys, family, kind, protocol, self._namespace)

    # -- namespaces ---------------------------------------------------------------------------------------------

    def namespace(self, name: str) -> Net:
        """The network of the namespace of that name, which is made if there is none (``ip netns add``)."""
        namespaces.check_name(name)
        found = Namespace(self._sys, name)
        if not found.exists:
            found.make()
        return Net(self._sys, found)

    def namespaces(self) -> list[str]:
        """The names of all namespaces (``ip netns list``)."""
        return namespaces.names(Files(self._sys))

    def delete_namespace(self, name: str) -> None:
        """``ip netns delete``: devices that lived there go with it, once no socket uses it; ``Errno``."""
        namespaces.check_name(name)
        Namespace(self._sys, name).remove()

    def read(self, path: str) -> bytes:
        """A file as it is in this namespace: ``/proc/net/tcp``, ``/proc/sys/net/…``."""
        files, descriptor = Files(self._sys), self._open(path, O_RDONLY)
        data = b""
        while piece := files.read_from(descriptor, 1 << 16):
            data += piece
        files.close(descriptor)
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write to such a file, in one call: ``write("/proc/sys/net/ipv4/ip_forward", b"1")``."""
        descriptor = self._open(path, O_WRONLY)
        try:
            Files(self._sys).write_to(descriptor, data)
        finally:
            Files(self._sys).close(descriptor)

    def _open(self, path: str, flags: int) -> int:
        if self._namespace is None:
            return Files(self._sys).open(path, flags)
        self._sys.window.clear()
        return self._namespace.checked(f"open {path}", "openat", AT_FDCWD, self._sys.window.text(path), flags, 0)

    # -- links --------------------------------------------------------------------------------------------------

    def add_link(
        self,
        name: str,
        kind: str,
        *,
        peer: str = "",
        peer_namespace: str = "",
        mtu: int = 0,
        address: str = "",
        data: Value | None = None,
    ) -> Link:
        """``ip link add NAME type KIND``: the kernel loads the module of the kind.

        ``peer`` is the other end of a veth, which may lie in another namespace; ``address`` a hardware address
        (``02:00:00:00:00:01``), ``data`` what else the kind takes (``IFLA_INFO_DATA``).
        """  # fmt: skip
        info: dict[int, Value] = {_INFO_KIND: kind}
        there = Namespace(self._sys, peer_namespace).open() if peer_namespace else -1
        if peer:
            other: dict[int, Value] = {_IFLA_IFNAME: peer}
            if there >= 0:
                other[_IFLA_NET_NS_FD] = there
            data = {_VETH_INFO_PEER: _LINK.pack(0, 0, 0, 0, 0) + netlink.attributes(other)}
        if data is not None:
            info[_INFO_DATA] = data
        wanted = _common(mtu, address)
        wanted[_IFLA_IFNAME], wanted[_IFLA_LINKINFO] = name, info
        body = _LINK.pack(0, 0, 0, 0, 0) + netlink.attributes(wanted)
        try:
            self._ask(f"add link {name} of type {kind}", _NEWLINK, CREATE | EXCLUSIVE | ACK, body)
        finally:
            if there >= 0:
                Files(self._sys).close(there)
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

    def move_link(self, name: str, namespace: str) -> None:
        """``ip link set NAME netns NAMESPACE``: the device is down there and has lost its addresses. An empty name is
        the namespace that the kernel booted with."""
        files = Files(self._sys)
        there = Namespace(self._sys, namespace).open() if namespace else files.open(_HOME)
        body = _LINK.pack(0, 0, self.link(name).ifindex, 0, 0) + netlink.attributes({_IFLA_NET_NS_FD: there})
        try:
            self._ask(f"move link {name} to namespace {namespace!r}", _NEWLINK, ACK, body)
        finally:
            files.close(there)

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

    # -- routes -------------------------------------------------------------------------------------------------

    def add_route(self, destination: str, *, via: str = "", link: str = "") -> None:
        """``ip route add DESTINATION via VIA dev LINK``; ``destination`` is ``10.0.0.0/8``, or ``default`` of the
        family of ``via``."""
        gateway = ipaddress.ip_address(via) if via else None
        if destination == "default":
            destination = "::/0" if gateway is not None and gateway.version == 6 else "0.0.0.0/0"
        network = ipaddress.ip_network(destination)
        family = AF_INET if network.version == 4 else AF_INET6
        scope = _SCOPE_UNIVERSE if gateway is not None or family == AF_INET6 else _SCOPE_LINK
        body = _ROUTE_ROW.pack(
            family, network.prefixlen, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, scope, _UNICAST, 0
        )  # fmt: skip
        wanted: dict[int, Value] = {_RTA_DST: network.network_address.packed} if network.prefixlen else {}
        if gateway is not None:
            wanted[_RTA_GATEWAY] = gateway.packed
        if link:
            wanted[_RTA_OIF] = self.link(link).ifindex
        what = f"add route {destination}"
        self._ask(what, _NEWROUTE, CREATE | EXCLUSIVE | ACK, body + netlink.attributes(wanted))

    # -- what some kinds of links have of their own ---------------------------------------------------------------

    def wireguard(self, name: str) -> WireGuard:
        """Keys and peers of a wireguard device, as ``wg`` sets and shows them."""
        return WireGuard(self.socket, name)

    # -- asking -------------------------------------------------------------------------------------------------

    def _ask(self, what: str, type_: int, flags: int, body: bytes) -> list[Message]:
        """One request and everything that comes back; ``Errno`` as the kernel answers it."""
        with self.socket(AF_NETLINK, SOCK_RAW, _ROUTE) as socket:
            return netlink.ask(socket, what, type_, flags, body)


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
