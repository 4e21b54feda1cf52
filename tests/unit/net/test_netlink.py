"""Netlink messages as bytes: attributes inside attributes, padding, answers, and what is cut short."""

from __future__ import annotations

import struct

import pytest

from kobox.errors import Errno, GuestError
from kobox.net import netlink
from kobox.net.netlink import Message


def test_attributes_are_padded_and_keep_their_length() -> None:
    assert netlink.attributes({3: "ab", 4: 1500}) == b"\x07\0\x03\0ab\0\0" + b"\x08\0\x04\0" + struct.pack("<I", 1500)


def test_attributes_inside_an_attribute_are_marked_as_nested() -> None:
    assert netlink.attributes({18: {1: b"\x01"}}) == b"\x0c\0\x12\x80" + b"\x05\0\x01\0\x01\0\0\0"


def test_what_was_packed_can_be_read() -> None:
    packed = netlink.attributes({1: b"abc", 18: {1: "dummy"}})
    values = netlink.read_attributes(packed)
    assert values[1] == b"abc"
    assert netlink.read_attributes(values[18]) == {1: b"dummy\0"}


def test_a_datagram_may_hold_several_messages() -> None:
    data = netlink.message(16, 0, 1, b"one!!") + bytes(3) + netlink.message(3, 0, 1, b"")
    assert list(netlink.messages(data)) == [Message(16, b"one!!"), Message(3, b"")]


@pytest.mark.parametrize("length", [0, 4, 200])
def test_a_length_that_leads_outside_is_refused(length: int) -> None:
    data = struct.pack("<IHHII", length, 16, 0, 0, 0)
    with pytest.raises(GuestError, match="a message of"):
        list(netlink.messages(data))
    with pytest.raises(GuestError, match="an attribute of"):
        netlink.read_attributes(struct.pack("<HH", 3 if length < 5 else length, 1))


def test_an_acknowledgement_may_carry_an_error() -> None:
    netlink.check(Message(2, struct.pack("<i", 0)), "fine")
    with pytest.raises(Errno, match="EEXIST: add link"):
        netlink.check(Message(2, struct.pack("<i", -17)), "add link")
