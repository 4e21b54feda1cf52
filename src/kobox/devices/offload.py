"""What a network card does to packets for the driver: sums over a range, and a long TCP segment cut into many.

RFC 1071 (the sum), RFC 793 and 791 (what changes from one segment to the next).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_FIN_AND_PUSH = 0x09


class Sum(NamedTuple):
    """A checksum: over [start, end], put at ``place``; ``end`` 0: to the end of the packet."""

    start: int
    place: int
    end: int


class Cut(NamedTuple):
    """How a packet is cut: so many bytes of headers in front of pieces of at most ``piece`` bytes. ``ip4``: by the old
    protocol, whose header has a length, a number and a sum."""

    headers: int
    piece: int
    ip4: bool
    ip: int
    """Where the IP header begins."""
    tcp: int


def fold(data: bytes | bytearray) -> int:
    """The ones' complement sum of 16-bit words, not yet inverted."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def put_sum(packet: bytearray, wanted: Sum) -> None:
    """Store a checksum; what lies at its place before (a pseudo header's sum) takes part. One beside the packet is not
    stored."""
    end = wanted.end + 1 if wanted.end else len(packet)
    if wanted.place + 2 <= len(packet) and wanted.start < end <= len(packet):
        struct.pack_into(">H", packet, wanted.place, ~fold(packet[wanted.start : end]) & 0xFFFF)


def segments(packet: bytes, cut: Cut) -> list[bytearray]:
    """The packets that one long one becomes; sums are not yet in them, but that over the pseudo header counts the
    length."""
    headers, body = packet[: cut.headers], packet[cut.headers :]
    (number,) = struct.unpack_from(">I", headers, cut.tcp + 4)
    made: list[bytearray] = []
    for at in range(0, len(body), cut.piece):
        piece = body[at : at + cut.piece]
        one = bytearray(headers + piece)
        length = len(one) - cut.ip
        if cut.ip4:
            (first,) = struct.unpack_from(">H", headers, cut.ip + 4)
            struct.pack_into(">HH", one, cut.ip + 2, length, first + len(made) & 0xFFFF)
        else:
            struct.pack_into(">H", one, cut.ip + 4, length - 40)
        struct.pack_into(">I", one, cut.tcp + 4, number + at & 0xFFFF_FFFF)
        if at + cut.piece < len(body):
            one[cut.tcp + 13] &= ~_FIN_AND_PUSH
        (pseudo,) = struct.unpack_from(">H", one, cut.tcp + 16)
        struct.pack_into(">H", one, cut.tcp + 16, fold(struct.pack(">HH", pseudo, len(one) - cut.tcp)))
        made.append(one)
    return made
