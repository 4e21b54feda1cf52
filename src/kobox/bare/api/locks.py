"""Locks and RCU: ``linux/mutex.h``, ``linux/spinlock.h``, ``linux/rcupdate.h``. One task at a time runs here.

A lock is never contended, so taking one that is held means that its holder waits for itself.
"""

from __future__ import annotations

from kobox.abi.c import bool_, char_p, int_, ulong, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest

TABLE = ExportTable("linux/mutex.h")
_MODEL = Fidelity.MODEL


@TABLE.export(fidelity=_MODEL)
def __mutex_init(k: BareGuest, lock: void_p, name: char_p, key: void_p) -> None:
    k.held.discard(lock)


@TABLE.export(fidelity=_MODEL)
def mutex_lock(k: BareGuest, lock: void_p) -> None:
    k.hold(lock)


@TABLE.export(fidelity=_MODEL, also=("mutex_lock_killable",))
def mutex_lock_interruptible(k: BareGuest, lock: void_p) -> int_:
    k.hold(lock)
    return 0


@TABLE.export(fidelity=_MODEL)
def mutex_trylock(k: BareGuest, lock: void_p) -> int_:
    if lock in k.held:
        return 0
    k.held.add(lock)
    return 1


@TABLE.export(fidelity=_MODEL)
def mutex_unlock(k: BareGuest, lock: void_p) -> None:
    k.held.discard(lock)


@TABLE.export(fidelity=_MODEL)
def mutex_is_locked(k: BareGuest, lock: void_p) -> bool_:
    return lock in k.held


@TABLE.export(fidelity=_MODEL, also=("_raw_spin_lock_bh", "_raw_spin_lock_irq"))
def _raw_spin_lock(k: BareGuest, lock: void_p) -> None:
    k.hold(lock)


@TABLE.export(fidelity=_MODEL)
def _raw_spin_lock_irqsave(k: BareGuest, lock: void_p) -> ulong:
    k.hold(lock)
    return 0x202


@TABLE.export(fidelity=_MODEL)
def _raw_spin_trylock(k: BareGuest, lock: void_p) -> int_:
    if lock in k.held:
        return 0
    k.held.add(lock)
    return 1


@TABLE.export(fidelity=_MODEL, also=("_raw_spin_unlock_bh", "_raw_spin_unlock_irq"))
def _raw_spin_unlock(k: BareGuest, lock: void_p) -> None:
    k.held.discard(lock)


@TABLE.export(fidelity=_MODEL)
def _raw_spin_unlock_irqrestore(k: BareGuest, lock: void_p, flags: ulong) -> None:
    k.held.discard(lock)


@TABLE.export(fidelity=_MODEL)
def __rcu_read_lock(k: BareGuest) -> None:
    """Nobody else runs: every grace period is over."""


@TABLE.export(fidelity=_MODEL)
def __rcu_read_unlock(k: BareGuest) -> None:
    """As above."""


@TABLE.export(fidelity=_MODEL, also=("rcu_barrier",))
def synchronize_rcu(k: BareGuest) -> None:
    """As above."""
