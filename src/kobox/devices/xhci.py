"""A USB host controller: xHCI with ports for devices of USB 2, interrupts, and bulk, interrupt and control transfers.

eXtensible Host Controller Interface for Universal Serial Bus 1.1: registers in 5, commands in 4.6, contexts in 6.2.
There are no hubs, no isochronous transfers, no streams, and the ports for USB 3 stay empty.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from kobox.devices.device import PciDevice
from kobox.devices.registers import Register
from kobox.devices.usb_device import Setup, UsbDevice
from kobox.devices.xhci_rings import (
    COMPLETION_TELLS,
    DATA,
    EVENT_DATA,
    IMMEDIATE,
    NO_OP,
    NORMAL,
    SETUP,
    SHORT_TELLS,
    STATUS,
    Broken,
    EventRing,
    Ring,
    Trb,
)  # fmt: skip
from kobox.errors import UsageError
from kobox.machine.pci_function import Bar

PORTS = 8
_USB2_PORTS, _SLOTS = 4, 32
_OPERATIONAL, _RUNTIME, _DOORBELLS, _EXTENDED = 0x40, 0x1000, 0x2000, 0x500
_PORT_REGISTERS = _OPERATIONAL + 0x400
_RUN, _RESET, _INTERRUPTS = 1, 2, 4
_HALTED, _EVENT, _PORT_CHANGE = 1, 8, 16
_PENDING, _ENABLED, _BUSY = 1, 2, 8
_CONNECTED, _PORT_ENABLED, _PORT_RESET, _POWER = 1, 2, 16, 1 << 9
_CONNECT_CHANGE, _RESET_CHANGE, _CHANGES = 1 << 17, 1 << 21, 0x7F << 17
_POLLING, _DETECTING = 7 << 5, 5 << 5
_STROBE = 1 << 16

_SUCCESS, _TRANSACTION_ERROR, _TRB_ERROR, _STALL, _NO_SLOT, _SHORT = 1, 4, 5, 6, 9, 13
_SLOT_OFF, _ENDPOINT_OFF, _WRONG_STATE = 11, 12, 19
_TRANSFER_EVENT, _COMMAND_EVENT, _PORT_EVENT = 32, 33, 34
_ENABLE, _DISABLE, _ADDRESS, _CONFIGURE, _EVALUATE, _RESET_ENDPOINT, _STOP, _SET_DEQUEUE, _RESET_DEVICE = range(9, 18)
_COMMAND_NO_OP = 23
_STATE_RUNNING, _STATE_HALTED, _STATE_STOPPED = 1, 2, 3
_DEFAULT, _ADDRESSED, _CONFIGURED = 1, 2, 3
_CONTEXT = 32
_MOST_AT_ONCE = 1 << 13
"""Entries of a ring behind one doorbell: a ring that goes round without an end has more."""
_DECONFIGURE, _BLOCK_SET_ADDRESS = 1 << 9, 1 << 9
_PROTOCOLS = struct.pack("<IIII", 0x0200_0402, 0x2042_5355, _USB2_PORTS << 8 | 1, 0) + struct.pack(
    "<IIII", 0x0300_0002, 0x2042_5355, (PORTS - _USB2_PORTS) << 8 | _USB2_PORTS + 1, 0
)


@dataclass(slots=True)
class _Slot:
    """A device that the driver knows. ``context``: its place in memory; ``rings`` by endpoint (2 · number, 1 more for
    IN)."""

    port: int = 0
    context: int = 0
    rings: dict[int, Ring] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    """Endpoints that do nothing until the driver says so."""


class Xhci(PciDevice):
    """Four ports. ``attach`` plugs a device in."""

    device, class_code = 0x0031, 0x0C0330
    bars = {0: Bar(1 << 14, wide=True)}  # noqa: RUF012
    pin, msix = 1, 1
    kept_outside = frozenset({"ports"})

    lengths = Register(0x00, reset=0x0100 << 16 | _OPERATIONAL, writable=0)
    structure_1 = Register(0x04, reset=PORTS << 24 | 1 << 8 | _SLOTS, writable=0)
    structure_2 = Register(0x08, reset=0xF0, writable=0)
    structure_3 = Register(0x0C, writable=0)
    capabilities = Register(0x10, reset=_EXTENDED >> 2 << 16 | 1, writable=0)
    doorbell_offset = Register(0x14, reset=_DOORBELLS, writable=0)
    runtime_offset = Register(0x18, reset=_RUNTIME, writable=0)
    command = Register(0x40)
    usb_status = Register(0x44, reset=_HALTED, writable=0, cleared=0x41C)
    page_size = Register(0x48, reset=1, writable=0)
    notifications = Register(0x54)
    command_ring = Register(0x58, 8)
    contexts = Register(0x70, 8)
    slots_enabled = Register(0x78)
    interrupter = Register(0x1020, writable=_ENABLED, cleared=_PENDING)
    moderation = Register(0x1024)
    event_pieces = Register(0x1028)
    event_table = Register(0x1030, 8)
    event_dequeue = Register(0x1038, 8, cleared=_BUSY)

    def __init__(self) -> None:
        self.ports: list[UsbDevice | None] = [None] * PORTS
        super().__init__()

    def reset(self) -> None:
        """See ``PciDevice``. Devices stay plugged in."""
        super().reset()
        self.events = EventRing()
        self.commands: Ring | None = None
        self.slots: dict[int, _Slot] = {}
        self.waiting: list[bytes] = []
        self.rung: list[tuple[int, int]] = []
        self.port_status = [self._port_at_first(port) for port in range(PORTS)]

    # -- plugging -------------------------------------------------------------------------------------------------

    def attach(self, device: UsbDevice) -> int:
        """Plug a device into the first free port; returns its number, from 1."""
        free = [port for port in range(_USB2_PORTS) if self.ports[port] is None]
        if not free:
            raise UsageError("all ports of the host controller are taken", hint="unplug a device")
        port = free[0]
        self.ports[port] = device
        device.reset()
        self._wire(port)
        self._port_changes(port, self._port_at_first(port))
        return port + 1

    def detach(self, device: UsbDevice) -> None:
        """Pull it out."""
        port = self.ports.index(device)
        self.ports[port], device.host = None, None
        self._port_changes(port, _POWER | _DETECTING | _CONNECT_CHANGE)

    def _wire(self, port: int) -> None:
        device = self.ports[port]
        if device is not None:
            device.host = lambda endpoint: self._has_data(port, endpoint)

    def _port_at_first(self, port: int) -> int:
        device = self.ports[port]
        if device is None:
            return _POWER | _DETECTING
        return _POWER | _POLLING | device.speed << 10 | _CONNECTED | _CONNECT_CHANGE

    def _port_changes(self, port: int, status: int) -> None:
        self.port_status[port] = status
        self.usb_status |= _PORT_CHANGE
        if self.command & _RUN and self.board is not None:
            self.waiting.append(struct.pack("<QII", port + 1 << 24, _SUCCESS << 24, _PORT_EVENT << 10))
            self.board.post(self._send_events)

    def _has_data(self, port: int, endpoint: int) -> None:
        for number, slot in self.slots.items():
            if slot.port == port + 1:
                self._ring(number, 2 * endpoint + 1)

    # -- registers ------------------------------------------------------------------------------------------------

    @command.on_write
    def _command(self, value: int) -> None:
        if value & _RESET:
            self.lower_irq()
            self.reset()
            return
        began = value & _RUN and self.usb_status & _HALTED
        self.usb_status = self.usb_status & ~_HALTED | (0 if value & _RUN else _HALTED)
        for port in range(PORTS if began else 0):
            if self.port_status[port] & _CHANGES:
                self._port_changes(port, self.port_status[port])
        if self.board is not None:
            self.board.post(self._send_events)

    @command_ring.on_read
    def _no_ring(self) -> int:
        return 0

    @command_ring.on_write
    def _set_command_ring(self, value: int) -> None:
        """Both halves are written; the second completes it."""
        self.commands = Ring(self.command_ring & ~63, self.command_ring & 1)

    @interrupter.on_write
    def _acknowledge(self, value: int) -> None:
        if value & _PENDING:
            self.lower_irq()

    @event_table.on_write
    def _begin_events(self, value: int) -> None:
        self.events = EventRing(self.event_table & ~63, self.event_pieces & 0xFFFF, self.event_dequeue)

    @event_dequeue.on_write
    def _taken(self, value: int) -> None:
        self.events.taken = self.event_dequeue & ~15
        if self.board is not None:
            self.board.post(self._send_events)

    def read_other(self, bar: int, offset: int, size: int) -> int:
        """Ports and extended capabilities."""
        if bar == 0 and _EXTENDED <= offset < _EXTENDED + len(_PROTOCOLS):
            return int.from_bytes(_PROTOCOLS[offset - _EXTENDED :][:size], "little")
        port, at = divmod(offset - _PORT_REGISTERS, 16)
        if bar == 0 and 0 <= port < PORTS and at == 0:
            return self.port_status[port]
        if offset == _RUNTIME and self.board is not None:
            return self.board.now // 125_000 & 0x3FFF
        return 0

    def write_other(self, bar: int, offset: int, size: int, value: int) -> None:
        """Ports and doorbells."""
        port, at = divmod(offset - _PORT_REGISTERS, 16)
        if bar == 0 and 0 <= port < PORTS and at == 0:
            self._write_port(port, value)
        elif bar == 0 and _DOORBELLS <= offset <= _DOORBELLS + 4 * _SLOTS:
            self._ring((offset - _DOORBELLS) // 4, value & 0xFF)

    def _write_port(self, port: int, value: int) -> None:
        status = self.port_status[port] & ~(value & _CHANGES)
        if value & _PORT_ENABLED:
            status &= ~_PORT_ENABLED
        if value & _STROBE:
            status = status & ~(15 << 5) | value & 15 << 5
        self.port_status[port] = status
        device = self.ports[port]
        if value & _PORT_RESET and device is not None:
            device.reset()
            self._port_changes(port, status & ~(15 << 5) | _PORT_ENABLED | _RESET_CHANGE)

    def _ring(self, slot: int, endpoint: int) -> None:
        if self.board is None:
            return
        if not self.rung:
            self.board.post(self._work)
        self.rung.append((slot, endpoint))

    # -- events ---------------------------------------------------------------------------------------------------

    def _tell(self, parameter: int, status: int, control: int) -> None:
        self.waiting.append(struct.pack("<QII", parameter, status, control))

    def _send_events(self) -> None:
        while self.waiting:
            place = self.events.place(self.dma_read)
            if place is None:
                break
            address, cycle = place
            event = bytearray(self.waiting.pop(0))
            event[12] |= cycle
            self.dma_write(address, event)
        if not self.events.unseen or self.event_dequeue & _BUSY:
            return
        if self.interrupter & _ENABLED and self.command & _INTERRUPTS:
            self.event_dequeue |= _BUSY
            self.usb_status |= _EVENT
            if not self.uses_msix:
                self.interrupter |= _PENDING
            self.raise_irq()

    # -- commands -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """What doorbells have announced."""
        try:
            while self.rung:
                slot, endpoint = self.rung.pop(0)
                if slot == 0:
                    self._run_commands()
                else:
                    self._run_transfers(slot, endpoint)
        except Broken:
            self.rung.clear()
            self.usb_status |= 1 << 2  # the host system's error
        self._send_events()

    def _run_commands(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            trbs = self.commands.peek(self.dma_read) if self.commands is not None and self.command & _RUN else []
            if self.commands is None or not trbs:
                return
            self.commands.skip(self.dma_read, 1)
            trb = trbs[0]
            slot = trb.control >> 24
            if trb.kind == _ENABLE:
                slot = next((number for number in range(1, _SLOTS + 1) if number not in self.slots), 0)
                code = _SUCCESS if slot else _NO_SLOT
                if slot:
                    self.slots[slot] = _Slot()
            elif trb.kind == _COMMAND_NO_OP:
                code = _SUCCESS
            elif slot not in self.slots:
                code = _SLOT_OFF
            else:
                handler = _COMMANDS.get(trb.kind)
                code = _TRB_ERROR if handler is None else handler(self, self.slots[slot], slot, trb)
            self._tell(trb.address, code << 24, slot << 24 | _COMMAND_EVENT << 10)
        raise Broken

    def _disable(self, slot: _Slot, number: int, trb: Trb) -> int:
        del self.slots[number]
        return _SUCCESS

    def _address(self, slot: _Slot, number: int, trb: Trb) -> int:
        source = trb.parameter & ~15
        header = self.dma_read(source + _CONTEXT, _CONTEXT)
        port = header[6]
        if not 1 <= port <= PORTS or self.ports[port - 1] is None:
            return _TRANSACTION_ERROR
        (entry,) = struct.unpack("<Q", self.dma_read(self.contexts + 8 * number, 8))
        slot.port, slot.context = port, entry & ~63
        self._set_slot(slot, header, number, _DEFAULT if trb.control & _BLOCK_SET_ADDRESS else _ADDRESSED)
        self._take_endpoint(slot, source, 1)
        return _SUCCESS

    def _configure(self, slot: _Slot, number: int, trb: Trb) -> int:
        if not slot.context:
            return _WRONG_STATE
        source = trb.parameter & ~15
        drop, add = struct.unpack("<II", self.dma_read(source, 8))
        if trb.control & _DECONFIGURE:
            drop, add = 0xFFFF_FFFC, 0
        for endpoint in range(2, 32):
            if drop >> endpoint & 1:
                slot.rings.pop(endpoint, None)
                self.dma_write(slot.context + endpoint * _CONTEXT, bytes(_CONTEXT))
            if add >> endpoint & 1:
                self._take_endpoint(slot, source, endpoint)
        header = self.dma_read((source + _CONTEXT) if add & 1 else slot.context, _CONTEXT)
        self._set_slot(slot, header, number, _CONFIGURED if len(slot.rings) > 1 else _ADDRESSED)
        return _SUCCESS

    def _evaluate(self, slot: _Slot, number: int, trb: Trb) -> int:
        """The size of control packets, which nothing here depends on."""
        source = trb.parameter & ~15
        (_, add) = struct.unpack("<II", self.dma_read(source, 8))
        if add >> 1 & 1 and slot.context:
            self.dma_write(slot.context + _CONTEXT + 4, self.dma_read(source + 2 * _CONTEXT + 4, 4))
        return _SUCCESS

    def _reset_device(self, slot: _Slot, number: int, trb: Trb) -> int:
        if not slot.context:
            return _WRONG_STATE
        for endpoint in [endpoint for endpoint in slot.rings if endpoint > 1]:
            del slot.rings[endpoint]
            self.dma_write(slot.context + endpoint * _CONTEXT, bytes(_CONTEXT))
        self._set_slot(slot, self.dma_read(slot.context, _CONTEXT), 0, _DEFAULT)
        return _SUCCESS

    def _reset_endpoint(self, slot: _Slot, number: int, trb: Trb) -> int:
        endpoint = trb.control >> 16 & 31
        return self._set_state(slot, endpoint, _STATE_STOPPED)

    def _stop(self, slot: _Slot, number: int, trb: Trb) -> int:
        endpoint = trb.control >> 16 & 31
        code = self._set_state(slot, endpoint, _STATE_STOPPED)
        if code == _SUCCESS:
            self._write_dequeue(slot, endpoint)
        return code

    def _set_dequeue(self, slot: _Slot, number: int, trb: Trb) -> int:
        endpoint = trb.control >> 16 & 31
        if endpoint not in slot.rings:
            return _ENDPOINT_OFF
        slot.rings[endpoint] = Ring(trb.parameter & ~15, trb.parameter & 1)
        self._write_dequeue(slot, endpoint)
        return _SUCCESS

    def _set_slot(self, slot: _Slot, header: bytes, address: int, state: int) -> None:
        self.dma_write(slot.context, header[:12] + struct.pack("<I", state << 27 | address) + bytes(16))

    def _take_endpoint(self, slot: _Slot, source: int, endpoint: int) -> None:
        """As the input context describes it, running."""
        raw = bytearray(self.dma_read(source + (endpoint + 1) * _CONTEXT, _CONTEXT))
        (dequeue,) = struct.unpack_from("<Q", raw, 8)
        slot.rings[endpoint] = Ring(dequeue & ~15, dequeue & 1)
        slot.stopped.discard(endpoint)
        raw[0] = raw[0] & ~7 | _STATE_RUNNING
        self.dma_write(slot.context + endpoint * _CONTEXT, raw)

    def _set_state(self, slot: _Slot, endpoint: int, state: int) -> int:
        if endpoint not in slot.rings:
            return _ENDPOINT_OFF
        at = slot.context + endpoint * _CONTEXT
        self.dma_write(at, bytes([self.dma_read(at, 1)[0] & ~7 | state]))
        (slot.stopped.discard if state == _STATE_RUNNING else slot.stopped.add)(endpoint)
        return _SUCCESS

    def _write_dequeue(self, slot: _Slot, endpoint: int) -> None:
        ring = slot.rings[endpoint]
        self.dma_write(slot.context + endpoint * _CONTEXT + 8, struct.pack("<Q", ring.dequeue | ring.cycle))

    # -- transfers ------------------------------------------------------------------------------------------------

    def _run_transfers(self, number: int, endpoint: int) -> None:
        slot = self.slots.get(number)
        if slot is None or endpoint not in slot.rings:
            return
        if endpoint in slot.stopped and self._state(slot, endpoint) == _STATE_STOPPED:
            self._set_state(slot, endpoint, _STATE_RUNNING)
        for _ in range(_MOST_AT_ONCE):
            ring = slot.rings.get(endpoint)
            trbs = ring.peek(self.dma_read) if ring is not None and endpoint not in slot.stopped else []
            if not trbs or not self._transfer(slot, number, endpoint, trbs):
                return
        raise Broken

    def _state(self, slot: _Slot, endpoint: int) -> int:
        return self.dma_read(slot.context + endpoint * _CONTEXT, 1)[0] & 7

    def _transfer(self, slot: _Slot, number: int, endpoint: int, trbs: list[Trb]) -> bool:
        """One transfer; False: the device has nothing for it yet, so that it stays."""
        device = self.ports[slot.port - 1]
        if device is None:
            return False  # the driver hears of the port, and stops
        if endpoint == 1:
            code, moved = self._control(device, trbs)
        elif endpoint & 1:
            room = sum(trb.length for trb in trbs if trb.kind == NORMAL)
            data = device.read(endpoint >> 1, room)
            if data is None:
                return False
            code, moved = self._scatter(trbs, data[:room])
        else:
            data = b"".join(self._buffer(trb) for trb in trbs if trb.kind == NORMAL)
            code, moved = (_SUCCESS if device.write(endpoint >> 1, data) else _STALL), len(data)
        slot.rings[endpoint].skip(self.dma_read, len(trbs))
        self._report(slot, number, endpoint, trbs, code, moved)
        return True

    def _control(self, device: UsbDevice, trbs: list[Trb]) -> tuple[int, int]:
        setup = Setup(*struct.unpack("<BBHHH", trbs[0].parameter.to_bytes(8, "little")))
        if trbs[0].kind != SETUP:
            return _TRB_ERROR, 0
        out = b"" if setup.is_in else b"".join(self._buffer(trb) for trb in trbs if trb.kind in (DATA, NORMAL))
        answer = device.transfer(setup, out)
        if answer is None:
            return _STALL, 0
        if not setup.is_in:
            return _SUCCESS, len(out)
        return self._scatter(trbs, answer[: setup.length])

    def _scatter(self, trbs: list[Trb], data: bytes) -> tuple[int, int]:
        at = 0
        for trb in trbs:
            if trb.kind in (DATA, NORMAL) and at < len(data):
                piece = data[at : at + trb.length]
                self.dma_write(trb.parameter, piece)
                at += len(piece)
        room = sum(trb.length for trb in trbs if trb.kind in (DATA, NORMAL))
        return (_SHORT if len(data) < room else _SUCCESS), len(data)

    def _buffer(self, trb: Trb) -> bytes:
        if trb.control & IMMEDIATE:
            return trb.parameter.to_bytes(8, "little")[: trb.length]
        return self.dma_read(trb.parameter, trb.length)

    def _report(self, slot: _Slot, number: int, endpoint: int, trbs: list[Trb], code: int, moved: int) -> None:
        """Events of a transfer: where it ended short or went wrong, and where the driver asked for one."""
        if code in (_STALL, _TRB_ERROR):
            trb = trbs[-1] if trbs[-1].kind != STATUS or len(trbs) == 2 else trbs[1]
            self._set_state(slot, endpoint, _STATE_HALTED)
            slot.rings[endpoint].dequeue, slot.rings[endpoint].cycle = trbs[0].address, trbs[0].control & 1
            self._write_dequeue(slot, endpoint)
            self._transfer_event(number, endpoint, trb, code, trb.length)
            return
        total, short_told = 0, False
        for trb in trbs:
            if trb.kind == EVENT_DATA:
                control = number << 24 | endpoint << 16 | _TRANSFER_EVENT << 10 | 4
                self._tell(trb.parameter, code << 24 | moved, control)
                continue
            if trb.kind in (NORMAL, DATA):
                here = max(0, min(trb.length, moved - total))
                total += trb.length
                if here < trb.length and not short_told:
                    short_told = True
                    if trb.control & (SHORT_TELLS | COMPLETION_TELLS):
                        self._transfer_event(number, endpoint, trb, _SHORT, trb.length - here)
                    if endpoint != 1:
                        return  # the rest of it is passed over
                    continue
            if trb.control & COMPLETION_TELLS or trb.kind == NO_OP:
                self._transfer_event(number, endpoint, trb, _SUCCESS, 0)

    def _transfer_event(self, number: int, endpoint: int, trb: Trb, code: int, left: int) -> None:
        self._tell(trb.address, code << 24 | left, number << 24 | endpoint << 16 | _TRANSFER_EVENT << 10)

    # -- resets of the kernel -------------------------------------------------------------------------------------

    def capture(self) -> Any:
        """What is plugged into the ports belongs to the state, too."""
        ports = tuple((device, None if device is None else device.capture()) for device in self.ports)
        return super().capture(), ports

    def restore(self, state: Any) -> None:
        """As at ``capture``."""
        function, ports = state
        super().restore(function)
        for device in self.ports:
            if device is not None:
                device.host = None
        self.rung.clear()
        for port, (device, kept) in enumerate(ports):
            self.ports[port] = device
            if device is not None:
                device.restore(kept)
                self._wire(port)


_COMMANDS = {
    _DISABLE: Xhci._disable,
    _ADDRESS: Xhci._address,
    _CONFIGURE: Xhci._configure,
    _EVALUATE: Xhci._evaluate,
    _RESET_ENDPOINT: Xhci._reset_endpoint,
    _STOP: Xhci._stop,
    _SET_DEQUEUE: Xhci._set_dequeue,
    _RESET_DEVICE: Xhci._reset_device,
}
