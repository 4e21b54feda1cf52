"""A booted kernel kept: in the cache, for the next process, and in memory, for the next test.

All state of tasks lies in guest memory, so a snapshot is the memory, the CPU's registers and a few plain numbers that
Python owns (clock, interrupt controllers, workers). Restoring maps the memory privately and parses one small file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from kobox import __version__
from kobox.bringup.start import Booted, BootOptions, Progress, assemble, boot, install_sites
from kobox.errors import UsageError
from kobox.image import Cache, Image
from kobox.kapi.tables import IMAGE_TABLES
from kobox.kernel.guest import Guest
from kobox.kernel.log import LogRecord
from kobox.kernel.tasks import TaskState
from kobox.machine import cpu_state
from kobox.machine.machine import Clock
from kobox.machine.memory import PAGE_SIZE
from kobox.machine.pc import PcState
from kobox.machine.pci_bus import BusState

KIND = "boot"
_MEMORY, _STATE, _LOG, _BOOT = "memory", "state.json", "log.json", "boot.json"


def boot_cached(image: Image, options: BootOptions, cache: Cache, progress: Progress = lambda text: None) -> Booted:
    """The kernel at rest after its boot: from the cache, or booted now and then kept there."""
    key = snapshot_key(image, options)
    entry = cache.entry(KIND, key)
    if entry is None:

        def fill(folder: Path) -> dict[str, Any]:
            start = time.monotonic()
            booted = boot(image, options, progress)
            progress("keeping a snapshot")
            try:
                write(booted, folder)
                return {"image": image.key, "seconds": round(time.monotonic() - start, 3)}
            finally:
                booted.guest.machine.close()

        entry = cache.build(KIND, key, fill)
    return restore(image, options, entry.path)


def snapshot_key(image: Image, options: BootOptions) -> str:
    """Everything a snapshot depends on: image, options, and kobox's own code that takes part in a boot."""
    facts = json.dumps([*options, _code_digest()])
    return f"{image.key}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


_BOOTING_CODE = (
    "bringup", "kapi", "machine", "kernel/guest.py", "kernel/tasks.py", "kernel/syscall_frame.py",
    "kernel/programs.py", "kernel/helpers.py", "kernel/askers.py", "kernel/dispatch.py",
)  # fmt: skip


def _code_digest() -> str:
    """Changes with the version and, in a source checkout, with any file that takes part in a boot."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(__version__.encode())
    for part in _BOOTING_CODE:
        place = root / part
        for file in sorted(place.glob("*.py")) if place.is_dir() else (place,):
            status = file.stat()
            digest.update(f"{file.name}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()


def write(booted: Booted, folder: Path) -> None:
    """Store a resting kernel in ``folder``."""
    check_at_rest(booted)
    guest = booted.guest
    machine = guest.machine
    fd = os.open(folder / _MEMORY, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, machine.memory.size)
        machine.memory.save(fd)
    finally:
        os.close(fd)
    pc, tasks = guest.pc.state, guest.tasks.state
    state = {
        "cpu": cpu_state.save(machine.cpu),
        "now": machine.clock.now,
        "deadline": machine.clock.deadline,
        "pending": machine.pending,
        "root": machine.pages.root,
        "epoch": guest.pc.epoch,
        "pc": [pc.msrs, pc.apic, pc.ioapic, pc.ioapic_index, pc.cmos_index, pc.ports, pc.noise],
        "pci": guest.pc.pci.save(),
        "tasks": dataclasses.asdict(tasks),
        "sites": booted.sites,
        "log": booted.log.position(),
    }
    (folder / _STATE).write_text(json.dumps(state))
    (folder / _LOG).write_text(json.dumps([_log_row(record) for record in booted.log.records]))
    (folder / _BOOT).write_text(json.dumps(whole_report(booted.report)))


def check_at_rest(booted: Booted) -> None:
    """``UsageError`` while the kernel's helpers are at work: what they do next is not in the guest's memory."""
    if programs := booted.guest.helpers.programs.in_flight():
        names = ", ".join(sorted({program.comm for program in programs}))
        raise UsageError(f"the state cannot be kept while {names} is at work", hint="sleep() until it is done")


def restore(image: Image, options: BootOptions, folder: Path) -> Booted:
    """A kernel as ``write`` left it."""
    booted = assemble(image, options)
    guest = booted.guest
    machine = guest.machine
    state = json.loads((folder / _STATE).read_bytes())
    machine.memory.use_file(folder / _MEMORY)
    booted.sites = [(address, length, kind) for address, length, kind in state["sites"]]
    install_sites(booted, patch=False)
    booted.dispatcher.adopt(IMAGE_TABLES, patch=False)
    machine.pages.root = state["root"]
    machine.pages.lasting = lasting_ranges(guest)
    machine.clock.now, machine.clock.deadline = state["now"], state["deadline"]
    machine.pending = list(state["pending"])
    guest.pc.epoch = state["epoch"]
    msrs, apic, ioapic, ioapic_index, cmos_index, ports, noise = state["pc"]
    guest.pc.state = PcState(
        _int_keys(msrs), _int_keys(apic), _int_keys(ioapic), ioapic_index, cmos_index, _int_keys(ports), noise
    )
    guest.pc.pci.load(state["pci"])
    guest.tasks.state = TaskState(**state["tasks"])
    booted.log.restore(state["log"], lambda: _read_log(folder / _LOG))
    booted.report = _LazyReport(folder / _BOOT)
    cpu_state.load(machine.cpu, state["cpu"])
    return booted


def lasting_ranges(guest: Guest) -> list[tuple[int, int]]:
    """Where a booted kernel's mappings do not change: its own image, and the array of page structures."""
    image = guest.image
    start = image.layout.virt_base + image.layout.phys_base
    page_array = guest.read_uint(guest.symbol("vmemmap_base"))
    pages = guest.machine.ram_size // PAGE_SIZE
    return [
        (start, start + image.layout.flat_size),
        (page_array, page_array + pages * guest.layouts.size("page")),
    ]


