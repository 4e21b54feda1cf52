"""A trace as text: the formats of ftrace's own ``trace`` file, with the graph's columns as ``function_graph`` has them.

Follows ``kernel/trace/trace_output.c`` and ``trace_functions_graph.c``. What is added stands in comment lines.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from operator import itemgetter

from kobox.debug.tracing.records import CLOCKS, GRAPH, Call, Event, Trace

_MARKS = ((1_000_000_000, "$"), (100_000_000, "@"), (10_000_000, "*"), (1_000_000, "#"), (100_000, "!"), (10_000, "+"))
"""What stands before a duration of more than so many nanoseconds."""
_FUNCTION_HEAD = """\
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
_GRAPH_HEAD = """\
# CPU  DURATION                  FUNCTION CALLS
# |     |   |                     |   |   |   |
"""
_RULE = " ------------------------------------------"
_NO_DURATION = " " * 14
_INDENT = "  "

Line = tuple[int, int, str]
"""A line's time, its task, its text."""


def render(trace: Trace) -> Iterator[str]:
    """The lines of the whole trace."""
    yield f"# tracer: {trace.tracer or 'nop'}"
    yield "#"
    yield f"# kernel {trace.release}, clock: {CLOCKS[trace.clock]}"
    if trace.lost:
        yield f"# {trace.lost} records were lost: the buffer was too small"
    yield "#"
    if trace.tracer == GRAPH:
        yield from _GRAPH_HEAD.splitlines()
        yield from _graph(trace)
        yield from (f"# has not returned: {call.place}" for call in trace.calls if call.duration is None)
    else:
        yield from _FUNCTION_HEAD.splitlines()
        yield from _flat(trace)


def _flat(trace: Trace) -> Iterator[str]:
    calls = (
        (one.start, _prefix(one) + f"{one.place}" + (f" <-{one.caller}" if one.caller else "")) for one in trace.calls
    )
    events = ((one.start, f"{_prefix(one)}{_said(one)}") for one in trace.events)
    for _, line in heapq.merge(calls, events, key=itemgetter(0)):
        yield line


def _prefix(one: Call | Event) -> str:
    micros = (one.start + 500) // 1000
    return f"{one.comm:>16}-{one.pid:<7} [000] {one.flags} {micros // 1_000_000:5}.{micros % 1_000_000:06}: "


def _said(event: Event) -> str:
    """A trace_printk names only the function that printed; everything else begins with the event's name."""
    return event.text if event.system == "ftrace" else f"{event.name}: {event.text}"


# -- the graph ----------------------------------------------------------------------------------------------------


def _graph(trace: Trace) -> Iterator[str]:
    """Lines of every task, merged by time; a change of the task is marked."""
    by_task: dict[int, list[tuple[int, Call]]] = {}
    names: dict[int, str] = {}
    for index, call in enumerate(trace.calls):
        by_task.setdefault(call.pid, []).append((index, call))
        names[call.pid] = call.comm
    parents = {call.parent for call in trace.calls if call.parent is not None}
    streams = [_task_lines(calls, parents) for calls in by_task.values()]
    events = sorted(((one.start, one.pid, one) for one in trace.events), key=itemgetter(0))
    names |= {one.pid: one.comm for one in trace.events}
    streams.append((time, pid, f"{_NO_DURATION}|  /* {_said(one)} */") for time, pid, one in events)
    last: int | None = None
    for _, pid, text in heapq.merge(*streams, key=itemgetter(0)):
        if last is not None and pid != last:
            yield _RULE
            yield f" 0)  {_task(names, last)}    =>  {_task(names, pid)}  "
            yield _RULE
            yield ""
        last = pid
        yield f" 0) {text}"


def _task(names: dict[int, str], pid: int) -> str:
    return f"{names[pid]}-{pid}"


def _task_lines(calls: Iterable[tuple[int, Call]], parents: set[int]) -> Iterator[Line]:
    """Entries, exits and leaves of one task in the order in which they happened."""
    open_calls: list[tuple[int, Call]] = []
    now = 0
    for index, call in calls:
        while open_calls and open_calls[-1][0] != call.parent:
            now, line = _exit(open_calls.pop()[1], now)
            yield from line
        now = max(now, call.start)
        if index in parents:
            open_calls.append((index, call))
            yield now, call.pid, f"{_NO_DURATION}|  {_INDENT * call.depth}{call.place}() {{"
        else:
            tail = "();" if call.duration is not None else "() {"
            yield now, call.pid, f"{_duration(call.duration)}|  {_INDENT * call.depth}{call.place}{tail}"
    while open_calls:
        now, line = _exit(open_calls.pop()[1], now)
        yield from line


def _exit(call: Call, now: int) -> tuple[int, list[Line]]:
    """A closing brace, where the return was seen, and how late it is then."""
    if call.duration is None:
        return now, []
    now = max(now, call.start + call.duration)
    return now, [(now, call.pid, f"{_duration(call.duration)}|  {_INDENT * call.depth}}}")]


def _duration(nanoseconds: int | None) -> str:
    """Fourteen columns: a mark for long ones, microseconds with as many decimals as fit seven digits."""
    if nanoseconds is None:
        return _NO_DURATION
    mark = next((sign for limit, sign in _MARKS if nanoseconds > limit), " ")
    whole, rest = divmod(nanoseconds, 1000)
    number = str(whole)
    if len(number) < 7:
        number += "." + f"{rest:03}"[: 7 - len(number)]
    return f"{mark} {number} us ".ljust(2 + 8 + 4)
