"""Hosts at the other end of a model's wire."""

from __future__ import annotations

from collections.abc import Callable

from kobox.box import Kernel
from kobox.machine.pci_function import PciFunction

ARP, IP = b"\x08\x06", b"\x08\x00"
_UDP = 17


class Neighbour:
    """10.9.8.1: answers ARP for its address, and each UDP packet with its text reversed. ``receive`` of the card is set
    later."""

    mac, address = bytes.fromhex("02000000beef"), bytes([10, 9, 8, 1])

    def __init__(self) -> None:
        self.receive: Callable[[bytes], None] = lambda frame: None
        self.heard: list[bytes] = []

    def hear(self, frame: bytes) -> None:
        kind = frame[12:14]
        if kind == ARP and frame[38:42] == self.address:
            asker, theirs = frame[22:28], frame[28:32]
            answer = frame[14:20] + b"\0\2" + self.mac + self.address + asker + theirs
            self.receive(asker + self.mac + ARP + answer)
        elif kind == IP and frame[23] == _UDP:
            header, ports, size = frame[14:34], frame[34:38], int.from_bytes(frame[38:40], "big")
            text = frame[42 : 34 + size]
            self.heard.append(text)
            back = header[:12] + header[16:20] + header[12:16]  # the sum over the header stays the same
            datagram = ports[2:] + ports[:2] + frame[38:40] + b"\0\0" + text[::-1]
            self.receive(frame[6:12] + frame[:6] + IP + back + datagram)


def bring_up(kernel: Kernel, card: PciFunction, mac: bytes, address: str) -> str:
    """Plug a card in, switch it on, give it an address; the name that the kernel has for it."""
    kernel.plug(card)
    (name,) = (link.name for link in kernel.net.links() if link.address == mac.hex(":"))
    kernel.net.set_link(name, up=True)
    kernel.net.add_address(name, address)
    return name
