"""Network devices made through rtnetlink from Python, by modules that the kernel asks for; packets go through them."""

from __future__ import annotations

from errno import EAGAIN

import pytest

from kobox.box import Kernel
from kobox.errors import Errno, UsageError
from kobox.net.sockets import AF_INET6, AF_PACKET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, GuestSocket

pytestmark = pytest.mark.image

ALL = 0x0003
FRAME = bytes.fromhex("020000000002 020000000001 88b5") + b"a frame of an experimental type".ljust(60, b".")


def asked_for(kernel: Kernel, name: str) -> tuple[str, ...]:
    (request,) = (request for request in kernel.autoloaded if request.name == name)
    return request.modules


def packets_of(kernel: Kernel, link: str) -> GuestSocket:
    """A socket that sends and hears whole frames of one device."""
    socket = kernel.net.socket(AF_PACKET, SOCK_RAW, ALL >> 8 | (ALL & 0xFF) << 8)
    socket.settimeout(1)
    socket.bind((kernel.net.link(link).ifindex, ALL))
    return socket


def hears(socket: GuestSocket, frame: bytes) -> bool:
    """Whether the frame comes within a virtual second; others (of IPv6, say) are passed over."""
    try:
        while socket.recv() != frame:
            pass
    except Errno as error:
        if error.number != EAGAIN:
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "needs"),
    [
        ("dummy", {"dummy"}),
        ("bridge", {"llc", "stp", "bridge"}),
        ("wireguard", {"udp_tunnel", "ip6_udp_tunnel", "libchacha20poly1305", "wireguard"}),
        ("bond", {"bonding"}),
    ],
)
def test_a_link_loads_its_type(linux: Kernel, kind: str, needs: set[str]) -> None:
    link = linux.net.add_link("test9", kind)
    assert (link.name, link.kind, link.up) == ("test9", kind, False)
    assert needs <= set(asked_for(linux, f"rtnl-link-{kind}"))
    linux.net.delete_link("test9")
    assert "test9" not in [link.name for link in linux.net.links()]


def test_a_type_that_nobody_has_is_refused(linux: Kernel) -> None:
    with pytest.raises(Errno, match="add link x of type nosuch"):
        linux.net.add_link("x", "nosuch")
    with pytest.raises(Errno, match="ENODEV: no link 'x'"):
        linux.net.link("x")


def test_links_have_what_they_were_given(linux: Kernel) -> None:
    linux.net.add_link("d0", "dummy", mtu=1280, address="02:00:00:00:00:07")
    link = linux.net.set_link("d0", up=True)
    assert (link.mtu, link.address, link.up) == (1280, "02:00:00:00:00:07", True)
    linux.net.add_address("d0", "10.1.2.3/24")
    linux.net.add_address("d0", "fd00::1/64")
    assert {"10.1.2.3/24", "fd00::1/64"} <= {address.text for address in linux.net.addresses("d0")}
    assert linux.read("/sys/class/net/d0/mtu") == b"1280\n"


def test_a_frame_goes_through_a_pair(linux: Kernel) -> None:
    linux.net.add_link("left", "veth", peer="right")
    for end in ("left", "right"):
        linux.net.set_link(end, up=True)
    with packets_of(linux, "left") as left, packets_of(linux, "right") as right:
        assert left.send(FRAME) == len(FRAME)
        assert hears(right, FRAME)


def test_a_bridge_passes_frames_between_its_ports(linux: Kernel) -> None:
    linux.net.add_link("br0", "bridge")
    linux.net.set_link("br0", up=True)
    for pair in ("a", "b"):
        linux.net.add_link(f"{pair}0", "veth", peer=f"{pair}1")
        linux.net.set_link(f"{pair}1", up=True, master="br0")
        linux.net.set_link(f"{pair}0", up=True)
    assert linux.net.link("a1").master == linux.net.link("br0").ifindex
    with packets_of(linux, "a0") as left, packets_of(linux, "b0") as right:
        left.send(FRAME)
        assert hears(right, FRAME)
        linux.net.set_link("b1", master="")
        left.send(FRAME[:-1] + b"!")
        assert not hears(right, FRAME[:-1] + b"!")


@pytest.mark.parametrize(("family", "address"), [(2, "127.0.0.1"), (AF_INET6, "::1")])
def test_a_stream_of_tcp_arrives(linux: Kernel, family: int, address: str) -> None:
    linux.net.set_link("lo", up=True)
    with linux.net.socket(family, SOCK_STREAM) as server, linux.net.socket(family, SOCK_STREAM) as client:
        server.bind((address, 0))
        server.listen()
        client.connect((address, server.getsockname()[1]))
        with server.accept() as peer:
            sent = bytes(range(256)) * 64
            assert client.send(sent) == len(sent)
            got = b""
            while len(got) < len(sent):
                got += peer.recv()
            assert got == sent


def test_a_datagram_of_udp_arrives_at_a_dummys_address(linux: Kernel) -> None:
    linux.net.set_link("lo", up=True)
    linux.net.add_link("d0", "dummy")
    linux.net.set_link("d0", up=True)
    linux.net.add_address("d0", "10.1.2.3/24")
    with linux.net.socket(2, SOCK_DGRAM) as server, linux.net.socket(2, SOCK_DGRAM) as client:
        server.bind(("10.1.2.3", 4000))
        assert client.sendto(b"hello", ("10.1.2.3", 4000)) == 5
        assert server.recv() == b"hello"


def test_a_wait_for_nothing_ends_after_its_time(linux: Kernel) -> None:
    with linux.net.socket(2, SOCK_DGRAM) as socket:
        socket.settimeout(2.5)
        before = linux.now
        with pytest.raises(Errno, match="EAGAIN"):
            socket.recv()
        assert 2.4 < linux.now - before < 3


def test_an_address_of_another_family_is_refused(linux: Kernel) -> None:
    with linux.net.socket(2, SOCK_DGRAM) as socket, pytest.raises(UsageError, match="no address of family 2"):
        socket.bind((1, 3))
