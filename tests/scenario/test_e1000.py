"""The distribution's e1000 driver on a controller in Python: datagrams, streams between two kernels, faults."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.devices.e1000 import E1000
from kobox.devices.faults import LostInterrupts, PulledOut
from kobox.errors import Errno
from kobox.net.sockets import AF_INET, SOCK_DGRAM, SOCK_STREAM, GuestSocket
from neighbours import Neighbour, bring_up

pytestmark = pytest.mark.image

O_NONBLOCK = 0o4000
STEP = 0.001


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


def card_to(neighbour: Neighbour) -> E1000:
    card = E1000(wire=neighbour.hear)
    neighbour.receive = card.receive
    return card


def test_the_driver_reads_its_address_from_the_eeprom(kernel: Kernel) -> None:
    plugged = kernel.plug(E1000("52:54:00:ab:cd:ef"))
    assert plugged.hops[0].modules == ("e1000",)
    assert plugged.drivers == ("e1000",)
    assert "52:54:00:ab:cd:ef" in {link.address for link in kernel.net.links()}
    assert not [record for record in kernel.dmesg() if "Checksum" in record.text]


def test_datagrams_go_out_and_answers_come_back(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    name = bring_up(kernel, card, card.mac, "10.9.8.2/24")
    kernel.sleep(2.1)  # the driver looks for a link every two seconds
    assert kernel.read(f"/sys/class/net/{name}/speed") == b"1000\n"
    with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
        socket.settimeout(1)
        for number in range(300):
            text = b"datagram %d, long enough for no padding" % number
            socket.sendto(text, ("10.9.8.1", 7))
            assert socket.recv() == text[::-1]
    assert len(neighbour.heard) == 300
    assert card.dropped == 0


def test_the_kernel_sees_the_cable_pulled(kernel: Kernel) -> None:
    card = E1000()
    carrier = f"/sys/class/net/{bring_up(kernel, card, card.mac, '10.9.8.2/24')}/carrier"
    kernel.sleep(2.1)
    assert kernel.read(carrier) == b"1\n"
    for up in (False, True):
        card.set_link(up)
        kernel.sleep(2.1)
        assert kernel.read(carrier) == b"%d\n" % up


def test_a_lost_interrupt_delays_and_loses_nothing(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    bring_up(kernel, card, card.mac, "10.9.8.2/24")
    kernel.sleep(2.1)
    with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket:
        socket.settimeout(5)
        socket.sendto(b"first", ("10.9.8.1", 7))
        assert socket.recv() == b"tsrif"
        with card.tapped(LostInterrupts(1)) as lost:
            socket.sendto(b"second", ("10.9.8.1", 7))
            assert socket.recv() == b"dnoces", "the driver's watchdog raises an interrupt of its own"
        assert lost.lost == 1


def test_it_is_pulled_out_while_it_works(kernel: Kernel) -> None:
    neighbour = Neighbour()
    card = card_to(neighbour)
    plugged = kernel.plug(card)
    (name,) = (link.name for link in kernel.net.links() if link.address == card.mac.hex(":"))
    kernel.net.set_link(name, up=True)
    kernel.net.add_address(name, "10.9.8.2/24")
    kernel.sleep(2.1)
    with kernel.net.socket(AF_INET, SOCK_DGRAM) as socket, card.tapped(PulledOut(card, after=5)) as pulled:
        socket.settimeout(0.1)
        with contextlib.suppress(Errno):
            for _ in range(10):
                socket.sendto(b"hello", ("10.9.8.1", 7))
                socket.recv()
        assert pulled.gone
        kernel.unplug(plugged, surprise=True)
    assert name not in {link.name for link in kernel.net.links()}
    assert not kernel.dead
    assert not [record.text for record in kernel.dmesg() if record.text.startswith(("BUG", "Oops"))]


class Noting(E1000):
    """Remembers the longest packet that the driver has given in one piece."""

    longest_given = 0

    def _send(self, packet: bytearray) -> None:
        self.longest_given = max(self.longest_given, len(packet))
        super()._send(packet)


class Pair:
    """Two kernels with a cable between their cards; each runs for a moment in turn."""

    def __init__(self, left: Kernel, right: Kernel) -> None:
        self.kernels = (left, right)
        self.longest = 0
        cards = Noting("52:54:00:00:00:01"), Noting("52:54:00:00:00:02")
        for card, other in zip(cards, reversed(cards), strict=True):
            card.wire = self._cable(other)
        for number, (kernel, card) in enumerate(zip(self.kernels, cards, strict=True), 1):
            bring_up(kernel, card, card.mac, f"10.9.8.{number}/24")
            kernel.sleep(2.1)
        self.cards = cards

    def _cable(self, to: E1000) -> Callable[[bytes], None]:
        def carry(frame: bytes) -> None:
            self.longest = max(self.longest, len(frame))
            to.receive(frame)

        return carry

    def step(self) -> None:
        for kernel in self.kernels:
            kernel.sleep(STEP)

    def connect(self) -> tuple[GuestSocket, GuestSocket]:
        """Both ends of a stream."""
        left, right = self.kernels
        server = right.net.socket(AF_INET, SOCK_STREAM | O_NONBLOCK)
        server.bind(("10.9.8.2", 80))
        server.listen()
        client = left.net.socket(AF_INET, SOCK_STREAM | O_NONBLOCK)
        with pytest.raises(Errno, match="EINPROGRESS"):
            client.connect(("10.9.8.2", 80))
        for _ in range(20):
            self.step()
            with contextlib.suppress(Errno):
                accepted = server.accept()
                flags = right.syscalls.checked("fcntl", "fcntl", accepted.descriptor, 4, O_NONBLOCK)
                assert flags == 0
                return client, accepted
        raise AssertionError("no connection after twenty steps")


def test_a_stream_goes_from_one_kernel_to_another_in_segments_that_the_card_cuts(
    kernel: Kernel, debian_root: Path
) -> None:
    with kobox.boot(debian_root) as other:
        pair = Pair(kernel, other)
        client, server = pair.connect()
        sent, heard = os.urandom(2 << 20), b""
        left = sent
        for _ in range(3000):
            with contextlib.suppress(Errno):
                left = left[client.send(left[: 256 << 10]) :] if left else left
            pair.step()
            with contextlib.suppress(Errno):
                while piece := server.recv(1 << 20):
                    heard += piece
            if len(heard) == len(sent):
                break
        assert heard == sent, "every sum was checked by the receiver's software"
        assert pair.longest == 1514
        assert pair.cards[0].longest_given > 10_000, "the driver gave long ones"
