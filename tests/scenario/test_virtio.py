"""The distribution's virtio drivers for network, random numbers and terminals, on models in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.virtio_console import VirtioConsole
from kobox.devices.virtio_net import VirtioNet
from kobox.devices.virtio_rng import VirtioRng
from kobox.errors import UsageError
from kobox.kernel.syscalls import O_RDWR
from kobox.net.sockets import AF_INET, SOCK_DGRAM

pytestmark = pytest.mark.image

O_NOCTTY = 0o400
ARP, IP = b"\x08\x06", b"\x08\x00"


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def booted(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    root: Path = request.getfixturevalue(request.param)
    with kobox.boot(root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    assert booted.rewind()
    return booted


class Neighbour:
    """A host at the other end of the wire: answers ARP for its address, and each UDP packet with its text reversed."""

    mac, address = bytes.fromhex("02000000beef"), bytes([10, 9, 8, 1])

    def __init__(self) -> None:
        self.card = VirtioNet("02:00:00:00:00:42", wire=self.hear)
        self.heard: list[bytes] = []

    def hear(self, frame: bytes) -> None:
        kind = frame[12:14]
        if kind == ARP and frame[38:42] == self.address:
            asker, theirs = frame[22:28], frame[28:32]
            answer = frame[14:20] + b"\0\2" + self.mac + self.address + asker + theirs
            self.card.receive(asker + self.mac + ARP + answer)
        elif kind == IP and frame[23] == 17:
            header, ports, text = frame[14:34], frame[34:38], frame[42:]
            self.heard.append(text)
            back = header[:12] + header[16:20] + header[12:16]  # the sum over the header stays the same
            datagram = ports[2:] + ports[:2] + frame[38:40] + b"\0\0" + text[::-1]
            self.card.receive(frame[6:12] + frame[:6] + IP + back + datagram)


def up(kernel: Kernel, card: VirtioNet) -> str:
    """The name of a card that was plugged in, switched on."""
    assert kernel.plug(card).drivers[-1] == "virtio_net"
    (name,) = (link.name for link in kernel.net.links() if link.address == card.mac.hex(":"))
    kernel.net.set_link(name, up=True)
    return name


def test_datagrams_go_out_and_answers_come_back(kernel: Kernel) -> None:
    neighbour = Neighbour()
    kernel.net.add_address(up(kernel, neighbour.card), "10.9.8.2/24")
    with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
        socket.settimeout(1)
        for number in range(300):
            text = b"datagram %d" % number
            socket.sendto(text, ("10.9.8.1", 7))
            assert socket.recv() == text[::-1]
    assert neighbour.heard == [b"datagram %d" % number for number in range(300)]
    assert neighbour.card.dropped == 0


def test_the_kernel_sees_the_cable_pulled(kernel: Kernel) -> None:
    card = VirtioNet()
    carrier = f"/sys/class/net/{up(kernel, card)}/carrier"
    assert kernel.read(carrier) == b"1\n"
    card.set_link(False)
    kernel.sleep(0.1)
    assert kernel.read(carrier) == b"0\n"
    card.set_link(True)
    kernel.sleep(0.1)
    assert kernel.read(carrier) == b"1\n"


def test_frames_that_were_sent_belong_to_the_state(kernel: Kernel) -> None:
    neighbour = Neighbour()
    kernel.net.add_address(up(kernel, neighbour.card), "10.9.8.2/24")
    kernel.push()
    before = list(neighbour.card.sent)
    for _ in range(2):
        with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
            socket.settimeout(1)
            socket.sendto(b"abc", ("10.9.8.1", 7))
            assert socket.recv() == b"cba"
        assert len(neighbour.card.sent) > len(before)
        kernel.reset()
        assert neighbour.card.sent == before


def test_a_card_is_unplugged_while_it_works(kernel: Kernel) -> None:
    neighbour = Neighbour()
    plugged = kernel.plug(neighbour.card)
    (name,) = (link.name for link in kernel.net.links() if link.address == neighbour.card.mac.hex(":"))
    kernel.net.set_link(name, up=True)
    kernel.net.add_address(name, "10.9.8.2/24")
    with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
        socket.sendto(b"abc", ("10.9.8.1", 7))
        kernel.unplug(plugged)
    assert name not in {link.name for link in kernel.net.links()}
    assert not kernel.dead
    assert not [record for record in kernel.dmesg() if "BUG" in record.text or "WARNING" in record.text]


@pytest.mark.parametrize("mac", ["", "02:00", "zz:00:00:00:00:01"])
def test_a_mac_address_has_six_bytes(mac: str) -> None:
    with pytest.raises(UsageError, match="no MAC address"):
        VirtioNet(mac)


def test_random_numbers_come_from_the_source(kernel: Kernel) -> None:
    given: list[int] = []

    def count(size: int) -> bytes:
        given.append(size)
        return bytes(range(size))

    plugged = kernel.plug(VirtioRng(count))
    assert plugged.drivers[-1] == "virtio_rng"
    assert kernel.read("/sys/class/misc/hw_random/rng_current") == b"virtio_rng.0\n"
    descriptor = kernel.files.open("/dev/hwrng")
    assert kernel.files.read_from(descriptor, 16) in bytes(range(256)), "the kernel has taken the first ones itself"
    kernel.files.close(descriptor)
    kernel.unplug(plugged)
    assert given


def test_a_terminal_is_written_to_and_typed_at(kernel: Kernel) -> None:
    console = VirtioConsole()
    assert kernel.plug(console).drivers[-1] == "virtio_console"
    terminal = kernel.files.open("/dev/hvc0", O_RDWR | O_NOCTTY)
    kernel.files.write_to(terminal, b"login: ")
    kernel.sleep(0.1)
    assert console.shown == b"login: "
    console.type(b"x" * 300 + b"\n")
    kernel.sleep(0.1)
    assert kernel.files.read_from(terminal, 4096) == b"x" * 300 + b"\n"
    assert console.shown.startswith(b"login: xxx"), "the line discipline echoes"
    kernel.files.close(terminal)
