"""Generic netlink: families by name, commands of a family. Follows include/uapi/linux/genetlink.h.

The kernel loads the module of a family that nobody has registered (``net-pf-16-proto-16-family-NAME``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kobox.net import netlink
from kobox.net.netlink import Value
from kobox.net.sockets import AF_NETLINK, SOCK_RAW, GuestSocket

_GENERIC = 16
_CONTROLLER, _GET_FAMILY = 16, 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_HEADER = struct.Struct("<BBxx")
_CONTROLLER_VERSION = 1

OpenSocket = Callable[[int, int, int], GuestSocket]
"""Opens a socket of a namespace: family, type, protocol."""


class Family(NamedTuple):
    """A family as this kernel numbers it; ``version`` is the one that its users speak."""

    number: int
    version: int


def family(open_socket: OpenSocket, name: str, version: int) -> Family:
    """Ask for a family; ``Errno(ENOENT)`` where nobody has it."""
    answers = request(open_socket, Family(_CONTROLLER, _CONTROLLER_VERSION), _GET_FAMILY, {_FAMILY_NAME: name})
    return Family(int.from_bytes(netlink.read_attributes(answers[0])[_FAMILY_ID], "little"), version)


def request(
    open_socket: OpenSocket, wanted: Family, command: int, values: Mapping[int, Value], flags: int = 0, what: str = ""
) -> list[bytes]:
    """Send one command with attributes; those of each answer as bytes. ``Errno`` as the kernel answers."""
    body = _HEADER.pack(command, wanted.version) + netlink.attributes(values)
    with open_socket(AF_NETLINK, SOCK_RAW, _GENERIC) as socket:
        answers = netlink.ask(socket, what or f"generic netlink command {command}", wanted.number, flags, body)
    return [answer.body[_HEADER.size :] for answer in answers if answer.type == wanted.number]
