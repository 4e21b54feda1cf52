"""Several network namespaces in one kernel, and what only shows between hosts: TCP, wireguard, a bond failing over."""

from __future__ import annotations

import base64
import hashlib
import random
from errno import EAGAIN, ENOENT
from typing import NamedTuple

import pytest

from kobox.box import Kernel
from kobox.errors import Errno, UsageError
from kobox.net.kinds import bond, bridge
from kobox.net.links import Net
from kobox.net.sockets import AF_INET, AF_PACKET, MSG_DONTWAIT, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, GuestSocket
from kobox.net.wireguard import Peer

pytestmark = pytest.mark.image

ETH_P_ALL, AF_VSOCK = 3, 40


class Pair(NamedTuple):
    """Two namespaces joined by a veth: 10.0.0.1 on ``left``'s device l, 10.0.0.2 on ``right``'s device r."""

    left: Net
    right: Net


def joined(kernel: Kernel) -> Pair:
    left, right = kernel.net.namespace("left"), kernel.net.namespace("right")
    left.add_link("l", "veth", peer="r", peer_namespace="right")
    for net, device, address in ((left, "l", "10.0.0.1/24"), (right, "r", "10.0.0.2/24")):
        net.set_link(device, up=True)
        net.add_address(device, address)
    return Pair(left, right)


def names(net: Net) -> set[str]:
    return {link.name for link in net.links()}


def secret(number: int) -> str:
    """A private key for a test; the kernel makes a proper one of any 32 bytes."""
    return base64.b64encode(hashlib.sha256(b"%d" % number).digest()).decode()


def frames(socket: GuestSocket) -> list[bytes]:
    """What a packet socket has heard so far."""
    found = []
    try:
        while True:
            found.append(socket.recv(flags=MSG_DONTWAIT))
    except Errno as error:
        if error.number != EAGAIN:
            raise
    return found


def carry(sender: GuestSocket, receiver: GuestSocket, data: bytes) -> bytes:
    """Send all of it and receive as much, in turn, as two programs on one CPU would."""
    sent, got = 0, bytearray()
    while len(got) < len(data):
        try:
            while sent < len(data):
                sent += sender.send(data[sent : sent + (1 << 16)], MSG_DONTWAIT)
        except Errno as error:
            if error.number != EAGAIN:
                raise
        got += receiver.recv(1 << 20)
    return bytes(got)


# -- namespaces -----------------------------------------------------------------------------------------------------


def test_a_namespace_has_its_own_devices(linux: Kernel) -> None:
    linux.net.add_link("outside", "dummy")
    inside = linux.net.namespace("a")
    inside.add_link("inside", "dummy")
    assert linux.net.namespaces() == ["a"]
    assert names(inside) == {"lo", "inside"}
    assert "inside" not in names(linux.net)
    assert names(linux.net.namespace("a")) == {"lo", "inside"}, "the second time it is the same one"


def test_a_link_moves_there_and_back(linux: Kernel) -> None:
    linux.net.namespace("a")
    linux.net.add_link("d0", "dummy")
    linux.net.move_link("d0", "a")
    assert "d0" not in names(linux.net)
    assert "d0" in names(linux.net.namespace("a"))
    linux.net.namespace("a").move_link("d0", "")
    assert "d0" in names(linux.net)


def test_a_file_is_read_and_written_as_it_is_there(linux: Kernel) -> None:
    inside = linux.net.namespace("a")
    inside.add_link("inside", "dummy")
    assert b"inside" in inside.read("/proc/net/dev")
    assert b"inside" not in linux.net.read("/proc/net/dev")
    inside.write("/proc/sys/net/ipv4/ip_forward", b"1")
    assert inside.read("/proc/sys/net/ipv4/ip_forward") == b"1\n"
    assert linux.net.read("/proc/sys/net/ipv4/ip_forward") == b"0\n"


def test_a_deleted_namespace_takes_its_devices_along(linux: Kernel) -> None:
    joined(linux)
    linux.net.delete_namespace("left")
    linux.sleep(1)  # a work item of the kernel clears up
    assert names(linux.net.namespace("right")) == {"lo"}
    assert linux.net.namespaces() == ["right"]
    with pytest.raises(Errno) as refused:
        linux.net.delete_namespace("left")
    assert refused.value.number == ENOENT


def test_a_reset_takes_namespaces_back(linux: Kernel) -> None:
    linux.net.namespace("a")
    linux.reset()
    assert linux.net.namespaces() == []


def test_what_is_no_namespace_is_refused(linux: Kernel) -> None:
    linux.net.add_link("d0", "dummy")
    with pytest.raises(Errno, match="ENOENT"):
        linux.net.move_link("d0", "nosuch")
    with pytest.raises(UsageError, match="no name of a network namespace"):
        linux.net.namespace("../x")


