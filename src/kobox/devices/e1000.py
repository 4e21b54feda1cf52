"""An Intel 82540EM Gigabit Ethernet controller (8086:100e), as far as the kernel's e1000 driver uses one: legacy and
extended transmit descriptors with sums and segmentation, legacy receive descriptors, interrupt by line.

Intel 8254x Family of Gigabit Ethernet Controllers Software Developer's Manual, chapters 3 (descriptors) and 13
(registers). Statistics, VLAN tags, wake-up and flow control have registers that do nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from kobox.devices.device import PciDevice
from kobox.devices.e1000_parts import Eeprom, Phy, eeprom_words
from kobox.devices.offload import Cut, Sum, put_sum, segments
from kobox.devices.registers import Register
from kobox.errors import UsageError
from kobox.machine.pci_function import Bar

_RESET, _LINK_UP, _GIGABIT, _FULL = 1 << 26, 2, 0x80, 1
_SENT, _QUEUE_EMPTY, _LINK_CHANGED, _OVERRUN, _RECEIVED = 0x1, 0x2, 0x4, 0x40, 0x80
_ENABLED, _PROMISCUOUS, _STRIP_CRC = 1 << 1, 1 << 3, 1 << 26
_MDIC_READ, _MDIC_READY = 2, 1 << 28
_DESCRIPTOR_SIZE = 16
_RING_BYTES = 0xFFF80
_DONE, _LAST, _NO_SUMS = 1, 2, 4
_END, _REPORT, _EXTENDED = 1, 8, 0x20
_DATA, _SEGMENT, _TCP, _IP4 = 1, 4, 1, 2
_PUT_IP_SUM, _PUT_TCP_SUM = 1, 2
_ADDRESS_VALID = 1 << 31
_SHORTEST, _LONGEST = 60, 9216
_MOST_WAITING = 1024
_STATISTICS = range(0x4000, 0x4100)


class E1000(PciDevice):
    """``eth0`` and so on. ``mac``: as ``52:54:00:12:34:56``. ``wire`` is called with each frame that the guest sends
    (without its checksum), while the guest stands still, and may call ``receive``; ``sent`` keeps the frames."""

    vendor, device, class_code, revision = 0x8086, 0x100E, 0x020000, 3
    subsystem = (0x8086, 0x001E)
    bars = {0: Bar(1 << 17), 1: Bar(64, io=True)}  # noqa: RUF012
    pin = 1
    kept_outside = frozenset({"wire"})

    control = Register(0x0000)
    link_status = Register(0x0008, writable=0)
    eeprom_control = Register(0x0010)
    phy_control = Register(0x0020)
    cause = Register(0x00C0, writable=0)
    cause_set = Register(0x00C8)
    mask = Register(0x00D0, writable=0)
    mask_clear = Register(0x00D8)
    receive_control = Register(0x0100)
    transmit_control = Register(0x0400)
    receive_ring = Register(0x2800, 8)
    receive_size = Register(0x2808)
    receive_head = Register(0x2810)
    receive_tail = Register(0x2818)
    transmit_ring = Register(0x3800, 8)
    transmit_size = Register(0x3808)
    transmit_head = Register(0x3810)
    transmit_tail = Register(0x3818)
    own_address = Register(0x5400, 8)
    io_address = Register(0, bar=1)
    io_data = Register(4, bar=1)

    def __init__(self, mac: str = "52:54:00:12:34:56", wire: Callable[[bytes], None] | None = None) -> None:
        try:
            self.mac = bytes.fromhex(mac.replace(":", ""))
        except ValueError:
            self.mac = b""
        if len(self.mac) != 6:
            raise UsageError(f"{mac!r} is no MAC address", hint="six bytes: 52:54:00:12:34:56")
        self.wire = wire
        self.sent: list[bytes] = []
        self.dropped = 0
        self.phy = Phy()
        self.eeprom = Eeprom(eeprom_words(self.mac, self.device, self.subsystem))
        super().__init__()

    def reset(self) -> None:
        """See ``PciDevice``. The cable stays where it is, and so does the address, which the EEPROM has."""
        super().reset()
        self.words: dict[int, int] = {}
        self.waiting: list[bytes] = []
        self.packet = bytearray()
        self.pieces: tuple[Sum, Sum, Cut | None] | None = None
        """The context that extended descriptors refer to: sums of IP and TCP, and how a packet is cut."""
        self.sums = 0
        self.cutting = False
        self.busy = False
        self.own_address = int.from_bytes(self.mac, "little") | _ADDRESS_VALID << 32
        self.link_status = _FULL | _GIGABIT | (_LINK_UP if self.phy.link else 0)

    # -- registers ------------------------------------------------------------------------------------------------

    @control.on_write
    def _control(self, value: int) -> None:
        if value & _RESET:
            self.lower_irq()
            self.reset()

    @io_data.on_read
    def _read_by_port(self) -> int:
        return self.read_bar(0, self.io_address & 0x1FFFC, 4)

    @io_data.on_write
    def _write_by_port(self, value: int) -> None:
        self.write_bar(0, self.io_address & 0x1FFFC, 4, value)

    @eeprom_control.on_read
    def _read_eeprom(self) -> int:
        return self.eeprom.read()

    @eeprom_control.on_write
    def _write_eeprom(self, value: int) -> None:
        self.eeprom.write(value)

    @phy_control.on_write
    def _serve_phy(self, value: int) -> None:
        number = value >> 16 & 31
        if value >> 26 & 3 == _MDIC_READ:
            self.phy_control = value & ~0xFFFF | self.phy.read(number) | _MDIC_READY
        else:
            self.phy.write(number, value & 0xFFFF)
            self.phy_control = value | _MDIC_READY

    @cause.on_read
    def _read_cause(self) -> int:
        """Reading takes the causes back."""
        causes, self.cause = self.cause, 0
        self._drive_line()
        return causes

    @cause_set.on_write
    def _happens(self, causes: int) -> None:
        self.cause |= causes
        self._drive_line()

    @mask.on_write
    def _unmask(self, bits: int) -> None:
        self.mask |= bits
        self._drive_line()

    @mask_clear.on_write
    def _mask(self, bits: int) -> None:
        self.mask &= ~bits
        self._drive_line()

    def _drive_line(self) -> None:
        if self.cause & self.mask:
            if not self.line_level:
                self.raise_irq()
        elif self.line_level:
            self.lower_irq()

    @transmit_tail.on_write
    @transmit_control.on_write
    @receive_tail.on_write
    @receive_control.on_write
    def _ring(self, _: int) -> None:
        if not self.busy and self.board is not None:
            self.busy = True
            self.board.post(self._work)

    def read_other(self, bar: int, offset: int, size: int) -> int:
        """Registers that keep what is written to them. Statistics are zero: nothing is counted."""
        return 0 if offset in _STATISTICS else self.words.get(offset, 0)

    def write_other(self, bar: int, offset: int, size: int, value: int) -> None:
        """See ``read_other``."""
        self.words[offset] = value

    # -- sending --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        self.busy = False
        count = (self.transmit_size & _RING_BYTES) // _DESCRIPTOR_SIZE
        causes = 0
        works = self.transmit_control & _ENABLED and max(self.transmit_head, self.transmit_tail) < count
        while works and self.transmit_head != self.transmit_tail:
            causes |= self._transmit(self.transmit_ring + self.transmit_head * _DESCRIPTOR_SIZE)
            self.transmit_head = (self.transmit_head + 1) % count
            if self.transmit_head == self.transmit_tail:
                causes |= _QUEUE_EMPTY
        if causes:
            self._happens(causes)
        self._deliver()

    def _transmit(self, address: int) -> int:
        """One descriptor; the causes for an interrupt that it gives."""
        raw = self.dma_read(address, _DESCRIPTOR_SIZE)
        buffer, word, upper = struct.unpack("<QII", raw)
        command = word >> 24
        if command & _EXTENDED and word >> 20 & 15 != _DATA:
            self._take_context(raw)
        else:
            extended = bool(command & _EXTENDED)
            if not self.packet and extended:
                self.sums, self.cutting = upper >> 8 & 0xFF, bool(command & _SEGMENT)
            elif not self.packet:
                self.sums, self.cutting = 0, False
            if len(self.packet) < 1 << 17:
                self.packet += self.dma_read(buffer, word & (0xFFFFF if extended else 0xFFFF))
            if command & _END:
                packet, self.packet = self.packet, bytearray()
                self._send(packet)
        if not command & _REPORT:
            return 0
        self.dma_write(address + 12, bytes([raw[12] | _DONE]))
        return _SENT

    def _take_context(self, raw: bytes) -> None:
        ip_start, ip_place, ip_end, tcp_start, tcp_place, tcp_end = struct.unpack_from("<BBHBBH", raw)
        word, _, headers, piece = struct.unpack_from("<IBBH", raw, 8)
        command = word >> 24
        cut = Cut(headers, piece, bool(command & _IP4), ip_start, tcp_start) if piece and command & _TCP else None
        self.pieces = (Sum(ip_start, ip_place, ip_end), Sum(tcp_start, tcp_place, tcp_end), cut)

    def _send(self, packet: bytearray) -> None:
        ip_sum, tcp_sum, cut = self.pieces or (Sum(0, 0, 0), Sum(0, 0, 0), None)
        fits = cut is not None and cut.tcp + 20 <= cut.headers <= len(packet)
        for frame in segments(bytes(packet), cut) if self.cutting and cut is not None and fits else [packet]:
            if self.sums & _PUT_TCP_SUM:
                put_sum(frame, tcp_sum)
            if self.sums & _PUT_IP_SUM:
                put_sum(frame, ip_sum)
            if self.phy.link:
                self.sent.append(bytes(frame))
                if self.wire is not None:
                    self.wire(self.sent[-1])

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> None:
        """A frame comes from the wire (without its checksum); it waits until the guest has room for it."""
        if self.board is None or not self.phy.link or len(self.waiting) >= _MOST_WAITING or len(frame) > _LONGEST:
            self.dropped += 1
            return
        self.waiting.append(frame.ljust(_SHORTEST, b"\0"))
        self._ring(0)

    def set_link(self, up: bool) -> None:
        """Pull the cable, or put it in."""
        self.phy.link = up
        self.link_status = self.link_status & ~_LINK_UP | (_LINK_UP if up else 0)
        self._happens(_LINK_CHANGED)

    def _deliver(self) -> None:
        count = (self.receive_size & _RING_BYTES) // _DESCRIPTOR_SIZE
        causes = 0
        while self.waiting and self.receive_control & _ENABLED and count:
            frame = self.waiting[0]
            if not self._is_for_us(frame):
                del self.waiting[0]
                continue
            if self.receive_head == self.receive_tail:
                break
            del self.waiting[0]
            if not self.receive_control & _STRIP_CRC:
                frame += struct.pack("<I", zlib.crc32(frame))
            causes |= self._store(frame, count)
        if causes:
            self._happens(causes)

    def _store(self, frame: bytes, count: int) -> int:
        """Into as many buffers as it needs; what finds none is lost with all of the frame."""
        room = self._buffer_size
        needed = -(-len(frame) // room)
        if (self.receive_tail - self.receive_head) % count < needed:
            self.dropped += 1
            return _OVERRUN
        for at in range(0, len(frame), room):
            piece = frame[at : at + room]
            address = self.receive_ring + self.receive_head % count * _DESCRIPTOR_SIZE
            (buffer,) = struct.unpack("<Q", self.dma_read(address, 8))
            self.dma_write(buffer, piece)
            status = _DONE | _NO_SUMS | (_LAST if at + room >= len(frame) else 0)
            self.dma_write(address + 8, struct.pack("<HHBBH", len(piece), 0, status, 0, 0))
            self.receive_head = (self.receive_head + 1) % count
        return _RECEIVED

    @property
    def _buffer_size(self) -> int:
        """Bytes of each of the driver's buffers."""
        size = 2048 >> (self.receive_control >> 16 & 3)
        return size * 16 if self.receive_control >> 25 & 1 else size

    def _is_for_us(self, frame: bytes) -> bool:
        """By its own address; every multicast passes, which the driver's software sorts out."""
        own = self.own_address
        ours = own >> 63 and frame[:6] == own.to_bytes(8, "little")[:6]
        return bool(self.receive_control & _PROMISCUOUS or frame[0] & 1 or ours)