class _LazyReport(dict[str, Any]):
    """The boot's report, read from its file when somebody looks."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def whole(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self._path.read_text())
        return report | self

    def __missing__(self, key: str) -> Any:
        self.update(json.loads(self._path.read_text()))
        if key not in self.keys():
            raise KeyError(key)
        return self[key]


def whole_report(report: dict[str, Any]) -> dict[str, Any]:
    """A boot's report with everything in it."""
    return report.whole() if isinstance(report, _LazyReport) else report


class Pristine(NamedTuple):
    """A resting kernel to which this process can go back, again and again."""

    booted: Booted
    context: object
    clock: tuple[int, int | None]
    pending: list[int]
    pc: PcState
    pci: BusState
    tasks: TaskState
    log_position: tuple[int, int]
    root: int
    helper_calls: int

    @classmethod
    def capture(cls, booted: Booted) -> Pristine:
        """Remember the present state. The memory must already stand on a snapshot (``use_file`` or ``freeze``)."""
        guest = booted.guest
        machine = guest.machine
        # translations go with the notes of them: code that ran until now may be replaced after this, and only what is
        # fetched anew is noted
        machine.forget_changed_code()
        machine.cpu.forget_pages()
        machine.pages.forget_lasting()
        return cls(
            booted,
            machine.cpu.save_context(),
            (machine.clock.now, machine.clock.deadline),
            list(machine.pending),
            guest.pc.state.copy(),
            guest.pc.pci.capture(),
            guest.tasks.state.copy(),
            booted.log.position(),
            machine.pages.root,
            len(guest.helpers.calls),
        )

    def reset(self) -> None:
        """Back to the captured state: memory mapped again, registers put back, changed code forgotten."""
        guest = self.booted.guest
        machine = guest.machine
        machine.forget_changed_code()
        machine.forget_device_work()
        machine.memory.reset()
        machine.cpu.restore_context(self.context)
        machine.cpu.forget_pages()
        machine.pages.root = self.root
        machine.pages.forget_grants()
        machine.clock = Clock(*self.clock)
        machine.pending = list(self.pending)
        machine.idle = False
        guest.pc.state = self.pc.copy()
        guest.pc.pci.restore(self.pci)
        guest.tasks.reset(self.tasks.copy())
        guest.helpers.forget(self.helper_calls)
        self.booted.log.rewind(self.log_position)
        self.booted.dispatcher.hits.clear()


def _int_keys(table: dict[str, int]) -> dict[int, int]:
    return {int(key): value for key, value in table.items()}


def _log_row(record: LogRecord) -> list[Any]:
    return [
        record.sequence, record.time, record.level, record.text, record.facility, record.caller, record.continued,
    ]  # fmt: skip


def _read_log(path: Path) -> list[LogRecord]:
    return [LogRecord(*row) for row in json.loads(path.read_text())]
