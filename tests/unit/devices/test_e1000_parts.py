"""What surrounds the e1000: sums, segments, and the EEPROM's wires."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from kobox.devices.e1000_parts import Eeprom, Phy, eeprom_words
from kobox.devices.offload import Cut, Sum, fold, put_sum, segments

CLOCK, SELECT, IN, OUT = 1, 2, 4, 8


@given(st.binary(max_size=300))
def test_a_packet_with_its_sum_in_it_adds_up_to_ones(data: bytes) -> None:
    packet = bytearray(data + b"\0\0" if len(data) % 2 == 0 else data + b"\0\0\0")
    put_sum(packet, Sum(0, len(packet) - 2, 0))
    assert fold(packet) in (0, 0xFFFF)


def test_a_sum_covers_its_range_and_what_lies_at_its_place() -> None:
    packet = bytearray(b"\xff\xff" + b"\x00\x01\x00\x02\x00\x04" + b"\xff\xff")
    put_sum(packet, Sum(2, 6, 7))
    assert packet[6:8] == struct.pack(">H", 0xFFFF - 7)


def test_a_sum_beside_the_packet_changes_nothing() -> None:
    packet = bytearray(b"abcdef")
    for wanted in (Sum(0, 5, 0), Sum(4, 0, 2), Sum(0, 0, 60)):
        put_sum(packet, wanted)
        assert packet == b"abcdef"


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 1460), st.integers(0, 0xFFFF_FFFF))
def test_segments_are_numbered_and_hold_all_of_the_text(body: bytes, piece: int, number: int) -> None:
    ethernet = bytes(12) + b"\x08\x00"
    ip = struct.pack(">BBHHHBBH8x", 0x45, 0, 0, 0xFFFE, 0, 64, 6, 0)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, number, 0, 0x50, 0x19, 100, 0x1234, 0)
    made = segments(ethernet + ip + tcp + body, Cut(54, piece, ip4=True, ip=14, tcp=34))
    assert b"".join(bytes(one[54:]) for one in made) == body
    at = 0
    for index, one in enumerate(made):
        (length, identification) = struct.unpack_from(">HH", one, 16)
        assert (length, identification) == (len(one) - 14, 0xFFFE + index & 0xFFFF)
        assert struct.unpack_from(">I", one, 38) == (number + at & 0xFFFF_FFFF,)
        assert one[47] == (0x19 if index == len(made) - 1 else 0x10), "FIN and PSH are for the last"
        assert struct.unpack_from(">H", one, 50) == (fold(struct.pack(">HH", 0x1234, len(one) - 34)),)
        at += len(one) - 54


def shift(eeprom: Eeprom, bits: int, count: int) -> None:
    for at in range(count - 1, -1, -1):
        wire = SELECT | (IN if bits >> at & 1 else 0)
        eeprom.write(wire)
        eeprom.write(wire | CLOCK)
        eeprom.write(wire)


def word(eeprom: Eeprom, address: int) -> int:
    """As a driver reads it."""
    eeprom.write(SELECT)
    shift(eeprom, 0b110, 3)
    shift(eeprom, address, 6)
    value = 0
    for _ in range(16):
        eeprom.write(SELECT | CLOCK)
        value = value << 1 | bool(eeprom.read() & OUT)
        eeprom.write(SELECT)
    eeprom.write(0)
    return value


def test_words_come_out_bit_by_bit() -> None:
    words = eeprom_words(bytes(range(1, 7)), 0x100E, (0x8086, 0x001E))
    eeprom = Eeprom(words)
    assert [word(eeprom, address) for address in range(64)] == words
    assert words[:3] == [0x0201, 0x0403, 0x0605]
    assert sum(words) & 0xFFFF == 0xBABA


def test_the_wires_are_given_to_who_asks() -> None:
    eeprom = Eeprom([0] * 64)
    assert not eeprom.read() & 0x80
    eeprom.write(0x40)
    assert eeprom.read() & 0x80


def test_a_phy_says_whether_there_is_a_link() -> None:
    phy = Phy()
    assert (phy.read(2), phy.read(3)) == (0x0141, 0x0C20)
    assert phy.read(1) & 4
    phy.link = False
    assert not phy.read(1) & 4
    phy.write(0, 0x9340)
    assert phy.read(0) == 0x1140, "a reset and a negotiation are over at once"
    phy.write(2, 7)
    assert phy.read(2) == 0x0141
