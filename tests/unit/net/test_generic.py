"""Generic netlink and wireguard as bytes, against a socket that answers what a kernel would."""

from __future__ import annotations

import base64
import struct
from typing import Any, Self

import pytest

from kobox.errors import Errno, UsageError
from kobox.net import genetlink, netlink
from kobox.net.wireguard import Device, Peer, WireGuard

KEY, OTHER = bytes(range(32)), bytes(range(100, 132))
FAMILY = 29


class Socket:
    """One request, one prepared answer."""

    def __init__(self, sent: list[bytes], answers: list[bytes]) -> None:
        self._sent, self._answers = sent, answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""

    def send(self, data: bytes) -> int:
        self._sent.append(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        return self._answers.pop(0)


class Kernel:
    """Gives out sockets; ``sent`` is what was asked, ``answers`` what comes back."""

    def __init__(self, *answers: bytes) -> None:
        self.sent: list[bytes] = []
        self.answers = list(answers)

    def open(self, family: int, kind: int, protocol: int) -> Any:
        assert (family, kind, protocol) == (16, 3, 16)
        return Socket(self.sent, self.answers)


def generic(values: dict[int, netlink.Value], type_: int = FAMILY) -> bytes:
    return netlink.message(type_, 0, 1, bytes(4) + netlink.attributes(values))


FOUND = generic({1: struct.pack("<H", FAMILY), 2: "wireguard"}, 16)
OK, DONE = netlink.message(2, 0, 1, bytes(20)), netlink.message(3, 0, 1, bytes(4))


def test_a_family_is_asked_for_by_name() -> None:
    kernel = Kernel(FOUND)
    assert genetlink.family(kernel.open, "wireguard", 1) == (FAMILY, 1)
    (message,) = netlink.messages(kernel.sent[0])
    assert message.type == 16
    assert message.body[0] == 3
    assert netlink.read_attributes(message.body[4:]) == {2: b"wireguard\0"}


def test_a_family_that_nobody_has_is_an_error() -> None:
    refusal = netlink.message(2, 0, 1, struct.pack("<i", -2) + bytes(16))
    with pytest.raises(Errno, match="ENOENT"):
        genetlink.family(Kernel(refusal).open, "nosuch", 1)


def test_a_peer_is_packed_with_its_networks() -> None:
    kernel = Kernel(FOUND, OK)
    peer = Peer(base64.b64encode(KEY).decode(), ("10.0.0.0/24", "fd00::/64"), ("192.0.2.1", 51820), keepalive=25)
    WireGuard(kernel.open, "wg0").set(private_key=base64.b64encode(OTHER).decode(), listen_port=7, peers=[peer])
    (message,) = netlink.messages(kernel.sent[1])
    values = netlink.read_attributes(message.body[4:])
    assert values[2] == b"wg0\0"
    assert (values[3], values[6]) == (OTHER, struct.pack("<H", 7))
    ((_, raw),) = netlink.each_attribute(values[8])
    fields = netlink.read_attributes(raw)
    assert (fields[1], fields[5]) == (KEY, struct.pack("<H", 25))
    assert fields[4] == bytes.fromhex("0200 ca6c c0000201") + bytes(8)
    networks = [netlink.read_attributes(one) for _, one in netlink.each_attribute(fields[9])]
    assert [network[3][0] for network in networks] == [24, 64]
    assert networks[0][2] == bytes((10, 0, 0, 0))


def test_a_device_is_read_with_peers_that_share_a_number() -> None:
    """The kernel gives every member of a list the number 0."""
    peers = b"".join(netlink.attributes({0: {1: key, 7: struct.pack("<Q", 5)}}) for key in (KEY, OTHER))
    kernel = Kernel(FOUND, generic({2: "wg0", 6: struct.pack("<H", 9), 4: KEY, 8: peers}), DONE)
    device = WireGuard(kernel.open, "wg0").get()
    assert isinstance(device, Device)
    assert (device.listen_port, device.public_key) == (9, base64.b64encode(KEY).decode())
    assert [peer.public_key for peer in device.peers] == [base64.b64encode(key).decode() for key in (KEY, OTHER)]
    assert device.peers[0].received == 5
    assert device.peers[0].endpoint is None


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="32 bytes in base64, found 5"):
        WireGuard(Kernel().open, "wg0").set(private_key=base64.b64encode(b"short").decode())
