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
from neighbours import Neighbour, bring_up

pytestmark = pytest.mark.image

O_NOCTTY = 0o400


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


def card_to(neighbour: Neighbour) -> VirtioNet:
    card = VirtioNet("02:00:00:00:00:42", wire=neighbour.hear)
    neighbour.receive = card.receive
    return card


def test_datagrams_go_out_and_answers_come_back(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    bring_up(kernel, card, card.mac, "10.9.8.2/24")
    with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
        socket.settimeout(1)
        for number in range(300):
            text = b"datagram %d" % number
            socket.sendto(text, ("10.9.8.1", 7))
            assert socket.recv() == text[::-1]
    assert neighbour.heard == [b"datagram %d" % number for number in range(300)]
    assert card.dropped == 0


def test_the_kernel_sees_the_cable_pulled(kernel: Kernel) -> None:
    card = VirtioNet()
    carrier = f"/sys/class/net/{bring_up(kernel, card, card.mac, '10.9.8.2/24')}/carrier"
    assert kernel.read(carrier) == b"1\n"
    card.set_link(False)
    kernel.sleep(0.1)
    assert kernel.read(carrier) == b"0\n"
    card.set_link(True)
    kernel.sleep(0.1)
    assert kernel.read(carrier) == b"1\n"


def test_frames_that_were_sent_belong_to_the_state(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    bring_up(kernel, card, card.mac, "10.9.8.2/24")
    kernel.push()
    before = list(card.sent)
    for _ in range(2):
        with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
            socket.settimeout(1)
            socket.sendto(b"abc", ("10.9.8.1", 7))
            assert socket.recv() == b"cba"
        assert len(card.sent) > len(before)
        kernel.reset()
        assert card.sent == before


def test_a_frame_that_has_just_come_belongs_to_the_state(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    bring_up(kernel, card, card.mac, "10.9.8.2/24")
    socket = kernel.net.socket(AF_INET, SOCK_DGRAM)
    socket.settimeout(1)
    socket.sendto(b"abc", ("10.9.8.1", 7))
    assert socket.recv() == b"cba"
    card.wire = None
    socket.sendto(b"def", ("10.9.8.1", 7))
    neighbour.hear(card.sent[-1])
    kernel.push()
    for _ in range(2):
        assert socket.recv() == b"fed"
        kernel.reset()
    kernel.pop()


def test_a_card_is_unplugged_while_it_works(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    plugged = kernel.plug(card)
    (name,) = (link.name for link in kernel.net.links() if link.address == card.mac.hex(":"))
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
