"""A trace as ftrace's text, as JSON, and in Chrome's format: three renderings of one record."""

from __future__ import annotations

import json

import pytest

from kobox.debug.tracing.data import as_chrome, as_data
from kobox.debug.tracing.records import FUNCTION, GRAPH, WORK, Call, Event, Place, Trace
from kobox.debug.tracing.text import render


def call(name: str, start: int, duration: int | None, depth: int = 0, parent: int | None = None, pid: int = 7) -> Call:
    return Call(Place(name, "demo"), 0x1000, start, pid, f"task{pid}", depth, duration, None, parent)


def graph(*calls: Call, events: tuple[Event, ...] = (), lost: int = 0) -> Trace:
    return Trace(GRAPH, WORK, "6.1.0-test", calls, events, lost)


def lines(trace: Trace) -> list[str]:
    return [line for line in render(trace) if not line.startswith("#")]


def test_a_graph_has_braces_around_what_is_inside() -> None:
    trace = graph(call("outer", 1000, 5000), call("leaf", 2000, 17, 1, 0), call("after", 9000, 400))
    assert lines(trace) == [
        " 0)               |  outer [demo]() {",
        " 0)   0.017 us    |    leaf [demo]();",
        " 0)   5.000 us    |  }",
        " 0)   0.400 us    |  after [demo]();",
    ]


@pytest.mark.parametrize(
    ("nanoseconds", "column"),
    [
        (999, "  0.999 us    "), (10_001, "+ 10.001 us   "), (100_001, "! 100.001 us  "), (1_234_567, "# 1234.567 us "),
        (12_345_678, "* 12345.67 us "), (123_456_789, "@ 123456.7 us "), (1_234_567_890, "$ 1234567 us  "),
    ],
)  # fmt: skip
def test_long_durations_are_marked_and_keep_their_column(nanoseconds: int, column: str) -> None:
    assert lines(graph(call("f", 0, nanoseconds))) == [f" 0) {column}|  f [demo]();"]


def test_a_change_of_the_task_is_marked() -> None:
    shown = lines(graph(call("one", 0, 10), call("two", 5, 1, pid=8)))
    assert shown[1:4] == [
        " ------------------------------------------",
        " 0)  task7-7    =>  task8-8  ",
        " ------------------------------------------",
    ]


def test_events_are_comments_in_a_graph() -> None:
    event = Event("sched", "sched_switch", 1500, 7, "task7", "prev=a", {})
    trace = graph(call("outer", 1000, 5000), call("leaf", 2000, 17, 1, 0), events=(event,))
    assert lines(trace)[1] == " 0)               |  /* sched_switch: prev=a */"


def test_what_is_missing_is_said() -> None:
    text = "\n".join(render(graph(call("outer", 1000, None), lost=3)))
    assert "# 3 records were lost: the buffer was too small" in text
    assert "# has not returned: outer [demo]" in text
    assert "clock: 1 ns for every 4 bytes of machine code" in text


def test_without_the_graph_each_line_has_task_time_and_caller() -> None:
    one = Call(Place("f", "demo"), 1, 1_234_567_890, 7, "insmod", 0, None, Place("g", ""), None, "d..1.")
    event = Event("kobox", "probe", 1_234_568_000, 7, "insmod", "x=1", {})
    assert lines(Trace(FUNCTION, WORK, "r", (one,), (event,))) == [
        "          insmod-7       [000] d..1.     1.234568: f [demo] <-g",
        "          insmod-7       [000] .....     1.234568: probe: x=1",
    ]


def test_the_json_has_its_documented_members() -> None:
    event = Event("kobox", "probe", 5, 7, "insmod", "x=1", {"x": 1})
    answer = json.loads(json.dumps(as_data(graph(call("f", 1, 2), call("g", 1, None, 1, 0), events=(event,)))))
    assert set(answer) == {"version", "kernel", "tracer", "clock", "lost", "missing", "calls", "events"}
    assert answer["calls"][1] == {
        "function": "g", "module": "demo", "address": "0x1000", "start": 1, "duration": None, "depth": 1, "parent": 0,
        "caller": None, "pid": 7, "comm": "task7",
    }  # fmt: skip
    assert answer["events"] == [
        {"system": "kobox", "name": "probe", "start": 5, "pid": 7, "comm": "insmod", "text": "x=1", "fields": {"x": 1}}
    ]


def test_chromes_format_has_complete_events_in_microseconds() -> None:
    event = Event("kobox", "probe", 3500, 7, "task7", "x=1", {"x": 1})
    rows = as_chrome(graph(call("f", 1500, 2500), call("g", 2000, None, 1, 0), events=(event,)))["traceEvents"]
    kinds = {row["name"]: row for row in rows}
    assert (kinds["f"]["ph"], kinds["f"]["ts"], kinds["f"]["dur"]) == ("X", 1.5, 2.5)
    assert kinds["g"]["ph"] == "i", "it has no end"
    assert kinds["kobox:probe"]["args"] == {"text": "x=1", "x": 1}
    assert kinds["thread_name"]["args"] == {"name": "task7-7"}
