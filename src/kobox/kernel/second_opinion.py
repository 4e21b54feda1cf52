"""The image's own ``load_module``, for differential tests: never what a user gets unless asked for by name."""

from __future__ import annotations

from kobox.kernel.env import Result
from kobox.kernel.guest import signed64
from kobox.kernel.subsystem import Operation
from kobox.kernel.syscalls import O_RDONLY, Syscalls

_SYS_CREATE = 0o101


class KernelLoader:
    """Loads and unloads by system calls of the guest."""

    def __init__(self, syscalls: Syscalls) -> None:
        self._sys = syscalls

    def start_load(self, data: bytes, parameters: str, flags: int) -> Operation:
        """``init_module``, or ``finit_module`` of a temporary file where there are flags."""
        return Operation(self._load(data, parameters, flags))

    def unload(self, name: str, flags: int) -> Operation:
        return Operation(self._unload(name, flags))

    def _load(self, data: bytes, parameters: str, flags: int) -> Result:
        window = self._sys.window
        window.clear()
        text = window.text(parameters)
        if not flags:
            return signed64((yield self._sys.prepare("init_module", window.put(data), len(data), text)))
        path = window.text("/module.ko")
        descriptor = signed64((yield self._sys.prepare("open", path, _SYS_CREATE, 0o600)))
        yield self._sys.prepare("write", descriptor, window.put(data), len(data))
        yield self._sys.prepare("close", descriptor)
        descriptor = signed64((yield self._sys.prepare("open", path, O_RDONLY, 0)))
        result = signed64((yield self._sys.prepare("finit_module", descriptor, text, flags)))
        yield self._sys.prepare("close", descriptor)
        yield self._sys.prepare("unlink", path)
        return result

    def _unload(self, name: str, flags: int) -> Result:
        self._sys.window.clear()
        return signed64((yield self._sys.prepare("delete_module", self._sys.window.text(name), flags)))
