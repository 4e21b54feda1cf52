"""The two chips around an 8254x controller: the EEPROM that is read bit by bit, and the PHY behind its serial port.

Intel 8254x Software Developer's Manual, 5.3 (EEPROM interface), 8 (PHY); National NM93C46 (Microwire).
"""

from __future__ import annotations

from dataclasses import dataclass, field

_CLOCK, _SELECT, _IN, _OUT, _REQUEST, _GRANT, _PRESENT = 1, 2, 4, 8, 0x40, 0x80, 0x100
_OWN_BITS = _CLOCK | _SELECT | _IN | _REQUEST
_WORDS, _CHECKSUM = 64, 0xBABA
_READ, _COMMAND_BITS, _WORD_BITS = 0b110, 9, 16

_PHY_STATUS, _PHY_SPECIFIC = 1, 17
_ABILITIES, _LINK_AND_NEGOTIATED, _GIGABIT_FULL = 0x7949, 0x24, 0xAC00
_PHY_SELF_CLEARING = 1 << 15 | 1 << 9
_PHY_AT_FIRST = {0: 0x1140, 2: 0x0141, 3: 0x0C20, 4: 0x0DE1, 5: 0x41E0, 9: 0x0E00, 10: 0x3C00, 16: 0x0360, 20: 0x0D60}
_READ_ONLY = frozenset({1, 2, 3, 5, 10, 17})


def eeprom_words(mac: bytes, device: int, subsystem: tuple[int, int]) -> list[int]:
    """Contents as a card has them: its address first, a checksum last."""
    words = [0] * _WORDS
    words[:3] = [mac[at] | mac[at + 1] << 8 for at in (0, 2, 4)]
    words[0x0A], words[0x0D], words[0x0E] = 0x4480, device, 0x8086
    words[0x0B], words[0x0C] = subsystem[1], subsystem[0]
    words[0x0F] = 0x1000
    words[-1] = _CHECKSUM - sum(words[:-1]) & 0xFFFF
    return words


@dataclass(slots=True)
class Eeprom:
    """64 words, read by Microwire: a start bit, a command of two bits, an address of six; then the word, high bit
    first."""

    words: list[int]
    pins: int = 0
    _command: int = 0
    _bits: int = 0
    _left: int = 0
    """Bits of the word that are to come."""
    _word: int = 0

    def read(self) -> int:
        """The control register: who has the wires is answered at once."""
        high = self._left and self._word >> self._left - 1 & 1
        granted = _GRANT if self.pins & _REQUEST else 0
        return self.pins & _OWN_BITS | granted | _PRESENT | (_OUT if high else 0)

    def write(self, value: int) -> None:
        """Software moves the wires; a bit goes in, or comes out, when the clock rises."""
        rising = value & _CLOCK and not self.pins & _CLOCK
        self.pins = value
        if not value & _SELECT:
            self._command = self._bits = self._left = 0
        elif rising:
            self._step(bool(value & _IN))

    def _step(self, bit: bool) -> None:
        if self._left:
            self._left -= 1
            return
        if not self._bits and not bit:
            return  # before the start bit
        self._command, self._bits = self._command << 1 | bit, self._bits + 1
        if self._bits == _COMMAND_BITS and self._command >> 6 == _READ:
            self._word, self._left = self.words[self._command & 63], _WORD_BITS + 1
            self._command = self._bits = 0


@dataclass(slots=True)
class Phy:
    """A Marvell 88E1011 whose partner speaks a gigabit, full duplex. ``link``: whether the cable is in."""

    link: bool = True
    registers: dict[int, int] = field(default_factory=lambda: dict(_PHY_AT_FIRST))

    def read(self, number: int) -> int:
        """A register; those of no interest read as zero."""
        if number == _PHY_STATUS:
            return _ABILITIES | (_LINK_AND_NEGOTIATED if self.link else 0)
        if number == _PHY_SPECIFIC:
            return _GIGABIT_FULL if self.link else 0
        return self.registers.get(number, 0)

    def write(self, number: int, value: int) -> None:
        """What resets or begins a negotiation is over at once."""
        if number not in _READ_ONLY:
            self.registers[number] = value & ~_PHY_SELF_CLEARING if number == 0 else value
