"""Who asks the kernel for a module: a probe on the kernel's own trace point ``module:module_request``.

It is put there when a kernel boots and costs nothing until a module is asked for. The helper program that the kernel
starts afterwards runs in a task of its own that knows nothing of this.
"""

from __future__ import annotations

from kobox.kernel.guest import Guest
from kobox.kernel.modules import module_at
from kobox.kernel.records import Asker

_TRACE_POINT, _REGISTER = "__tracepoint_module_request", "tracepoint_probe_register"
_MOST = 64
"""Requests that no program followed; what is older is forgotten."""


class Askers:
    """Requests on their way to a helper program, by the name that was asked for."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._waiting: dict[str, list[Asker]] = {}
        self._probe = guest.machine.area.stub("module_request", self._on_request)

    def watch(self) -> None:
        """Put the probe in place, in a kernel that has booted and is about to be kept. A kernel without trace points
        does not tell."""
        if self._guest.has(_TRACE_POINT) and self._guest.has(_REGISTER):
            self._guest.call(_REGISTER, self._guest.symbol(_TRACE_POINT), self._probe, 0)

    def forget(self) -> None:
        self._waiting.clear()

    def take(self, name: str) -> Asker | None:
        """Who asked for ``name``, the first of several; None when nobody is known to."""
        waiting = self._waiting.get(name, [])
        asker = waiting.pop(0) if waiting else None
        if not waiting:
            self._waiting.pop(name, None)
        return asker

    def _on_request(self) -> None:
        """``probe(data, name, wait, ip)``, in the task that asks."""
        guest = self._guest
        _, name, _, address, *_ = guest.machine.area.arguments()
        if len(self._waiting) >= _MOST:
            self._waiting.pop(next(iter(self._waiting)))
        text = guest.read_cstr(name).decode("utf-8", "surrogateescape")
        self._waiting.setdefault(text, []).append(self._present(address))

    def _present(self, address: int) -> Asker:
        guest = self._guest
        task = guest.view("task_struct", guest.current)
        found = guest.symbols.at(address) if guest.in_kernel_text(address) else None
        module = module_at(guest, address) if found is None else ""
        function = found.name if found is not None else f"[{module}]" if module else ""
        return Asker(task.text("comm"), task["pid"], function)
