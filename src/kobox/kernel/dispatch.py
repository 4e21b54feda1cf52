"""Turns declared functions into traps of a booted image: patches their entries, decodes arguments, encodes results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from kobox.abi.declare import Declared, ExportTable
from kobox.errors import Errno
from kobox.kernel.guest import Guest
from kobox.machine import traps
from kobox.machine.machine import PROTECTION, RAX, RSP

_MARKS = (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00")
"""``endbr64``, and the no-op that the kernel puts over it where no pointer leads to the function (since 5.18)."""
_NOP5 = b"\x0f\x1f\x44\x00\x00"
_CALL, _PAD = 0xE8, 5
_STACK = 6
"""Where the mailbox has the stack pointer."""


class Dispatcher:
    """The adopted functions of one guest. ``hits`` counts calls by name, for the report."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.adopted: dict[str, Declared] = {}
        self.hits: Counter[str] = Counter()

    def adopt(self, tables: Iterable[ExportTable], patch: bool) -> None:
        """Make every declared function that this kernel has a trap; ``patch``: the image is fresh, not restored."""
        for table in tables:
            for declared in table:
                for name in (declared.name, *declared.also):
                    if self._guest.has(name):
                        self._adopt(name, declared, patch)

    def _adopt(self, name: str, declared: Declared, patch: bool) -> None:
        stub = self._guest.machine.area.stub(name, self._handler(name, declared))
        self.adopted[name] = declared
        if patch:
            entry = body_of(self._guest, self._guest.symbol(name))
            self._guest.machine.patch(entry, traps.jump(entry, stub))

    def _handler(self, name: str, declared: Declared) -> Callable[[], None]:
        guest, hits = self._guest, self.hits
        area, cpu = guest.machine.area, guest.machine.cpu
        decoders = [ctype.decode for _, ctype in declared.parameters]
        function, encode, returns = declared.function, declared.encode, declared.returns

        def handle() -> None:
            hits[name] += 1
            registers = area.arguments()
            if registers[_STACK] != cpu.read(RSP):
                # the stub's first instructions did not run: somebody jumped into its middle
                guest.machine.fault_here(PROTECTION)
                return
            arguments = [decode(raw) for decode, raw in zip(decoders, registers, strict=False)]
            try:
                result = function(guest, *arguments)
            except Errno as refusal:
                if returns is None:
                    raise
                result = -refusal.number
            value = encode(result)
            if value is not None:
                cpu.write(RAX, value)

        return handle


def body_of(guest: Guest, address: int) -> int:
    """Where a function starts behind what tracing owns: its landing mark and the call or no-op of ``__fentry__``."""
    head = guest.read(address, 4 + _PAD)
    skip = 4 if head.startswith(_MARKS) else 0
    pad = head[skip : skip + _PAD]
    fentry = guest.symbols.get("__fentry__")
    if pad == _NOP5:
        return address + skip + _PAD
    if pad[0] == _CALL and fentry is not None:
        target = address + skip + _PAD + int.from_bytes(pad[1:5], "little", signed=True)
        if target == fentry:
            return address + skip + _PAD
    return address + skip
