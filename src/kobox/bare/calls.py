"""Guest calls on the bare kernel: stubs that hand over to Python, and Python calling guest code, in one loop.

A handler that needs guest code is a generator that yields ``(function, argument, …)``; its frame waits on a list while
the call runs on the caller's stack, so that the machine is never entered twice.
"""

from __future__ import annotations

import inspect
import struct
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kobox.abi.declare import Declared
from kobox.errors import Errno, GuestError
from kobox.machine.machine import RAX, Machine

if TYPE_CHECKING:
    from kobox.bare.guest import BareGuest

_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_MASK = (1 << 64) - 1
_RED_ZONE = 256
_FLAGS = 0x202
RETURN_NAME = "kobox_call"
Steps = Generator[tuple[int, ...], int, Any]


@dataclass(slots=True)
class _Frame:
    """A handler in the middle of its work: the registers to go on with, and how to finish."""

    registers: dict[str, int]
    steps: Steps
    declared: Declared


class Calls:
    """``run`` calls guest code from Python; ``stub`` makes Python callable from guest code."""

    def __init__(self, guest: BareGuest, machine: Machine, stack_top: int) -> None:
        self._guest, self._machine, self._top = guest, machine, stack_top
        self._frames: list[_Frame | None] = []
        self._result = 0
        self.returns_to = machine.area.bare_stub(RETURN_NAME, self._on_return)
        self.hits: Counter[str] = Counter()
        self.last: tuple[int, ...] = (0,) * 7
        """Argument registers and stack pointer of the call that trapped last."""
        self.declared: dict[str, Declared] = {}

    @property
    def busy(self) -> bool:
        """Whether guest code is running, and Python was called from it."""
        return bool(self._frames)

    def run(self, function: int, *arguments: int) -> int:
        """Call guest code; returns the 64-bit result. ``GuestError`` when it did not return."""
        if self._frames:
            raise GuestError("guest code can be called only while the guest rests")
        self._frames.append(None)
        self._enter((function, *arguments), self._top, {"rflags": _FLAGS, "rbp": 0})
        try:
            self._machine.run(lambda: not self._frames)
        finally:
            self._frames.clear()
        return self._result

    def drive(self, steps: Steps) -> Any:
        """Run a generator of guest calls from outside the guest; its value."""
        value = None
        while True:
            try:
                call = steps.send(value)  # type: ignore[arg-type]  # a fresh generator takes None
            except StopIteration as ended:
                return ended.value
            value = self.run(*call)

    def stub(self, name: str, declared: Declared) -> int:
        """The address at which guest code finds a declared function."""
        area, hits, guest = self._machine.area, self.hits, self._guest
        decoders = [ctype.decode for _, ctype in declared.parameters]
        function = declared.function
        waits = inspect.isgeneratorfunction(function)
        self.declared[name] = declared

        def handle() -> None:
            hits[name] += 1
            self.last = area.arguments()
            arguments = [decode(raw) for decode, raw in zip(decoders, self.last, strict=False)]
            if waits:
                self._advance(_Frame(self._machine.registers(), function(guest, *arguments), declared), None)
            else:
                self._answer(declared, self._result_of(declared, function, arguments))

        return area.stub(name, handle)

    def special(self, name: str, handler: Callable[[BareGuest], None]) -> int:
        """The address of a function whose handler deals with registers itself."""
        return self._machine.area.bare_stub(name, lambda: handler(self._guest))

    def _result_of(self, declared: Declared, function: Callable[..., object], arguments: list[int]) -> object:
        try:
            return function(self._guest, *arguments)
        except Errno as refusal:
            if declared.returns is None:
                raise
            return -refusal.number

    def _answer(self, declared: Declared, result: object) -> None:
        value = declared.encode(result)
        if value is not None:
            self._machine.cpu.write(RAX, value)

    def _advance(self, frame: _Frame, value: int | None) -> None:
        try:
            call = frame.steps.send(value)  # type: ignore[arg-type]  # a fresh generator takes None
        except StopIteration as ended:
            self._machine.set_registers(frame.registers)
            self._answer(frame.declared, ended.value)
        except Errno as refusal:
            self._machine.set_registers(frame.registers)
            self._answer(frame.declared, -refusal.number)
        else:
            self._frames.append(frame)
            self._enter(call, frame.registers["rsp"] - _RED_ZONE, {})

    def _enter(self, call: tuple[int, ...], stack: int, more: dict[str, int]) -> None:
        function, *arguments = call
        rsp = (stack & ~15) - 8
        self._guest.write(rsp, struct.pack("<Q", self.returns_to))
        values = dict(zip(_ARGUMENTS, (a & _MASK for a in arguments), strict=False))
        self._machine.set_registers(values | more | {"rsp": rsp, "rip": function, "rax": 0})

    def _on_return(self) -> None:
        frame, self._result = self._frames.pop(), self._machine.cpu.read(RAX)
        if frame is not None:
            self._advance(frame, self._result)

    def variadic(self, named: int) -> Iterator[int]:
        """The unnamed arguments of the call that just trapped: registers, then the stack."""
        *registers, rsp = self.last
        yield from registers[named:]
        while True:
            rsp += 8
            yield self._guest.read_uint(rsp)
