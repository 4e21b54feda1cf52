"""A USB device as a Python class: descriptors are declared, methods answer requests and transfers.

The requests that every device has are answered here. Universal Serial Bus Specification 2.0, chapter 9.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

from kobox.devices import own_state

CONTROL, BULK, INTERRUPT = 0, 2, 3
IN = 0x80
_DEVICE, _CONFIGURATION, _STRING, _INTERFACE, _ENDPOINT = 1, 2, 3, 4, 5
_GET_STATUS, _CLEAR_FEATURE, _SET_FEATURE, _GET_DESCRIPTOR = 0, 1, 3, 6
_GET_CONFIGURATION, _SET_CONFIGURATION, _GET_INTERFACE, _SET_INTERFACE = 8, 9, 10, 11
_SELF_POWERED = 0xC0
_ENGLISH = 0x0409


class Speed(IntEnum):
    """As a host controller numbers them."""

    FULL, LOW, HIGH = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``address``: its number, with ``IN`` for towards the host. ``interval``: as the descriptor has it."""

    address: int
    kind: int
    packet: int
    interval: int = 0


@dataclass(frozen=True, slots=True)
class Interface:
    """``codes``: class, subclass, protocol. ``extra``: descriptors of the class, between the interface's and the
    endpoints'."""

    codes: tuple[int, int, int]
    endpoints: tuple[Endpoint, ...]
    extra: bytes = b""


class Setup(NamedTuple):
    """The eight bytes that begin a control transfer. ``target``: an interface or endpoint (``wIndex``)."""

    kind: int
    request: int
    value: int
    target: int
    length: int

    @property
    def is_in(self) -> bool:
        """Whether the device is to answer with data."""
        return bool(self.kind & IN)


class UsbDevice:
    """Derive from it and set the class attributes: ``vendor``, ``product``, ``release``, ``codes`` (class, subclass,
    protocol of the device; zeros: see the interfaces), ``strings`` (maker, name, serial number), ``speed``,
    ``interfaces``.

    Attributes of an instance belong to the kernel's state; those in ``kept_outside`` do not.
    """

    vendor: ClassVar[int] = 0x1234
    product: ClassVar[int]
    release: ClassVar[int] = 0x0100
    codes: ClassVar[tuple[int, int, int]] = (0, 0, 0)
    strings: ClassVar[tuple[str, str, str]] = ("kobox", "device", "1")
    speed: ClassVar[Speed] = Speed.HIGH
    interfaces: ClassVar[tuple[Interface, ...]] = ()
    kept_outside: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.configured = 0
        self.host: Callable[[int], None] | None = None
        """The port that it is plugged into: called with an endpoint that has become ready."""

    # -- what a model overrides -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """The port resets the device."""
        self.configured = 0

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """A request that is not everybody's: the answer (empty where none is due), or None to refuse it (a stall)."""
        return None

    def read(self, endpoint: int, size: int) -> bytes | None:
        """The host wants up to ``size`` bytes of an endpoint (without ``IN``); None: there are none yet. Call ``ready``
        once there are."""
        return None

    def write(self, endpoint: int, data: bytes) -> bool:
        """The host sends to an endpoint; False: refused (a stall)."""
        return False

    # -- for models -----------------------------------------------------------------------------------------------

    def ready(self, endpoint: int) -> None:
        """There is something to read."""
        if self.host is not None:
            self.host(endpoint)

    # -- what the host controller asks ----------------------------------------------------------------------------

    def transfer(self, setup: Setup, data: bytes) -> bytes | None:
        """A control transfer on endpoint 0; None is a stall."""
        if setup.kind & 0x60:
            return self.control(setup, data)
        answer = self._standard(setup)
        return self.control(setup, data) if answer is None else answer[: setup.length]

    def capture(self) -> Any:
        """What a reset of the kernel puts back."""
        return own_state.take(self, self.kept_outside | {"host"})

    def restore(self, state: Any) -> None:
        """As at ``capture``."""
        own_state.put_back(self, self.kept_outside | {"host"}, state)

    def _standard(self, setup: Setup) -> bytes | None:
        if setup.request == _GET_DESCRIPTOR and setup.kind & 0x1F == 0:
            return self._descriptor(setup.value >> 8, setup.value & 0xFF)
        if setup.request == _SET_CONFIGURATION:
            self.configured = setup.value & 0xFF
            return b""
        answers = {
            _GET_STATUS: b"\1\0" if setup.kind & 0x1F == 0 else b"\0\0",
            _GET_CONFIGURATION: bytes([self.configured]),
            _GET_INTERFACE: b"\0",
            _SET_INTERFACE: b"",
            _CLEAR_FEATURE: b"",
            _SET_FEATURE: b"",
        }
        return answers.get(setup.request)

    def _descriptor(self, kind: int, index: int) -> bytes | None:
        if kind == _DEVICE:
            packet = 64 if self.speed is not Speed.LOW else 8
            head = struct.pack("<BBHBBBB", 18, _DEVICE, 0x0200, *self.codes, packet)
            return head + struct.pack("<HHHBBBB", self.vendor, self.product, self.release, 1, 2, 3, 1)
        if kind == _CONFIGURATION:
            return self._configuration()
        if kind == _STRING and index <= len(self.strings):
            text = struct.pack("<H", _ENGLISH) if index == 0 else self.strings[index - 1].encode("utf-16-le")
            return bytes([2 + len(text), _STRING]) + text
        return None

    def _configuration(self) -> bytes:
        body = b""
        for number, interface in enumerate(self.interfaces):
            count = len(interface.endpoints)
            body += struct.pack("<BBBBBBBBB", 9, _INTERFACE, number, 0, count, *interface.codes, 0) + interface.extra
            for endpoint in interface.endpoints:
                body += struct.pack(
                    "<BBBBHB", 7, _ENDPOINT, endpoint.address, endpoint.kind, endpoint.packet, endpoint.interval
                )
        head = struct.pack("<BBHBBBBB", 9, _CONFIGURATION, 9 + len(body), len(self.interfaces), 1, 0, _SELF_POWERED, 50)
        return head + body
