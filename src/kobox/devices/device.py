"""A PCI device as a Python class: identity, BARs and registers are declared, methods say what happens.

See docs/devices.md for a tutorial. PCI Power Management 1.2; Advanced Capabilities ECN (function level reset).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from kobox.devices import own_state
from kobox.devices.registers import Layout
from kobox.machine.pci_function import Bar, Identity, PciFunction

_POWER, _ADVANCED = 0x01, 0x13
_POWER_VERSION, _POWER_STATE, _D0, _D3 = 3, 3, 0, 3
_CAN_RESET, _RESET = 3, 1
_INSTANCE_NAMES = frozenset({"bars", "board", "config", "line_level", "shape", "taps", "values"})
_OWN_MODULES = frozenset({__name__, PciFunction.__module__})


class PciDevice(PciFunction):
    """Derive from it, set the class attributes, declare registers.

    ``vendor``, ``device``, ``class_code`` (24 bits: class, subclass, interface), ``subsystem`` (vendor, number),
    ``revision``; ``bars`` by number; interrupts: ``pin`` 1 to 4 for INTA to INTD (0: none), ``msi`` for one message,
    ``msix`` for so many, whose table has a BAR of its own, ``msix_bar``. Every device has power states D0 and D3hot and
    a function level reset.

    Attributes of an instance belong to the device's state and are put back by a reset of the kernel; those named in
    ``kept_outside`` (files, sockets, counters of a test) are left alone.
    """

    vendor: ClassVar[int] = 0x1234
    device: ClassVar[int]
    class_code: ClassVar[int] = 0xFF0000
    subsystem: ClassVar[tuple[int, int]] = (0, 0)
    revision: ClassVar[int] = 0
    bars: dict[int, Bar] = {}  # noqa: RUF012  # an instance has a copy
    pin: ClassVar[int] = 0
    msi: ClassVar[bool] = False
    msix: ClassVar[int] = 0
    msix_bar: ClassVar[int] = 4
    kept_outside: ClassVar[frozenset[str]] = frozenset()

    layout: ClassVar[Layout] = Layout({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.layout = Layout.of(cls)
        taken = _INSTANCE_NAMES.union(*(dir(base) for base in cls.__mro__ if base.__module__ in _OWN_MODULES))
        if names := taken & cls.layout.registers.keys():
            raise TypeError(
                f"{cls.__name__}: a register cannot be called {', '.join(sorted(names))}: a device has that"
            )

    def __init__(self) -> None:
        before = set(vars(self))
        cls = type(self)
        identity = Identity(cls.vendor, cls.device, cls.class_code, *cls.subsystem, cls.revision)
        super().__init__(
            identity, dict(cls.bars), pin=cls.pin, msi=cls.msi, msix=cls.msix, msix_bar=cls.msix_bar
        )  # fmt: skip
        self.__power_at = self.config.add_capability(_POWER, bytes([_POWER_VERSION, 0, 0, 0, 0, 0]))
        self.config.allow(self.__power_at + 4, 1, _POWER_STATE)
        self.__advanced_at = self.config.add_capability(_ADVANCED, bytes([6, _CAN_RESET, 0, 0]))
        self.__waiting: list[tuple[int, str, tuple[Any, ...]]] = []
        """What is to be done later: virtual time, name of a method, its arguments."""
        self.__framework = frozenset(set(vars(self)) - before | {"_PciDevice__framework"})
        self.values: dict[str, int] = {}
        self.reset()

    # -- what a model overrides -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Power on, a function level reset, or the way back from D3hot: registers have their first values again."""
        self.values.clear()
        self.values.update({name: register.reset for name, register in self.layout.registers.items()})
        self.__waiting.clear()

    def read_other(self, bar: int, offset: int, size: int) -> int:
        """A read where no register is declared."""
        return 0

    def write_other(self, bar: int, offset: int, size: int, value: int) -> None:
        """A write where no register is declared."""

    # -- for models -----------------------------------------------------------------------------------------------

    def raise_irq(self, vector: int = 0) -> None:
        """Interrupt: by MSI-X (``vector``), MSI, or the line, as the driver has chosen. A line stays up until
        ``lower_irq``."""
        self.interrupt(vector)

    def lower_irq(self) -> None:
        """Let the line go; nothing happens where the driver uses messages."""
        self.lower_line()

    def after(self, seconds: float, method: Callable[..., None], *arguments: Any) -> None:
        """Call a method of this device when so much virtual time has passed."""
        if self.board is not None:
            entry = (self.board.now + int(seconds * 1e9), method.__name__, arguments)
            self.__waiting.append(entry)
            self.__set_alarm(entry)

    def __set_alarm(self, entry: tuple[int, str, tuple[Any, ...]]) -> None:
        def ring() -> None:
            if any(waiting is entry for waiting in self.__waiting):
                self.__waiting = [waiting for waiting in self.__waiting if waiting is not entry]
                getattr(self, entry[1])(*entry[2])

        if self.board is not None:
            self.board.alarm(entry[0], ring)

    # -- what the bus asks ----------------------------------------------------------------------------------------

    def read_bar(self, bar: int, offset: int, size: int) -> int:
        """See ``PciFunction``."""
        value = self.layout.read(self, bar, offset, size)
        return self.read_other(bar, offset, size) if value is None else value

    def write_bar(self, bar: int, offset: int, size: int, value: int) -> None:
        """See ``PciFunction``."""
        if not self.layout.write(self, bar, offset, size, value):
            self.write_other(bar, offset, size, value)

    def register_name(self, bar: int, offset: int) -> str:
        """See ``PciFunction``."""
        register = self.layout.at(bar, offset)
        return "" if register is None else register.name

    @property
    def power_state(self) -> int:
        """0 for D0, 3 for D3hot."""
        return self.config.get(self.__power_at + 4, 1) & _POWER_STATE

    def decoded(self) -> list[tuple[bool, int, int, int]]:
        """In D3hot nothing but configuration space answers."""
        return super().decoded() if self.power_state == _D0 else []

    def write_config(self, offset: int, size: int, value: int) -> None:
        """See ``PciFunction``."""
        before = self.power_state
        super().write_config(offset, size, value)
        if offset <= self.__advanced_at + 4 < offset + size and value >> 8 * (self.__advanced_at + 4 - offset) & _RESET:
            self.__reset_function()
        after = self.power_state
        if after not in (_D0, _D3):
            self.config.put(self.__power_at + 4, 1, before)
        elif before == _D3 and after == _D0:
            self.__reset_function()
        if before != after and self.board is not None:
            self.board.remap()

    def __reset_function(self) -> None:
        self.reset_config()
        self.lower_line()
        self.reset()

    # -- resets of the kernel -------------------------------------------------------------------------------------

    def capture(self) -> Any:
        """See ``PciFunction``."""
        state = own_state.take(self, self.__framework | self.kept_outside)
        return super().capture(), state, list(self.__waiting)

    def restore(self, state: Any) -> None:
        """See ``PciFunction``."""
        function, own, waiting = state
        super().restore(function)
        own_state.put_back(self, self.__framework | self.kept_outside, own)
        self.__waiting = list(waiting)
        for entry in self.__waiting:
            self.__set_alarm(entry)
