"""Functions that kobox gives to modules which this kernel does not have: stubs whose handlers are Python.

A module binds a stub's address as it would bind an exported function. A handler may be a generator: it yields
``(function, argument, …)``, is sent the result, and its value is what the stub returns. All that it needs between two
steps is its frame on the guest's stack, so that calls may sleep, be interleaved, and never come back.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from kobox.abi.declare import Calls, Declared, ExportTable
from kobox.errors import GuestError
from kobox.kernel.guest import Guest
from kobox.kernel.stub_frame import ARGUMENTS, AT_ENTRY, AT_RETURN, FRAME, FRAME_BELOW, R11, RAX, RBP, RSP, STUB
from kobox.machine.machine import PROTECTION
from kobox.machine.traps import Trap

_MASK = (1 << 64) - 1
_REGISTER_ARGUMENTS = 6


class Natives:
    """The stubs of one guest. Handlers are called with ``context`` in front of their arguments.

    ``hits`` counts calls by name. ``frame`` is the address of the frame of the call that is served right now: below it
    lie the six argument registers in order, 16 bytes above it begins what was passed on the stack.
    """

    def __init__(self, guest: Guest, tables: Iterable[ExportTable], context: Any) -> None:
        self._guest, self._context = guest, context
        self.declared: dict[str, Declared] = {
            name: declared for table in tables for declared in table for name in (declared.name, *declared.also)
        }
        self.hits: Counter[str] = Counter()
        self.frame = 0
        self._stubs: dict[str, int] = {}
        self._flights: dict[int, tuple[Calls, Declared]] = {}
        self._stored = True

    def stub(self, name: str) -> int:
        """The address of a function, in the guest's memory from now on."""
        if not self._stored:
            self._stored = True
            for address in self._stubs.values():
                self._guest.write(address, STUB)
        known = self._stubs.get(name)
        if known is None:
            known = self._stubs[name] = self._guest.machine.area.code(STUB)
            traps = self._guest.machine.area.traps
            for offset, handler in ((AT_ENTRY, self._entering(name)), (AT_RETURN, self._on_return)):
                traps[known + offset] = Trap(name, handler, known + offset + 1)
        return known

    def name_of(self, address: int) -> str | None:
        """Which function lies at an address."""
        return next((name for name, at in self._stubs.items() if at == address), None)

    def forget(self) -> None:
        """The guest was reset: its memory may not hold the stubs, and no call is under way."""
        self._stored = False
        self._flights.clear()
        self.hits.clear()

    # -- calls in flight ------------------------------------------------------------------------------------------

    def _entering(self, name: str) -> Callable[[], None]:
        declared = self.declared[name]
        decoders = [ctype.decode for _, ctype in declared.parameters]
        is_generator = inspect.isgeneratorfunction(declared.function)

        def enter() -> None:
            self.hits[name] += 1
            base = self.frame = self._guest.machine.cpu.read(RBP)
            registers = FRAME.unpack(self._guest.read(base - FRAME_BELOW, FRAME.size))[:_REGISTER_ARGUMENTS]
            arguments = [decode(raw) for decode, raw in zip(decoders, registers, strict=False)]
            try:
                answer = declared.function(self._context, *arguments)
            except GuestError:
                self._guest.machine.fault_here(PROTECTION)  # a pointer of the module that leads nowhere
                return
            if is_generator:
                self._flights[base] = answer, declared
                self._step(base, None)
            else:
                self._return(declared, answer)

        return enter

    def _on_return(self) -> None:
        cpu = self._guest.machine.cpu
        base = cpu.read(RBP)
        if base not in self._flights:
            self._guest.machine.fault_here(PROTECTION)  # guest code jumped here of its own accord
            return
        self._step(base, cpu.read(RAX))

    def _step(self, base: int, result: int | None) -> None:
        machine = self._guest.machine
        steps, declared = self._flights[base]
        self.frame = base
        try:
            function, *arguments = steps.send(result) if result is not None else next(steps)
        except StopIteration as ended:
            del self._flights[base]
            self._return(declared, ended.value)
            return
        except GuestError:
            del self._flights[base]
            machine.fault_here(PROTECTION)
            return
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            machine.cpu.write(register, value & _MASK)
        machine.cpu.write(RSP, base - FRAME_BELOW)
        machine.cpu.write(RAX, 0)  # no vector registers, where the function takes variable arguments
        machine.cpu.write(R11, function)

    def _return(self, declared: Declared, answer: object) -> None:
        value = declared.encode(answer)
        self._guest.machine.cpu.write(R11, 0)
        if value is not None:
            self._guest.machine.cpu.write(RAX, value)
