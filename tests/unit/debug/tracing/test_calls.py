"""Records of the function tracers become calls with parents, depths and durations; only what was asked for is shown."""

from __future__ import annotations

from kobox.debug.tracing.calls import Entered, Left, build_calls
from kobox.debug.tracing.records import FUNCTION, Call, Options, Place

INIT, HELPER, KERNEL, DEEPER = (
    Place("demo_init", "demo"), Place("demo_helper", "demo"), Place("kmalloc", ""), Place("slab_alloc", ""),
)  # fmt: skip
ADDRESS = {INIT: 0x1000, HELPER: 0x2000, KERNEL: 0x3000, DEEPER: 0x4000}


def enter(time: int, place: Place, depth: int, pid: int = 7) -> Entered:
    return Entered(time, pid, ADDRESS[place], place, None, depth, ".....")


def leave(time: int, place: Place, depth: int, began: int, pid: int = 7) -> Left:
    return Left(time, pid, ADDRESS[place], depth, began)


def shown(calls: tuple[Call, ...]) -> list[tuple[str, int, int | None, int | None]]:
    return [(call.function, call.depth, call.duration, call.parent) for call in calls]


def test_nested_calls_know_their_parents_and_durations() -> None:
    records = [
        enter(10, INIT, 0), enter(20, HELPER, 1), leave(25, HELPER, 1, 21), enter(30, KERNEL, 1),
        leave(50, KERNEL, 1, 31), leave(60, INIT, 0, 11),
    ]  # fmt: skip
    calls = build_calls(records, Options(), {7: "insmod"})
    assert shown(calls) == [("demo_init", 0, 49, None), ("demo_helper", 1, 4, 0), ("kmalloc", 1, 19, 0)]
    assert calls[1].caller == INIT
    assert {call.comm for call in calls} == {"insmod"}


def test_the_kernels_functions_are_shown_where_a_module_called_them() -> None:
    records = [
        enter(1, KERNEL, 0), leave(2, KERNEL, 0, 1), enter(10, INIT, 0), enter(20, KERNEL, 1), enter(30, DEEPER, 2),
        leave(31, DEEPER, 2, 30), enter(40, HELPER, 2), leave(41, HELPER, 2, 40), leave(50, KERNEL, 1, 20),
    ]  # fmt: skip
    assert shown(build_calls(records, Options(), {})) == [
        ("demo_init", 0, None, None), ("kmalloc", 1, 30, 0), ("demo_helper", 2, 1, 1),
    ]  # fmt: skip
    assert len(build_calls(records, Options(functions=("*",)), {})) == 5
    only_module = build_calls(records, Options(callees=False), {})
    assert shown(only_module) == [("demo_init", 0, None, None), ("demo_helper", 1, 1, 0)]


def test_lost_records_leave_whole_calls_alone() -> None:
    records = [
        leave(5, HELPER, 1, 3), enter(10, INIT, 0), enter(20, HELPER, 1), enter(30, KERNEL, 1),
        leave(35, KERNEL, 1, 30), leave(40, INIT, 0, 10),
    ]  # fmt: skip
    assert shown(build_calls(records, Options(), {})) == [
        ("demo_init", 0, 30, None), ("demo_helper", 1, None, 0), ("kmalloc", 1, 5, 0),
    ]  # fmt: skip


def test_tasks_do_not_nest_in_each_other() -> None:
    records = [
        enter(10, INIT, 0, 7), enter(11, HELPER, 0, 8), leave(12, HELPER, 0, 11, 8), enter(13, KERNEL, 1, 7),
        leave(14, KERNEL, 1, 13, 7), leave(15, INIT, 0, 10, 7),
    ]  # fmt: skip
    calls = build_calls(records, Options(), {7: "insmod", 8: "kworker"})
    assert [(call.function, call.comm, call.parent) for call in calls] == [
        ("demo_init", "insmod", None), ("demo_helper", "kworker", None), ("kmalloc", "insmod", 0),
    ]  # fmt: skip


def test_without_the_graph_the_caller_decides() -> None:
    def called(place: Place, caller: Place) -> Entered:
        return Entered(1, 7, ADDRESS[place], place, caller, -1, ".....")

    records = [
        called(KERNEL, DEEPER),
        called(KERNEL, INIT),
        called(HELPER, DEEPER),
        called(KERNEL, Place("x", "other")),
    ]
    options = Options(modules=("demo",), tracer=FUNCTION)
    assert [(call.function, str(call.caller)) for call in build_calls(records, options, {})] == [
        ("kmalloc", "demo_init [demo]"), ("demo_helper", "slab_alloc"),
    ]  # fmt: skip
