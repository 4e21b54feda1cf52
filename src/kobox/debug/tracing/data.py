"""A trace as data: kobox's own JSON, and the Trace Event Format that Chrome's tracing page and Perfetto read."""

from __future__ import annotations

from typing import Any

from kobox.debug.tracing.records import CLOCKS, Call, Event, Place, Trace

SCHEMA_VERSION = 1
"""Grows when a member changes its meaning or goes."""


def as_data(trace: Trace) -> dict[str, Any]:
    """The JSON of ``kobox trace --json``. Times are nanoseconds, addresses texts in hex."""
    return {
        "version": SCHEMA_VERSION,
        "kernel": trace.release,
        "tracer": trace.tracer,
        "clock": {"name": trace.clock, "means": CLOCKS[trace.clock]},
        "lost": trace.lost,
        "missing": list(trace.missing),
        "calls": [_call(one) for one in trace.calls],
        "events": [_event(one) for one in trace.events],
    }


def _call(one: Call) -> dict[str, Any]:
    return {
        "function": one.place.name, "module": one.place.module or None, "address": f"{one.address:#x}",
        "start": one.start, "duration": one.duration, "depth": one.depth, "parent": one.parent,
        "caller": _place(one.caller), "pid": one.pid, "comm": one.comm,
    }  # fmt: skip


def _place(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {"function": place.name, "module": place.module or None}


def _event(one: Event) -> dict[str, Any]:
    return {
        "system": one.system, "name": one.name, "start": one.start, "pid": one.pid, "comm": one.comm,
        "text": one.text, "fields": dict(one.fields),
    }  # fmt: skip


def as_chrome(trace: Trace) -> dict[str, Any]:
    """Trace Event Format: complete events (``X``) for calls, instants (``i``) for the rest; microseconds."""
    tasks = {one.pid: one.comm for one in trace.calls} | {one.pid: one.comm for one in trace.events}
    rows: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": f"Linux {trace.release} in kobox"}}
    ]
    rows += [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": pid, "args": {"name": f"{comm}-{pid}"}}
        for pid, comm in sorted(tasks.items())
    ]
    rows += [_chrome_call(one) for one in trace.calls]
    rows += [
        {
            "ph": "i", "s": "t", "name": f"{one.system}:{one.name}", "cat": one.system, "pid": 0, "tid": one.pid,
            "ts": one.start / 1000, "args": {"text": one.text, **one.fields},
        }
        for one in trace.events
    ]  # fmt: skip
    return {
        "traceEvents": rows,
        "displayTimeUnit": "ns",
        "otherData": {"kernel": trace.release, "clock": CLOCKS[trace.clock], "lost": str(trace.lost)},
    }


def _chrome_call(one: Call) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.place.name, "cat": one.place.module or "kernel", "pid": 0, "tid": one.pid, "ts": one.start / 1000,
    }  # fmt: skip
    args = {"address": f"{one.address:#x}"} | ({"caller": str(one.caller)} if one.caller else {})
    if one.duration is None:
        return row | {"ph": "i", "s": "t", "args": args}
    return row | {"ph": "X", "dur": one.duration / 1000, "args": args}