def test_an_error_in_a_namespace_names_it(linux: Kernel) -> None:
    inside = linux.net.namespace("a")
    with pytest.raises(Errno, match="in the network namespace a"):
        inside.socket(AF_INET, 99)


def test_work_goes_on_outside_after_a_call_inside(linux: Kernel) -> None:
    """The task that entered a namespace has left it, also when its call failed."""
    inside = linux.net.namespace("a")
    inside.set_link("lo", up=True)
    with pytest.raises(Errno):
        inside.socket(AF_INET, 99)
    assert not linux.net.link("lo").up
    assert inside.link("lo").up


def test_a_call_inside_may_wait_for_a_module(linux: Kernel) -> None:
    """The task that is in the namespace sleeps until modprobe has ended, and goes home after that."""
    inside = linux.net.namespace("a")
    with inside.socket(AF_VSOCK, SOCK_STREAM):
        assert "vsock" in next(request.modules for request in linux.autoloaded if request.name == "net-pf-40")
    assert names(inside) == {"lo"}
    linux.net.add_link("outside", "dummy")
    assert "outside" in names(linux.net)


# -- between two of them --------------------------------------------------------------------------------------------


def test_tcp_goes_through_a_veth_from_one_namespace_to_another(linux: Kernel) -> None:
    left, right = joined(linux)
    data = random.Random(1).randbytes(4 << 20)
    with right.socket(AF_INET, SOCK_STREAM) as server, left.socket(AF_INET, SOCK_STREAM) as client:
        server.bind(("10.0.0.2", 80))
        server.listen()
        client.connect(("10.0.0.2", 80))
        with server.accept() as peer:
            assert carry(client, peer, data) == data
    counts = next(line for line in right.read("/proc/net/dev").decode().splitlines() if line.strip().startswith("r:"))
    assert int(counts.split()[1]) > len(data)
    with linux.net.socket(AF_INET, SOCK_STREAM) as outside, pytest.raises(Errno, match="ENETUNREACH"):
        outside.connect(("10.0.0.2", 80))


def test_a_namespace_in_between_routes(linux: Kernel) -> None:
    left, right = joined(linux)
    far = linux.net.namespace("far")
    right.add_link("r2", "veth", peer="f", peer_namespace="far")
    for net, device, address in ((right, "r2", "10.2.0.1/24"), (far, "f", "10.2.0.2/24")):
        net.set_link(device, up=True)
        net.add_address(device, address)
    left.add_route("10.2.0.0/24", via="10.0.0.2")
    far.add_route("default", via="10.2.0.1", link="f")
    right.write("/proc/sys/net/ipv4/ip_forward", b"1")
    with far.socket(AF_INET, SOCK_DGRAM) as server, left.socket(AF_INET, SOCK_DGRAM) as client:
        server.bind(("10.2.0.2", 9))
        server.settimeout(2)
        client.sendto(b"over the hill", ("10.2.0.2", 9))
        assert server.recv() == b"over the hill"


def test_wireguard_shakes_hands_and_carries_what_nobody_can_read(linux: Kernel) -> None:
    left, right = joined(linux)
    for number, net in enumerate((left, right), 1):
        net.add_link("wg0", "wireguard")
        net.wireguard("wg0").set(private_key=secret(number), listen_port=51820)
        net.add_address("wg0", f"10.9.0.{number}/24")
        net.set_link("wg0", up=True)
    keys = [net.wireguard("wg0").get().public_key for net in (left, right)]
    left.wireguard("wg0").set(peers=[Peer(keys[1], ("10.9.0.2/32",), ("10.0.0.2", 51820))])
    right.wireguard("wg0").set(peers=[Peer(keys[0], ("10.9.0.1/32",))])
    with (
        right.socket(AF_PACKET, SOCK_RAW, 0) as wire,
        right.socket(AF_INET, SOCK_DGRAM) as server,
        left.socket(AF_INET, SOCK_DGRAM) as client,
    ):
        wire.bind((right.link("r").ifindex, ETH_P_ALL))
        server.bind(("10.9.0.2", 7))
        server.settimeout(5)
        client.sendto(b"for your eyes only", ("10.9.0.2", 7))
        assert server.recv() == b"for your eyes only"
        heard = frames(wire)
    initiation, response = 1, 2
    kinds = [frame[42] for frame in heard if frame[12:14] == b"\x08\x00"]
    assert kinds[:2] == [initiation, response]
    assert not any(b"eyes" in frame for frame in heard)
    (peer,) = right.wireguard("wg0").get().peers
    assert peer.public_key == keys[0]
    assert peer.endpoint == ("10.0.0.1", 51820), "learnt from the handshake"
    assert peer.allowed_ips == ("10.9.0.1/32",)
    assert peer.received > 0
    assert peer.handshake > 0


