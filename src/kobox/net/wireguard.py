"""Keys and peers of wireguard devices, as ``wg set`` and ``wg show`` have them. Follows
include/uapi/linux/wireguard.h."""

from __future__ import annotations

import base64
import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

from kobox.errors import UsageError
from kobox.net import genetlink, netlink
from kobox.net.genetlink import OpenSocket
from kobox.net.netlink import ACK, DUMP, Value
from kobox.net.sockets import AF_INET, AF_INET6

_FAMILY, _VERSION = "wireguard", 1
_GET, _SET = 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _FLAGS, _LISTEN_PORT, _PEERS = 2, 3, 4, 5, 6, 8
_REPLACE_PEERS, _REPLACE_ALLOWED = 1, 2
_PEER_KEY, _PEER_PRESHARED, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 2, 3, 4, 5
_PEER_HANDSHAKE, _PEER_RECEIVED, _PEER_SENT, _PEER_ALLOWED = 6, 7, 8, 9
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_PREFIX = 1, 2, 3
_KEY_SIZE = 32
_U16, _TIME = struct.Struct("<H"), struct.Struct("<qq")


class Peer(NamedTuple):
    """One peer. Keys are base64, as ``wg`` prints them; ``endpoint`` is None where nobody knows it yet.

    ``received`` and ``sent`` are bytes, ``handshake`` seconds since 1970 of the last one (0: none); they are answers
    only.
    """

    public_key: str
    allowed_ips: tuple[str, ...] = ()
    endpoint: tuple[str, int] | None = None
    keepalive: int = 0
    preshared_key: str = ""
    received: int = 0
    sent: int = 0
    handshake: float = 0.0


class Device(NamedTuple):
    """What ``wg show`` says of a device. ``public_key`` is empty where it has no private one."""

    public_key: str
    listen_port: int
    peers: tuple[Peer, ...]


class WireGuard:
    """One device in one namespace."""

    def __init__(self, open_socket: OpenSocket, name: str) -> None:
        self._open, self.name = open_socket, name

    def set(
        self, *, private_key: str = "", listen_port: int = -1, peers: Sequence[Peer] | None = None, replace: bool = True
    ) -> None:
        """``wg set``: what is given changes. ``peers`` take the place of those there are, or join them (not
        ``replace``)."""
        values: dict[int, Value] = {_IFNAME: self.name}
        if private_key:
            values[_PRIVATE_KEY] = _key(private_key)
        if listen_port >= 0:
            values[_LISTEN_PORT] = _U16.pack(listen_port)
        if peers is not None:
            values[_FLAGS] = _REPLACE_PEERS if replace else 0
            values[_PEERS] = {number: _peer(peer) for number, peer in enumerate(peers)}
        family = genetlink.family(self._open, _FAMILY, _VERSION)
        genetlink.request(self._open, family, _SET, values, ACK, f"set wireguard {self.name}")

    def get(self) -> Device:
        """``wg show``."""
        family = genetlink.family(self._open, _FAMILY, _VERSION)
        what = f"show wireguard {self.name}"
        public_key, port, peers = "", 0, []
        for answer in genetlink.request(self._open, family, _GET, {_IFNAME: self.name}, DUMP, what):
            values = netlink.read_attributes(answer)
            if _PUBLIC_KEY in values:
                public_key = _text(values[_PUBLIC_KEY])
            if _LISTEN_PORT in values:
                (port,) = _U16.unpack(values[_LISTEN_PORT])
            peers += [_peer_of(raw) for _, raw in netlink.each_attribute(values.get(_PEERS, b""))]
        return Device(public_key, port, tuple(peers))


def _key(text: str) -> bytes:
    raw = base64.b64decode(text)
    if len(raw) != _KEY_SIZE:
        raise UsageError(f"a wireguard key has {_KEY_SIZE} bytes in base64, found {len(raw)}")
    return raw


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode() if any(key) else ""


def _peer(peer: Peer) -> dict[int, Value]:
    values: dict[int, Value] = {_PEER_KEY: _key(peer.public_key), _PEER_FLAGS: _REPLACE_ALLOWED}
    if peer.preshared_key:
        values[_PEER_PRESHARED] = _key(peer.preshared_key)
    if peer.endpoint is not None:
        values[_PEER_ENDPOINT] = _endpoint(*peer.endpoint)
    if peer.keepalive:
        values[_PEER_KEEPALIVE] = _U16.pack(peer.keepalive)
    values[_PEER_ALLOWED] = {number: _allowed(text) for number, text in enumerate(peer.allowed_ips)}
    return values


def _endpoint(host: str, port: int) -> bytes:
    """``struct sockaddr_in`` or ``sockaddr_in6``."""
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return struct.pack("<H", AF_INET) + struct.pack(">H", port) + address.packed + bytes(8)
    return struct.pack("<H", AF_INET6) + struct.pack(">HI", port, 0) + address.packed + bytes(4)


def _allowed(text: str) -> dict[int, Value]:
    network = ipaddress.ip_network(text, strict=False)
    family = AF_INET if network.version == 4 else AF_INET6
    return {
        _ALLOWED_FAMILY: _U16.pack(family),
        _ALLOWED_ADDRESS: network.network_address.packed,
        _ALLOWED_PREFIX: bytes((network.prefixlen,)),
    }


def _peer_of(raw: bytes) -> Peer:
    values = netlink.read_attributes(raw)
    allowed = [netlink.read_attributes(one) for _, one in netlink.each_attribute(values.get(_PEER_ALLOWED, b""))]
    seconds, nanoseconds = _TIME.unpack(values.get(_PEER_HANDSHAKE, bytes(_TIME.size)))
    return Peer(
        _text(values[_PEER_KEY]),
        tuple(f"{ipaddress.ip_address(one[_ALLOWED_ADDRESS])}/{one[_ALLOWED_PREFIX][0]}" for one in allowed),
        _endpoint_of(values.get(_PEER_ENDPOINT, b"")),
        int.from_bytes(values.get(_PEER_KEEPALIVE, b""), "little"),
        _text(values.get(_PEER_PRESHARED, b"")),
        int.from_bytes(values.get(_PEER_RECEIVED, b""), "little"),
        int.from_bytes(values.get(_PEER_SENT, b""), "little"),
        seconds + nanoseconds / 1e9,
    )


def _endpoint_of(raw: bytes) -> tuple[str, int] | None:
    if not raw:
        return None
    family, port = struct.unpack_from("<H", raw)[0], struct.unpack_from(">H", raw, 2)[0]
    return str(ipaddress.ip_address(raw[4:8] if family == AF_INET else raw[8:24])), port
