"""What a kernel shows of itself, by kind: file systems, device numbers, drivers, algorithms, classes … Two inventories
tell what a module registered and what it left behind.

Only what files show is seen: expressions, codecs and other tables without a file leave no trace here. Names of kinds
are those of the recorded sweep of a real machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from kobox.errors import Errno
from kobox.sweep.kernfs import Folders, Kernfs, Seen

Difference = dict[str, tuple[str, ...]]

_KTHREAD, _WORKER = 0x20_0000, 0x20  # PF_KTHREAD, PF_WQ_WORKER, include/linux/sched.h
_MOST_TASKS = 1 << 16


class Inventory(NamedTuple):
    """``entries``: names by kind. ``folders`` lets the next inventory skip directories that did not change."""

    entries: dict[str, frozenset[str]]
    folders: Seen


def take(kernel: Any, before: Inventory | None = None, kinds: Collection[str] | None = None) -> Inventory:
    """The present state of a kernel at rest. ``before``: an earlier one of the same life, to be quicker. ``kinds``:
    read files only for these; others are as ``before``."""
    folders = Kernfs.of(kernel).look(before.folders if before is not None else {})
    entries = dict(before.entries) if before is not None and kinds is not None else {}
    entries |= {kind: frozenset(read(kernel)) for kind, read in _FILES.items() if kinds is None or kind in kinds}
    entries |= {kind: frozenset(read(folders)) for kind, read in _SYSFS.items()}
    return Inventory(entries, folders.seen)


def added(before: Inventory, after: Inventory) -> Difference:
    """Names in ``after`` that ``before`` had not, sorted, by kind; kinds without any are left out."""
    found = ((kind, names - before.entries.get(kind, frozenset())) for kind, names in after.entries.items())
    return {kind: tuple(sorted(names)) for kind, names in found if names}


# -- files ------------------------------------------------------------------------------------------------------------


def _lines(kernel: Any, path: str) -> list[str]:
    """A file's lines; none where this kernel has no such file."""
    try:
        text: str = kernel.read(path).decode("utf-8", "surrogateescape")
    except Errno:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _names(kernel: Any, path: str) -> list[str]:
    try:
        return [entry.name for entry in kernel.ls(path)]
    except Errno:
        return []


def _column(path: str, number: int) -> Callable[[Any], Iterator[str]]:
    return lambda kernel: (line.split()[number] for line in _lines(kernel, path))


def _whole(path: str) -> Callable[[Any], Iterator[str]]:
    return lambda kernel: (line.strip() for line in _lines(kernel, path))


def _joined(path: str) -> Callable[[Any], Iterator[str]]:
    return lambda kernel: (" ".join(line.split()) for line in _lines(kernel, path))


def _folder(path: str) -> Callable[[Any], Iterable[str]]:
    return lambda kernel: _names(kernel, path)


def _device_numbers(heading: str) -> Callable[[Any], Iterator[str]]:
    """One of the two lists of ``/proc/devices``: ``major name``."""

    def read(kernel: Any) -> Iterator[str]:
        inside = False
        for line in _lines(kernel, "/proc/devices"):
            if line.endswith(":"):
                inside = line.startswith(heading)
            elif inside:
                yield " ".join(line.split())

    return read


def _algorithms(kernel: Any) -> Iterator[str]:
    name = ""
    for line in _lines(kernel, "/proc/crypto"):
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "name":
            name = value
        elif key == "driver":
            yield f"{name} {value}"


def _words(path: str) -> Callable[[Any], Iterator[str]]:
    return lambda kernel: (word for line in _lines(kernel, path) for word in line.split())


def _below(path: str) -> Callable[[Any], Iterator[str]]:
    """Names in a folder and, as ``folder/name``, in the folders directly below it."""

    def read(kernel: Any) -> Iterator[str]:
        try:
            entries = kernel.ls(path)
        except Errno:
            return
        for entry in entries:
            yield entry.name
            if entry.kind == "dir":
                yield from (f"{entry.name}/{name}" for name in _names(kernel, f"{path}/{entry.name}"))

    return read


def _threads(kernel: Any) -> Iterator[str]:
    """Kernel threads by name; those that the kernel makes and ends as it likes (kworker) are left out."""
    guest = kernel.guest
    if not getattr(guest, "layouts", None):
        return
    link = guest.layouts.offset("task_struct", "tasks")
    first = guest.symbol("init_task") + link
    entry = guest.read_uint(first)
    for _ in range(_MOST_TASKS):
        if entry == first:
            return
        task = guest.view("task_struct", entry - link)
        if task["flags"] & _KTHREAD and not task.text("comm").startswith("kworker/"):
            yield _thread_name(guest, task)
        entry = guest.read_uint(entry)


def _thread_name(guest: Any, task: Any) -> str:
    """As ``/proc/PID/comm`` shows it: longer than a task's own field where the kernel keeps the whole, but for those of
    workqueues."""
    if task["flags"] & _WORKER:
        return str(task.text("comm"))
    if guest.layouts.has("kthread", "full_name") and guest.layouts.has("task_struct", "worker_private"):
        whole = guest.view("kthread", task["worker_private"])["full_name"]
        if whole:
            return str(guest.read_cstr(whole).decode("utf-8", "surrogateescape"))
    return str(task.text("comm"))


CHEAP = frozenset({"kthread", "chrdev", "misc"})
"""Kinds that are looked at after an unload even where the load did not change them; all of sysfs is."""

_FILES: dict[str, Callable[[Any], Iterable[str]]] = {
    "filesystems": _column("/proc/filesystems", -1),
    "chrdev": _device_numbers("Character"),
    "blkdev": _device_numbers("Block"),
    "crypto": _algorithms,
    "protocols": _column("/proc/net/protocols", 0),
    "misc": _joined("/proc/misc"),
    "proc": lambda kernel: (name for name in _names(kernel, "/proc") if not name.isdigit()),
    "proc_net": _folder("/proc/net"),
    "dev": _below("/dev"),
    "kthread": _threads,
    "debugfs": _folder("/sys/kernel/debug"),
    "iomem": _whole("/proc/iomem"),
    "ioports": _whole("/proc/ioports"),
    "sysctl": _below("/proc/sys"),
    "tty_driver": _column("/proc/tty/drivers", 0),
    "ldisc": _column("/proc/tty/ldiscs", 0),
    "ptype": _whole("/proc/net/ptype"),
    "tcp_cc": _words("/proc/sys/net/ipv4/tcp_available_congestion_control"),
    "cgroup": _column("/proc/cgroups", 0),
}


# -- sysfs ------------------------------------------------------------------------------------------------------------


def _two_levels(path: str, inner: str = "") -> Callable[[Folders], Iterator[str]]:
    def read(folders: Folders) -> Iterator[str]:
        for group in folders.names(path):
            for name in folders.names(f"{path}/{group}/{inner}" if inner else f"{path}/{group}"):
                yield f"{group}/{name}"

    return read


_SYSFS: dict[str, Callable[[Folders], Iterable[str]]] = {
    "bus": lambda folders: folders.names("bus"),
    "drivers": _two_levels("bus", "drivers"),
    "devices": _two_levels("bus", "devices"),
    "class": lambda folders: folders.names("class"),
    "classdev": _two_levels("class"),
    "net": lambda folders: folders.names("class/net"),
    "sys_kernel": lambda folders: folders.names("kernel"),
    "sys_fs": lambda folders: folders.names("fs"),
}
