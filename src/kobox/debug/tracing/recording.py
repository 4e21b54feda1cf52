"""Drives the kernel's own tracers: functions to filter, events and probes to enable, buffers to empty.

Everything is the guest's own ftrace: its ``__fentry__`` sites are patched by its own code, its ring buffer is read as
``trace_pipe_raw`` gives it. What kobox adds is the choice of functions, also in modules that are about to be loaded,
names that outlive a module, and a clock that means something (``clock``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from kobox.debug.live import LiveGuest
from kobox.debug.tracing.calls import Entered, FunctionReader, Left, build_calls
from kobox.debug.tracing.clock import TraceClock
from kobox.debug.tracing.events import EventReader
from kobox.debug.tracing.names import Names, Region
from kobox.debug.tracing.probes import GROUP, Probe
from kobox.debug.tracing.records import GRAPH, Options, Trace
from kobox.debug.tracing.remains import remaining_pages
from kobox.debug.tracing.ring import Format, Page, PageReader
from kobox.debug.tracing.sites import Filter, Sites
from kobox.debug.tracing.tracefs import INSTANCE, Tracefs
from kobox.errors import Errno, UsageError
from kobox.image.btf import Type, module_btf
from kobox.kernel.files import Files
from kobox.kernel.guest import Guest
from kobox.kernel.syscalls import Syscalls

_BUFFER_KB = {False: 8 << 10, True: 64 << 10}
"""By whether everything is traced: a call takes 72 bytes with the graph tracer, 28 with the other."""
_EVENT_BUFFER_KB = 4 << 10
_OPS_LIMIT = 1000


class Recording:
    """One trace from its start to its end."""

    def __init__(self, guest: Guest, files: Files, syscalls: Syscalls, clock: TraceClock, options: Options) -> None:
        self._guest, self._files = guest, files
        self._fs = Tracefs(guest, files, syscalls)
        self._clock, self.options = clock, options
        self._names = Names(guest)
        self._filter = Filter(syscalls)
        self._sites: Sites | None = None
        self._tracing = False
        self._records: list[Entered | Left] = []
        self._pages = PageReader(self._fs.read("events/header_page"))
        self._events = EventReader(guest, self._fs, syscalls, self._pages, self._names)
        self._probes = [Probe.parse(text) for text in options.probes]
        self._done: set[Probe] = set()
        """Those whose function has been found."""
        self._refused: list[str] = []
        self._enabled: set[str] = set()
        self._found: set[str] = set()
        """Of the events asked for, those that exist."""
        self._lost = 0
        self._chosen: set[str] = set()
        """Names of the functions that are traced because they were asked for."""
        self._comms: dict[int, str] = {}
        self._reader: FunctionReader | None = None
        self._salvaged = False
        self.over = False

    # -- begin and end --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        fs, options = self._fs, self.options
        if fs.read("current_tracer").strip() != "nop" or fs.read("kprobe_events"):
            self.over = True
            raise UsageError("the kernel's tracer is in use", hint="echo nop > /sys/kernel/tracing/current_tracer")
        fs.switch(False)
        fs.clear("trace")
        fs.write("buffer_size_kb", str(options.buffer_kb or _BUFFER_KB[options.everything]))
        if options.events or options.probes:
            fs.make_instance()
            fs.write(INSTANCE + "buffer_size_kb", str(_EVENT_BUFFER_KB))
        self._names.learn_loaded()
        if options.tracer:
            if options.tracer not in fs.read("available_tracers").split():
                raise UsageError(
                    f"kernel {self._guest.image.release} has no tracer {options.tracer!r}",
                    hint=f"it has {fs.read('available_tracers').strip()}",
                )
            self._reader = self._function_reader()
            self._choose_functions()
        self._define_probes("")
        self._enable_events()
        self._clock.install(self._code_of_tracer())
        fs.switch(True)

    def end(self) -> None:
        """Take everything back."""
        if self.over:
            return
        self.over = True
        try:
            if not self._guest.tasks.dead:
                self._give_back()
        finally:
            self._clock.abandon()

    def _give_back(self) -> None:
        fs = self._fs
        fs.switch(False)
        if self._tracing:
            fs.write("current_tracer", "nop")
        if self._filter.count:
            fs.clear("set_ftrace_filter")
        if fs.has(INSTANCE):
            fs.write(INSTANCE + "events/enable", "0")
            fs.clear("kprobe_events")
            fs.remove_instance()
        self._clock.remove()
        fs.clear("trace")
        fs.switch(True)

    # -- what to trace --------------------------------------------------------------------------------------------

    def module_coming(self, name: str) -> None:
        """Learn a module's names, trace its functions, probe it, enable its events, before its init runs."""
        module = next((one for one in LiveGuest(self._guest).modules if one.name == name), None)
        if module is None or self.over:
            return
        if self._names.overlaps(module):
            self.drain()
        regions = self._names.learn(module)
        if not (self.options.tracer or self._probes or self.options.events):
            return
        self._fs.switch(False)
        if self.options.tracer:
            self._trace_module(regions, name)
        self._define_probes(name)
        self._enable_events()
        self._fs.switch(True)

    def _choose_functions(self) -> None:
        """The functions that are there now. Nothing to trace yet is no mistake while modules may come."""
        options = self.options
        if options.everything:
            self._start_tracer()  # an empty filter: everything, modules that come included
            return
        self._sites = Sites(self._guest)
        chosen = []
        if not options.by_module:
            start, end = self._guest.symbol("_stext"), self._guest.symbol("_etext")
            chosen = self._wanted(start, end, self._sites)
        for region in self._names.regions:
            chosen += self._wanted(region.start, region.end, self._sites)
        if chosen:
            self._filter.add(chosen)
            self._add_callees({region.module for region in self._names.regions}, self._sites)
            self._start_tracer()

    def _trace_module(self, regions: list[Region], name: str) -> None:
        if self.options.everything:
            return
        sites = Sites(self._guest)
        chosen = [site for region in regions for site in self._wanted(region.start, region.end, sites)]
        if not chosen:
            return
        self._filter.add(chosen)
        self._add_callees({name}, sites)
        self._start_tracer()

    def _wanted(self, start: int, end: int, sites: Sites) -> list[int]:
        found = [(site, self._names.at(site)) for site in sites.between(start, end)]
        wanted = [(site, place.name) for site, place in found if self.options.wants(place)]
        self._chosen.update(name for _, name in wanted)
        return [site for site, _ in wanted]

    def _add_callees(self, modules: set[str], sites: Sites) -> None:
        """The kernel's functions that modules import, as far as they can be traced."""
        options = self.options
        if not (options.callees and options.by_module) or options.functions:
            return
        wanted = {
            address
            for module in LiveGuest(self._guest).modules
            if module.name in modules and (not options.modules or module.name in options.modules)
            for address in self._names.imports(module)
        }
        self._filter.add([site for address in sorted(wanted) for site in sites.between(address, address + 5)])

    def _start_tracer(self) -> None:
        if self._tracing:
            return
        self._fs.write("current_tracer", self.options.tracer)
        self._tracing = True
        self._clock.leave_out(self._code_of_tracer())

    def _code_of_tracer(self) -> list[tuple[int, int]]:
        """Ranges of code that only runs because of the trace: ftrace's functions and its trampolines."""
        guest = self._guest
        if not guest.has("ftrace_pages_start"):
            return []
        if self._sites is None:
            self._sites = Sites(guest)
        ranges = self._sites.tracer_code()
        ops = guest.read_uint(guest.symbol("ftrace_ops_list"))
        end = guest.symbol("ftrace_list_end")
        for _ in range(_OPS_LIMIT):
            if not ops or ops == end:
                break
            view = guest.view("ftrace_ops", ops)
            start = view["trampoline"] & (1 << 64) - 1
            if start and view["trampoline_size"]:
                ranges.append((start, start + view["trampoline_size"]))
            ops = view["next"] & (1 << 64) - 1
        return ranges

    def _define_probes(self, module: str) -> None:
        """Probes on functions that exist by now: the kernel's own, or those of ``module``."""
        for probe in [one for one in self._probes if one not in self._done]:
            owner = probe.module or self._owner_of(probe.function)
            if owner is None or (owner and not self._names.has_module(owner)):
                continue
            self._done.add(probe)
            try:
                self._define(Probe(probe.function, owner))
            except UsageError as refusal:
                if not module:
                    raise
                self._refused.append(f"probe {probe.function}: {refusal}")  # a load goes on

    def _define(self, probe: Probe) -> None:
        for line in probe.lines(self._prototype(probe.function, probe.module)):
            self._fs.define(line)
        for event in probe.events:
            self._fs.write(f"{INSTANCE}events/{GROUP}/{event}/enable", "1")
            self._events.learn(GROUP, event)

    def _owner_of(self, function: str) -> str | None:
        """The module that has a function, empty for the kernel, None where nobody has."""
        if self._guest.has(function):
            return ""
        return self._names.module_with(function)

    def _prototype(self, function: str, module: str) -> Type | None:
        kernel = self._guest.image.btf
        if not module:
            return kernel.func(function)
        try:
            types = self._files.read(f"/sys/kernel/btf/{module}")
        except Errno:
            return None  # built without BTF
        return module_btf(types, kernel, name=module).func(function)

    def _enable_events(self) -> None:
        """Events asked for that exist by now and are not enabled yet."""
        for wanted in self.options.events:
            for event in self._events_like(*wanted.split(":")):
                if event not in self._enabled:
                    self._fs.write(f"{INSTANCE}events/{event}/enable", "1")
                    self._enabled.add(event)
                    self._events.learn(*event.split("/"))
                self._found.add(wanted)

    def _events_like(self, system: str, name: str) -> Iterator[str]:
        folder = INSTANCE + "events"
        if not re.search(r"[*?\[]", system + name):
            if self._fs.has(f"{folder}/{system}/{name}/enable"):
                yield f"{system}/{name}"
            return
        for one in self._fs.names(folder):
            if fnmatchcase(one, system):
                yield from (f"{one}/{event}" for event in self._fs.names(f"{folder}/{one}") if fnmatchcase(event, name))

    def _functions_not_found(self) -> list[str]:
        globs = self.options.functions if self.options.tracer else ()
        unmet = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in self._chosen)]
        return [f"function {glob}: none of that name can be traced" for glob in unmet]

    # -- what was recorded ----------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take the records out of the kernel's buffers and name what is in them; a dead kernel's are read once."""
        if self.over or self._salvaged:
            return
        if self._guest.tasks.dead:
            self.salvage()
            return
        fs = self._fs
        fs.switch(False)
        pids = self._take_pages(self._pages.read(raw) for raw in fs.pages("", self._pages.size))
        if self.options.events or self.options.probes:
            self._lost += self._events.drain()
        for pid in (pids | self._events.pids) - self._comms.keys():
            self._comms[pid] = self._name_of_task(pid)
        fs.switch(True)

    def salvage(self) -> None:
        """Take what lies in the buffers without running the guest. Of its tasks only the last one's name is known."""
        self._salvaged = True
        task = self._guest.view("task_struct", self._guest.current)
        self._comms.setdefault(task["pid"], task.text("comm"))
        size = self._pages.size
        self._take_pages(self._pages.read(raw, taken) for raw, taken in remaining_pages(self._guest, size, False))
        for raw, taken in remaining_pages(self._guest, size, True):
            self._events.take(self._pages.read(raw, taken).records, [])

    def _take_pages(self, pages: Iterable[Page]) -> set[int]:
        """Note the records of the kernel's own array; returns the processes that were met."""
        pids: set[int] = set()
        for page in pages:
            self._lost += page.lost
            for time, data in page.records:
                record = self._reader.read(time, data) if self._reader else None
                if record is None:
                    self._events.take_print(time, data)
                else:
                    self._records.append(record)
                    pids.add(record.pid)
        return pids

    def _function_reader(self) -> FunctionReader:
        names = ("funcgraph_entry", "funcgraph_exit") if self.options.tracer == GRAPH else ("function",)
        formats = [Format.parse("ftrace", self._fs.read(f"events/ftrace/{name}/format")) for name in names]
        return FunctionReader(formats, self._names)

    def _name_of_task(self, pid: int) -> str:
        if not pid:
            return "<idle>"
        try:
            return self._files.read(f"/proc/{pid}/comm").decode("utf-8", "replace").rstrip("\n")
        except Errno:
            return "<...>"

    def trace(self) -> Trace:
        """What was recorded so far."""
        missing = [] if self.options.everything else self._functions_not_found()
        missing += [f"event {one}: there is none" for one in self.options.events if one not in self._found]
        missing += [f"probe {one.function}: no such function" for one in self._probes if one not in self._done]
        return Trace(
            self.options.tracer,
            self._clock.name,
            self._guest.image.release,
            build_calls(self._records, self.options, self._comms),
            self._events.events(self._comms),
            self._lost,
            (*missing, *self._refused),
        )
