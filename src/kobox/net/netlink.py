"""Netlink messages as bytes: headers, nested attributes, answers. Knows no guest. Follows include/uapi/linux/netlink.h
and rtnetlink.h."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from kobox.errors import Errno, GuestError

if TYPE_CHECKING:
    from kobox.net.sockets import GuestSocket

NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
_HEADER = struct.Struct("<IHHII")
_ATTRIBUTE = struct.Struct("<HH")
_NESTED, _TYPE = 0x8000, 0x3FFF

Value = bytes | str | int | Mapping[int, "Value"]
"""An attribute: bytes as they are, a text with its NUL, a number of four bytes, or attributes inside it."""


class Message(NamedTuple):
    """One message of an answer: its type, and what follows the header."""

    type: int
    body: bytes


def attributes(values: Mapping[int, Value]) -> bytes:
    """Attributes in the order of the mapping, each padded to four bytes."""
    return b"".join(_attribute(number, value) for number, value in values.items())


def _attribute(number: int, value: Value) -> bytes:
    if isinstance(value, Mapping):
        number, data = number | _NESTED, attributes(value)
    elif isinstance(value, int):
        data = struct.pack("<I", value)
    else:
        data = value.encode() + b"\0" if isinstance(value, str) else value
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), number) + data + bytes(-len(data) % 4)


def message(type_: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), type_, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. ``GuestError`` where a length leads outside of it."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, type_, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise GuestError(f"netlink: a message of {length} bytes at {at} of {len(data)}")
        yield Message(type_, data[at + _HEADER.size : at + length])
        at += length + 3 & ~3


def read_attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by number; of several with one number the last."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and contents of each attribute, for lists, whose members may share a number. ``GuestError`` where a length
    leads outside."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            raise GuestError(f"netlink: an attribute of {length} bytes at {at} of {len(data)}")
        yield number & _TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def check(answer: Message, what: str) -> None:
    """Raise the ``Errno`` that an acknowledgement carries, if it does."""
    if answer.type == NLMSG_ERROR:
        (number,) = struct.unpack_from("<i", answer.body)
        if number:
            raise Errno(-number, what)


def ask(socket: GuestSocket, what: str, type_: int, flags: int, body: bytes) -> list[Message]:
    """One request through a socket made for it, and everything that comes back; ``Errno`` as the kernel answers it."""
    socket.send(message(type_, flags | REQUEST, 1, body))
    answers: list[Message] = []
    while True:
        for answer in messages(socket.recv(1 << 15)):
            check(answer, what)
            answers.append(answer)
        if flags & DUMP != DUMP or any(answer.type == NLMSG_DONE for answer in answers):
            return answers
