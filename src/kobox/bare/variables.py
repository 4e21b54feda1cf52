"""Variables of the bare kernel that modules use, by name: each function makes one when a module asks for it."""

from __future__ import annotations

from collections.abc import Callable

from kobox.bare.guest import BareGuest

_KMALLOC_CACHES = 5 * 14 * 8
_HANDLES = 64
_TASKS = ((1, "init"), (2, "kthreadd"), (7, "kworker/0:0"))
_OWN_PID = 100
_PF_KTHREAD = 0x0020_0000
_PERCPU = {"cpu_number": 0x40, "__preempt_count": 0x44, "this_cpu_off": 0x48, "current_task": 0x50}
"""Offsets in the one per-CPU area."""


def _jiffies(k: BareGuest) -> int:
    address = k.reserve(8)
    k.write_uint(address, k.clock.jiffies)
    return address


def _tasks(k: BareGuest) -> int:
    """``init_task`` and the ring of all others: a few that a kernel has, and the one that works for Python."""
    size = k.layouts.size("task_struct")
    listed = k.layouts.offset("task_struct", "tasks")
    rows = [(0, "swapper/0"), *_TASKS, (_OWN_PID, k.comm)]
    places = [k.reserve(size, 64) for _ in rows]
    for index, (pid, comm) in enumerate(rows):
        task = k.view("task_struct", places[index])
        task["pid"] = task["tgid"] = pid
        k.write(task.at("comm"), comm.encode()[:15].ljust(16, b"\0"))
        k.write_uint(places[index] + listed, places[(index + 1) % len(rows)] + listed)
        k.write_uint(places[index] + listed + 8, places[index - 1] + listed)
    k.own_task = places[-1]
    return places[0]


def _percpu(name: str) -> Callable[[BareGuest], int]:
    def make(k: BareGuest) -> int:
        if name == "current_task":
            k.symbol("init_task")
            k.write_uint(k.percpu_area + _PERCPU[name], k.own_task)
        return _PERCPU[name]

    return make


def _zeroed(size: int) -> Callable[[BareGuest], int]:
    return lambda k: k.reserve(size)


def _pointer_to(size: int) -> Callable[[BareGuest], int]:
    """A pointer variable and what it points to."""

    def make(k: BareGuest) -> int:
        address = k.reserve(8)
        k.write_uint(address, k.reserve(size))
        return address

    return make


def _one(k: BareGuest) -> int:
    address = k.reserve(8)
    k.write_uint(address, 1)
    return address


VARIABLES: dict[str, Callable[[BareGuest], int]] = {
    "jiffies": _jiffies,
    "jiffies_64": lambda k: k.symbol("jiffies"),
    "init_task": _tasks,
    "kmalloc_caches": _zeroed(_KMALLOC_CACHES),
    "module_layout": _zeroed(8),
    "nr_cpu_ids": _one,
    **{name: _percpu(name) for name in _PERCPU},
    **{
        name: _pointer_to(_HANDLES)
        for name in ("system_wq", "system_long_wq", "system_highpri_wq", "system_unbound_wq")
    },
}
