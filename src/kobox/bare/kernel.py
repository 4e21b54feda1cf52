"""The bare kernel's front: what ``kobox.boot(image="bare")`` gives, with the face of a kernel that runs an image."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from errno import ENOSYS
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.abi.declare import Fidelity
from kobox.bare.crash import CrashHandler
from kobox.bare.files import BareFiles
from kobox.bare.guest import BareGuest
from kobox.bare.heap import BareHeap
from kobox.bare.modules import ModuleList, Operation
from kobox.errors import Errno, UsageError
from kobox.kernel.face import KernelFace
from kobox.kernel.log import LogRecord
from kobox.kernel.records import Autoload
from kobox.kernel.tasks import KernelDead, TaskDied

if TYPE_CHECKING:
    from kobox.kernel.coverage import CodeCoverage

_LIMIT_SECONDS = 10.0
_FASTER = 500_000_000
_SYSLOG_CLEAR = 5


class BareKernel(KernelFace):
    """A kernel at rest. It runs only inside the calls below; virtual time passes only then."""

    loader = "kobox"
    guest: BareGuest
    files: BareFiles

    def __init__(self, comm: str = "insmod") -> None:
        self._comm = comm
        self._coverage: CodeCoverage | None = None
        self._start()

    def _start(self) -> None:
        self.guest = BareGuest(self._comm)
        self.guest.modules = ModuleList(self.guest)
        if self._coverage is not None:
            self._coverage.use(self.guest.machine.cpu)
            self.guest.modules.coverage = self._coverage
        self.crashes = CrashHandler(self.guest)
        self.files = BareFiles(self.guest)
        self.last_load: Operation | None = None
        self._marked = False
        self._interrupted = False
        self._cleared = 0
        self._started = 0.0
        self.guest.machine.on_slice = self._on_slice

    def _on_slice(self) -> None:
        self.guest.clock.show()
        lasted = time.monotonic() - self._started
        if self._interrupted:
            self._interrupted = False
            self.crashes.runaway(lasted)
            return
        if lasted > _LIMIT_SECONDS / 4:
            self.guest.machine.slice_ns = _FASTER
        if lasted > _LIMIT_SECONDS:
            self.crashes.runaway(lasted)

    @property
    def autoloaded(self) -> list[Autoload]:
        """The bare kernel asks for no modules."""
        return []

    def use_root(self, root: str | os.PathLike[str]) -> None:
        """As for an image; the bare kernel never asks, and takes no notice."""

    def coldplug(self) -> None:
        raise UsageError("the bare kernel has no devices that could bring modules", hint="boot an image")

    # -- life -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self.guest.machine.close()

    def checkpoint(self) -> None:
        raise UsageError("the bare kernel has no checkpoints", hint="reset() starts it anew, in milliseconds")

    def mark_pristine(self) -> None:
        """A bare kernel is always ready to be reset."""

    def reset(self) -> None:
        """Start anew."""
        if self._coverage is not None:
            self._coverage.restore(())
        self.close()
        self._start()

    def rewind(self) -> bool:
        """The same: there is no other state to go back to."""
        self.reset()
        return True

    def adopted_hit(self) -> dict[str, str]:
        """Functions of this kernel that were called since it started, each with its declared fidelity."""
        calls = self.guest.calls
        return {name: calls.declared[name].fidelity.value for name in sorted(calls.hits)}

    @property
    def release(self) -> str:
        return f"bare ({self.guest.data.release})"

    @property
    def now(self) -> float:
        return self.guest.machine.clock.now / 1e9

    def sleep(self, seconds: float) -> None:
        self._ready()
        self.guest.calls.drive(self.guest.clock.pass_time(int(seconds * 1e9)))

    def _ready(self) -> None:
        if self.guest.dead:
            raise KernelDead(f"the kernel has stopped: {self.guest.dead}", hint="reset() it, or boot anew")
        self._started = time.monotonic()

    def interrupt(self, wanted: bool = True) -> None:
        """Nothing sleeps for long here; code that runs on is stopped at the next look at it."""
        self._interrupted = wanted

    def set_timeout(self, seconds: float) -> None:
        """How much virtual time one call into the kernel may take."""
        self.guest.clock.limit_ns = int(seconds * 1e9)

    @property
    def cpu_name(self) -> str:
        return "qemu64"

    @property
    def modules_folder(self) -> Path | None:
        return None

    def stubs_hit(self) -> tuple[str, ...]:
        calls = self.guest.calls
        return tuple(name for name in calls.hits if calls.declared[name].fidelity is Fidelity.STUB)

    @property
    def heap(self) -> BareHeap:
        """What modules allocate."""
        return self.guest.heap

    def leaks(self) -> tuple[dict[str, Any], ...]:
        """Allocations of unloaded modules that nobody has freed to this moment, with the traces that made them."""
        return self.guest.heap.leaks({module.name for module in self.guest.modules.loaded})

    def memory_reports(self) -> tuple[dict[str, Any], ...]:
        """What modules did to memory: overruns, writes after free, double and invalid frees."""
        self.guest.heap.check_all()
        return tuple(self.guest.heap.reports)

    def record_coverage(self) -> CodeCoverage:
        """Note from now on which code of the modules runs that are loaded from now on; ``take`` gives it."""
        from kobox.kernel.coverage import CodeCoverage

        if self._coverage is None:
            self._coverage = self.guest.modules.coverage = CodeCoverage(self.guest.machine.cpu)
        return self._coverage

    def explain_last_load(self) -> str:
        return self.last_load.reason if self.last_load is not None else ""

    # -- modules --------------------------------------------------------------------------------------------------

    def start_load(self, data: bytes, parameters: str = "", flags: int = 0) -> Operation:
        return Operation(data, parameters.encode("utf-8", "surrogateescape"), flags)

    def finish_load(self, operation: Operation) -> int:
        self._ready()
        self.last_load = operation
        self.guest.modules.load(operation)
        if operation.died:
            raise TaskDied(operation.reason)
        return operation.result

    def delete_module(self, name: str, flags: int) -> int:
        self._ready()
        return self.guest.modules.unload(name, flags)

    # -- what a user sees -----------------------------------------------------------------------------------------

    def dmesg(self, *, boot: bool = False) -> list[LogRecord]:
        return list(self.guest.log.records)

    def syslog(self, action: int, value: int = 0) -> int:
        """``syslog(2)`` without a buffer: clear the log (5). There is no console here to set a level of."""
        if action != _SYSLOG_CLEAR:
            raise Errno(ENOSYS, "the bare kernel has no console")
        self._cleared = len(self.guest.log.records)
        return 0

    def log_start(self) -> int:
        """Sequence number of the first record that was not cleared; of the next one where there is none."""
        return self._cleared

    def follow_log(self) -> Callable[[bool], list[LogRecord]]:
        """A function that gives what is new since it was called last."""
        log, seen = self.guest.log, len(self.guest.log.records)

        def new(_at_rest: bool) -> list[LogRecord]:
            nonlocal seen
            records = log.records[seen:]
            seen += len(records)
            return records

        return new

    @property
    def dead(self) -> str:
        """Why the kernel has stopped for good; empty while it lives."""
        return self.guest.dead

    @property
    def tainted(self) -> int:
        return self.guest.tainted

    def call(self, function: str | int, *arguments: int) -> int:
        """Call guest code: what a module exports, any of its symbols, or an address. Returns the 64-bit result."""
        self._ready()
        if isinstance(function, str):
            function = self._symbol(function)
        result = self.guest.call(function, *arguments)
        self.guest.settle()
        return result

    def _symbol(self, name: str) -> int:
        for module in self.guest.modules.loaded:
            export = module.export(name)
            if export is not None:
                return export.value
            found = (
                next((address for known, address in module.code.names() if known == name), None)
                if module.code
                else None
            )
            if found is not None:
                return found
        address = self.guest.symbols.get(name)
        if address is None:
            raise UsageError(f"no symbol {name!r} in the kernel or its modules")
        return address
