"""``linux/workqueue.h``: one queue, whose work runs when the call from Python that queued it has returned, or earlier
when somebody waits for it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated

from kobox.abi.c import CType, bool_, int_, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest

_Bool = Annotated[Generator[tuple[int, ...], int, bool], CType("bool", 1)]
_Void = Annotated[Generator[tuple[int, ...], int, None], CType("void", 0)]
_MODEL = Fidelity.MODEL

TABLE = ExportTable("linux/workqueue.h")


@TABLE.export(fidelity=_MODEL)
def queue_work_on(k: BareGuest, cpu: int_, queue: void_p, work: void_p) -> bool_:
    """Model: all queues are one, in the order of queueing."""
    return k.clock.queue_work(work)


@TABLE.export(fidelity=_MODEL)
def flush_work(k: BareGuest, work: void_p) -> _Bool:
    """Model: what was queued before runs, too, and what was queued after, as a worker would get to it."""
    waited = k.clock.is_queued(work)
    if waited:
        yield from k.clock.run_work()
    return waited


@TABLE.export(fidelity=_MODEL, also=("cancel_work",))
def cancel_work_sync(k: BareGuest, work: void_p) -> bool_:
    """No work can be running: it runs to completion."""
    return k.clock.cancel_work(work)
