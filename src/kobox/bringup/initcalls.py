"""What the kernel's initcalls returned: watched while it boots, and nothing of the watching stays behind.

The entry of ``do_one_initcall`` leads through a trap that puts another trap in the place of the return address.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from kobox.errors import NotModelled
from kobox.kernel.dispatch import body_of
from kobox.kernel.guest import Guest
from kobox.kernel.heapcheck_guard import displaced
from kobox.machine import traps
from kobox.machine.machine import RAX, RIP

_STACK = 6


class InitcallWatch:
    """Notes (function, result) of every initcall between ``install`` and ``remove``."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._open: list[tuple[int, int]] = []
        self._found: list[tuple[int, int]] = []
        self._entry = 0
        self._before = b""

    def install(self) -> None:
        """Must come before the first instruction; the kernel's text is patched only until ``remove``."""
        guest, area = self._guest, self._guest.machine.area
        begins = area.stub("boot: initcall begins", self._on_begin)
        self._after = area.bare_stub("boot: initcall ended", self._on_end)
        self._entry = body_of(guest, guest.symbol("do_one_initcall"))
        place = area.next_code
        try:
            moved = displaced(guest, "do_one_initcall", self._entry, place + _CALL_SIZE)
        except NotModelled:
            self._entry = 0  # results stay unknown, and the report says so
            return
        assert area.code(traps.call(place, begins) + moved) == place
        self._before = guest.read(self._entry, _CALL_SIZE)
        guest.machine.patch(self._entry, traps.jump(self._entry, place))

    def remove(self) -> None:
        if self._entry:
            self._guest.machine.patch(self._entry, self._before)

    def report(self) -> dict[str, Any]:
        """``results`` and ``initcalls`` as ``kobox kernel show`` reads them."""
        image = self._guest.image
        levels = {initcall.address: initcall.level for initcall in image.initcalls()}
        rows = []
        for function, result in self._found:
            symbol = image.symbols.at(function)
            name = symbol.name if symbol is not None else hex(function)
            rows.append({"name": name, "level": levels.get(function, ""), "result": result, "why": ""})
        counts = Counter("ok" if row["result"] == 0 else "error" for row in rows)
        # one that began and never ended is the one that faulted
        return {
            "results": {"ok": counts["ok"], "error": counts["error"], "fault": len(self._open), "skipped": 0},
            "initcalls": rows,
        }

    def _on_begin(self) -> None:
        area = self._guest.machine.area
        function, stack = (values := area.arguments())[0], values[_STACK]
        # the call of the stub pushed its own return address; the initcall's lies behind it
        self._open.append((function, self._guest.read_uint(stack + 8)))
        self._guest.write_uint(stack + 8, self._after)

    def _on_end(self) -> None:
        cpu = self._guest.machine.cpu
        function, back = self._open.pop()
        result = cpu.read(RAX) & 0xFFFF_FFFF
        self._found.append((function, result - (1 << 32) if result >> 31 else result))
        cpu.write(RIP, back)


_CALL_SIZE = 5
