"""What a trace is once it is over: calls, events, and how time was told. Frozen; nothing here knows of a guest.

Times are nanoseconds of the trace's clock (``clock``) since power-on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from kobox.errors import UsageError

WORK, VIRTUAL = "work", "virtual"
CLOCKS = {
    WORK: "1 ns for every 4 bytes of machine code executed (the tracer's own left out), plus time spent waiting",
    VIRTUAL: "the kernel's virtual clock: it moves while the guest waits and whenever it enters kobox, not with work",
}
"""What the times of a trace mean, by the clock's name."""

FUNCTION, GRAPH = "function", "function_graph"
"""The kernel's names of its tracers."""

_LARGEST_KB = 256 << 10


class Place(NamedTuple):
    """A code address by name. ``module`` is empty for the kernel itself; ``name`` is the address where nothing is
    known."""

    name: str
    module: str
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.name} [{self.module}]" if self.module else self.name


@dataclass(frozen=True, slots=True)
class Options:
    """What to trace.

    ``functions``: globs over names of traceable functions; ``modules``: names, also of modules that are not loaded yet;
    both: functions of these modules that match. Neither: the functions of every module. ``callees``: also the kernel's
    functions that those modules import, as far as they are called from a module. ``tracer``: ``function_graph``,
    ``function``, or empty for events and probes only. ``events``: ``system:name``, globs allowed. ``probes``: functions
    whose arguments and results are wanted, as ``name`` or ``module:name``. ``buffer_kb``: size of the kernel's buffer;
    0: by what is traced.
    """

    functions: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    callees: bool = True
    tracer: str = GRAPH
    events: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    buffer_kb: int = 0

    def __post_init__(self) -> None:
        for event in self.events:
            if event.count(":") != 1 or "/" in event:
                raise UsageError(f"no event can be called {event!r}", hint="SYSTEM:NAME, as sched:sched_switch")
        if not 0 <= self.buffer_kb <= _LARGEST_KB:
            raise UsageError(f"a buffer of {self.buffer_kb} KiB", hint=f"at most {_LARGEST_KB}")

    def wants(self, place: Place) -> bool:
        """Whether a function is among those asked for (imported functions are not asked for)."""
        if self.functions and not any(fnmatchcase(place.name, glob) for glob in self.functions):
            return False
        if self.modules:
            return place.module in self.modules
        return bool(self.functions) or bool(place.module)

    @property
    def everything(self) -> bool:
        """Whether every function is to be traced, which needs no filter."""
        return self.functions == ("*",) and not self.modules

    @property
    def by_module(self) -> bool:
        """Whether only modules' functions are asked for, so that the kernel's are shown where a module called them."""
        return bool(self.modules) or not self.functions


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function. ``duration`` is None where the return was not seen (always, with the function tracer).

    ``caller`` is what called it: with the function tracer the function that the return address lies in, with the graph
    tracer the innermost traced function around it (None at the outermost level). ``parent`` is that one's index among
    the trace's calls.
    """

    place: Place
    address: int
    start: int
    pid: int
    comm: str
    depth: int = 0
    duration: int | None = None
    caller: Place | None = None
    parent: int | None = None
    flags: str = "....."

    @property
    def function(self) -> str:
        return self.place.name

    @property
    def module(self) -> str:
        return self.place.module


@dataclass(frozen=True, slots=True)
class Event:
    """A tracepoint, a probe or a trace_printk. ``text`` is as the kernel words it; ``fields`` as they lie in its
    record."""

    system: str
    name: str
    start: int
    pid: int
    comm: str
    text: str
    fields: Mapping[str, Any]
    flags: str = "....."


@dataclass(frozen=True, slots=True)
class Trace:
    """A finished trace. ``lost`` counts records that the kernel's buffer had no room for; ``missing`` says
    of what was asked for and not traced why: ``event no:such: there is none``."""

    tracer: str
    clock: str
    release: str
    calls: tuple[Call, ...] = ()
    events: tuple[Event, ...] = ()
    lost: int = 0
    missing: tuple[str, ...] = ()

    def calls_of(self, glob: str) -> tuple[Call, ...]:
        """Calls of functions whose name matches."""
        return tuple(call for call in self.calls if fnmatchcase(call.place.name, glob))

    def called(self, glob: str) -> bool:
        """Whether such a function was called at all."""
        return any(fnmatchcase(call.place.name, glob) for call in self.calls)