def test_wireguard_lets_no_stranger_in(linux: Kernel) -> None:
    left, right = joined(linux)
    for number, net in enumerate((left, right), 1):
        net.add_link("wg0", "wireguard")
        net.wireguard("wg0").set(private_key=secret(number), listen_port=51820)
        net.add_address("wg0", f"10.9.0.{number}/24")
        net.set_link("wg0", up=True)
    known = right.wireguard("wg0").get().public_key
    left.wireguard("wg0").set(peers=[Peer(known, ("10.9.0.2/32",), ("10.0.0.2", 51820))])
    with right.socket(AF_INET, SOCK_DGRAM) as server, left.socket(AF_INET, SOCK_DGRAM) as client:
        server.bind(("10.9.0.2", 7))
        server.settimeout(3)
        client.sendto(b"let me in", ("10.9.0.2", 7))
        with pytest.raises(Errno, match="EAGAIN"):
            server.recv()
    assert left.wireguard("wg0").get().peers[0].handshake == 0
    with pytest.raises(Errno, match="ENOTSUP"):
        left.wireguard("lo").get()


def test_a_bond_fails_over_to_its_other_port(linux: Kernel) -> None:
    """Two cables to a bridge; one is pulled."""
    host, switch = linux.net.namespace("host"), linux.net.namespace("switch")
    switch.add_link("br0", "bridge", data=bridge(forward_delay=0))
    switch.set_link("br0", up=True)
    switch.add_address("br0", "10.1.0.2/24")
    host.add_link("bond0", "bond", data=bond("active-backup", miimon=100))
    for number in (0, 1):
        host.add_link(f"p{number}", "veth", peer=f"q{number}", peer_namespace="switch")
        switch.set_link(f"q{number}", up=True, master="br0")
        host.set_link(f"p{number}", master="bond0")
    host.set_link("bond0", up=True)
    host.add_address("bond0", "10.1.0.1/24")
    linux.sleep(1)

    def active() -> str:
        lines = host.read("/proc/net/bonding/bond0").decode().splitlines()
        return next(line for line in lines if line.startswith("Currently Active")).split()[-1]

    with switch.socket(AF_INET, SOCK_DGRAM) as server, host.socket(AF_INET, SOCK_DGRAM) as client:
        server.bind(("10.1.0.2", 7))
        server.settimeout(3)
        client.sendto(b"one", ("10.1.0.2", 7))
        assert server.recv() == b"one"
        assert active() == "p0"
        switch.set_link("q0", up=False)
        linux.sleep(1)
        assert active() == "p1"
        client.sendto(b"two", ("10.1.0.2", 7))
        assert server.recv() == b"two"
    with pytest.raises(UsageError, match="no bonding mode"):
        bond("fastest")


def test_a_bridge_learns_where_hosts_are(linux: Kernel) -> None:
    """Three hosts on a bridge: the third hears the question of the first, and no more once the bridge has learnt."""
    switch = linux.net.namespace("switch")
    switch.add_link("br0", "bridge", data=bridge(forward_delay=0))
    switch.set_link("br0", up=True)
    hosts = []
    for number in (1, 2, 3):
        host = linux.net.namespace(f"h{number}")
        host.add_link("e", "veth", peer=f"p{number}", peer_namespace="switch")
        switch.set_link(f"p{number}", up=True, master="br0")
        host.set_link("e", up=True)
        host.add_address("e", f"10.3.0.{number}/24")
        hosts.append(host)
    linux.sleep(1)  # a port forwards once the kernel has noticed its carrier, which may take a second
    first, second, third = hosts
    with (
        third.socket(AF_PACKET, SOCK_RAW, 0) as bystander,
        second.socket(AF_INET, SOCK_DGRAM) as server,
        first.socket(AF_INET, SOCK_DGRAM) as client,
    ):
        bystander.bind((third.link("e").ifindex, ETH_P_ALL))
        server.bind(("10.3.0.2", 7))
        server.settimeout(2)
        for word in (b"one", b"two"):
            client.sendto(word, ("10.3.0.2", 7))
            assert server.recv() == word
        heard = frames(bystander)
    assert any(frame[:6] == b"\xff" * 6 and frame[12:14] == b"\x08\x06" for frame in heard), "the first one's ARP"
    assert not any(b"one" in frame or b"two" in frame for frame in heard)
