"""Registers of a device as declared fields of its class: where they lie, which bits software may change, and what
happens on access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

ReadHandler = Callable[[Any], int]
WriteHandler = Callable[[Any, int], None]


class Register:
    """A register of ``size`` bytes at ``offset`` of a BAR.

    On an instance it reads and sets as a number. ``reset``: its value at first, and after a reset. ``writable``: bits
    that software sets as it likes (all, unless said otherwise); ``cleared``: bits that software clears by writing one.
    """

    def __init__(
        self, offset: int, size: int = 4, *, bar: int = 0, reset: int = 0, writable: int | None = None, cleared: int = 0
    ) -> None:
        self.offset, self.size, self.bar, self.reset = offset, size, bar, reset
        self.mask = (1 << 8 * size) - 1
        self.cleared = cleared
        self.writable = self.mask & ~cleared if writable is None else writable
        self.name = ""
        self.read_handler: ReadHandler | None = None
        self.write_handler: WriteHandler | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, device: None, owner: type) -> Register: ...

    @overload
    def __get__(self, device: object, owner: type) -> int: ...

    def __get__(self, device: Any, owner: type) -> Register | int:
        if device is None:
            return self
        value: int = device.values[self.name]
        return value

    def __set__(self, device: Any, value: int) -> None:
        device.values[self.name] = value & self.mask

    def on_read(self, handler: ReadHandler) -> ReadHandler:
        """Decorator: the method gives the value that software reads."""
        self.read_handler = handler
        return handler

    def on_write(self, handler: WriteHandler) -> WriteHandler:
        """Decorator: the method is called with what software wrote, after the register has taken it by its masks."""
        self.write_handler = handler
        return handler

    def load(self, device: Any) -> int:
        """What software reads."""
        value = device.values[self.name] if self.read_handler is None else self.read_handler(device)
        return value & self.mask

    def store(self, device: Any, value: int) -> None:
        """Software writes the whole register."""
        old = device.values[self.name]
        kept = old & ~self.writable | value & self.writable
        device.values[self.name] = kept & ~(value & self.cleared) & self.mask
        if self.write_handler is not None:
            self.write_handler(device, value & self.mask)


class Layout:
    """Where the registers of a class lie: for each BAR, the register that each byte belongs to."""

    def __init__(self, registers: Mapping[str, Register]) -> None:
        self.registers = dict(registers)
        self._bytes: dict[tuple[int, int], Register] = {}
        for register in registers.values():
            for at in range(register.offset, register.offset + register.size):
                other = self._bytes.setdefault((register.bar, at), register)
                if other is not register:
                    where = f"{other.name} and {register.name} both lie at {at:#x} of BAR {register.bar}"
                    raise TypeError(where)

    @classmethod
    def of(cls, owner: type) -> Layout:
        """The registers that a class and its bases declare."""
        found: dict[str, Register] = {}
        for base in reversed(owner.__mro__):
            found |= {name: value for name, value in vars(base).items() if isinstance(value, Register)}
        return cls(found)

    def at(self, bar: int, offset: int) -> Register | None:
        """The register that a byte belongs to."""
        return self._bytes.get((bar, offset))

    def read(self, device: Any, bar: int, offset: int, size: int) -> int | None:
        """An access that may take a part of a register, or several; None where no register is."""
        register = self._bytes.get((bar, offset))
        if register is None:
            return None
        if register.offset == offset and register.size == size:
            return register.load(device)
        value = register.load(device) >> 8 * (offset - register.offset)
        here = min(size, register.offset + register.size - offset)
        value &= (1 << 8 * here) - 1
        if here < size:
            value |= (self.read(device, bar, offset + here, size - here) or 0) << 8 * here
        return value & (1 << 8 * size) - 1

    def write(self, device: Any, bar: int, offset: int, size: int, value: int) -> bool:
        """As ``read``; bytes of a register that are not written stay. False where no register is."""
        register = self._bytes.get((bar, offset))
        if register is None:
            return False
        if register.offset == offset and register.size == size:
            register.store(device, value)
            return True
        shift = 8 * (offset - register.offset)
        here = min(size, register.offset + register.size - offset)
        mask = (1 << 8 * here) - 1
        whole = device.values[register.name] & ~(mask << shift) & ~register.cleared
        register.store(device, whole | (value & mask) << shift)
        if here < size:
            self.write(device, bar, offset + here, size - here, value >> 8 * here)
        return True
