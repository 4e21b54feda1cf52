"""A kernel in the middle of its life kept on disk: a snapshot, and all that loaded modules have added to Python's side.

That is: traps in the modules' code, the memory checker with its stubs, lines that the loader says once, how much of
kobox's pages is taken. What sleeps in the guest (tasks, timers, work) is memory and needs nothing. What cannot be kept
is refused by name: traps of somebody who watches (a tracer), calls that sleep inside the memory checker.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from kobox import __version__
from kobox.bringup import snapshot
from kobox.bringup.start import Booted, BootOptions
from kobox.errors import KoboxError, UsageError
from kobox.image import Image
from kobox.kernel import heapcheck_saved
from kobox.kernel.heapcheck_gate import HeapGate
from kobox.kernel.loader import Loader
from kobox.kernel.tasks import JobTimeout

_LIFE = "life.json"
_WAIT_NS, _WAITS = 20_000_000, 50
"""Virtual time in which calls that sleep inside the memory checker may end."""


class Kept(NamedTuple):
    """What the front door keeps of its own."""

    comm: str
    loader: str
    log_start: int
    own_traps: frozenset[int]
    """The traps that a kernel has right after its boot."""


def key_of(image: Image, options: BootOptions) -> str:
    """What a saved kernel fits: the image, how it was booted, and the code whose addresses and records are in it."""
    digest = hashlib.sha256(json.dumps([__version__, *options]).encode())
    root = Path(__file__).resolve().parent.parent
    for folder in ("bringup", "kapi", "machine", "kernel", "link"):
        for file in sorted((root / folder).glob("*.py")):
            digest.update(file.read_bytes())
    return f"{image.key}-{digest.hexdigest()[:16]}"


def save(booted: Booted, options: BootOptions, loader: Loader, heap: HeapGate, kept: Kept, folder: Path) -> None:
    """Store a kernel at rest in the empty ``folder``, and have it on disk when this returns."""
    if booted.guest.pc.pci.plugged():
        raise UsageError("the kernel cannot be kept while devices are plugged in", "unplug them first")
    _settle(booted, heap)
    own = {address for address, _, _ in booted.sites}
    modules = _module_sites(booted, own)
    _refuse_what_watches(booted, heap, kept.own_traps, {address + 1 for address, _, _ in modules})
    sites, booted.sites = booted.sites, [*booted.sites, *modules]
    try:
        snapshot.write(booted, folder)
    finally:
        booted.sites = sites
    tasks = booted.guest.tasks
    life = {
        "options": list(options),
        "comm": kept.comm,
        "loader": kept.loader,
        "log_start": kept.log_start,
        "said_once": sorted(loader.said_once),
        "dead": tasks.dead,
        "virtual_limit_ns": tasks.virtual_limit_ns,
        "next_code": booted.guest.machine.area.next_code,
        "heap": heapcheck_saved.save(heap, lambda name, content: _store(folder / name, content)),
    }
    _store(folder / _LIFE, json.dumps(life).encode())
    for file in folder.iterdir():
        _flush(file)
    _flush(folder)


class Life(NamedTuple):
    """What ``read`` found: how the kernel was booted, and the rest as ``resume`` takes it."""

    options: BootOptions
    facts: dict[str, Any]


def read(folder: Path) -> Life:
    """What a saved kernel needs to be assembled."""
    facts = json.loads((folder / _LIFE).read_bytes())
    return Life(BootOptions(*facts["options"]), facts)


def restore(image: Image, life: Life, folder: Path) -> Booted:
    """The machine and the guest as they were; the modules' part follows with ``resume``. The folder may go then."""
    booted = snapshot.restore(image, life.options, folder)
    booted.log.load_all()
    booted.report = snapshot.whole_report(booted.report)
    tasks = booted.guest.tasks
    tasks.dead, tasks.virtual_limit_ns = life.facts["dead"], life.facts["virtual_limit_ns"]
    return booted


def resume(booted: Booted, life: Life, loader: Loader, heap: HeapGate, folder: Path) -> None:
    """Take up what modules have added."""
    booted.guest.machine.area.resume(life.facts["next_code"])
    loader.forget(frozenset(life.facts["said_once"]))

    def load(name: str) -> bytes:
        return (folder / name).read_bytes()

    heapcheck_saved.resume(heap, life.facts["heap"], load, loader.rules)


def _settle(booted: Booted, heap: HeapGate) -> None:
    """Nothing must be under way that lives in Python."""
    tasks = booted.guest.tasks
    waits = 0
    while heap.check is not None and heap.check.calls_in_flight and not tasks.dead:
        if waits == _WAITS:
            raise KoboxError(
                f"{heap.check.calls_in_flight} calls of a module sleep in the kernel's allocator", "try again later"
            )
        try:
            tasks.sleep(_WAIT_NS)
        except JobTimeout as error:
            raise KoboxError("the kernel does not come to rest", "try again later") from error
        waits += 1
    if tasks.jobs and not tasks.dead:
        raise UsageError("a load or a call is under way: the kernel cannot be kept now")


def _module_sites(booted: Booted, known: set[int]) -> list[tuple[int, int, str]]:
    """(address, length, kind) of each instruction in modules that is a trap."""
    area = booted.guest.machine.area
    return [
        (behind - 1, trap.resume - (behind - 1), trap.name)
        for behind, trap in area.traps.items()
        if not area.mailbox_addr <= behind < area.end and behind - 1 not in known
    ]


def _refuse_what_watches(booted: Booted, heap: HeapGate, own: frozenset[int], sites: set[int]) -> None:
    checker = set() if heap.check is None else heap.check.trap_addresses()
    traps = booted.guest.machine.area.traps
    others = {traps[behind].name for behind in traps.keys() - own - sites - checker}
    if others:
        shown = ", ".join(sorted(others)[:3]) + (" …" if len(others) > 3 else "")
        raise UsageError(f"the kernel cannot be kept while it is watched: {shown}", "switch tracing off first")


def _store(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
