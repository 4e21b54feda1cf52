"""Traces of one guest: begun, ended, ended by a reset; told of modules by the loader; seen as a context manager."""

from __future__ import annotations

from types import TracebackType

from kobox.debug.tracing.clock import TraceClock
from kobox.debug.tracing.recording import Recording
from kobox.debug.tracing.records import Call, Event, Options, Trace
from kobox.errors import UsageError
from kobox.kernel.files import Files
from kobox.kernel.guest import Guest
from kobox.kernel.syscalls import Syscalls


class Tracer:
    """One for each guest. ``start`` and ``stop`` belong together; ``abandon`` stands for ``stop`` after a reset."""

    def __init__(self, guest: Guest, files: Files, syscalls: Syscalls) -> None:
        self._guest, self._files, self._sys = guest, files, syscalls
        self._clock = TraceClock(guest)
        self._recording: Recording | None = None

    @property
    def on(self) -> bool:
        return self._recording is not None

    def start(self, options: Options) -> Recording:
        """Begin; one trace at a time. ``UsageError`` where somebody else traces, or the kernel refuses something."""
        if self._recording is not None:
            raise UsageError("a trace is on already", hint="one trace at a time")
        recording = Recording(self._guest, self._files, self._sys, self._clock, options)
        try:
            recording.begin()
        except BaseException:
            recording.end()
            raise
        self._recording = recording
        return recording

    def stop(self) -> None:
        """End it; the recording keeps what was recorded."""
        recording, self._recording = self._recording, None
        if recording is None:
            return
        try:
            recording.drain()
        finally:
            recording.end()

    def abandon(self) -> None:
        """The guest cannot be asked to end it: only what lies outside of the guest is taken back."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.over = True
            self._clock.abandon()

    # -- told by the loader (kernel/watcher.py) ------------------------------------------------------------------

    def module_coming(self, name: str) -> None:
        if self._recording is not None:
            self._recording.module_coming(name)

    def module_exited(self) -> None:
        if self._recording is not None:
            self._recording.drain()

    def guest_was_reset(self) -> None:
        self.abandon()


class Tracing:
    """A trace as a context manager: on inside the block; ``result`` is what was seen, also while it goes on."""

    def __init__(self, tracer: Tracer, options: Options) -> None:
        self._tracer, self._options = tracer, options
        self._recording: Recording | None = None
        self._result: Trace | None = None

    def __enter__(self) -> Tracing:
        self._recording, self._result = self._tracer.start(self._options), None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording is None or self._recording.over:
            return  # a reset has ended it
        self._result = None  # what was asked for inside the block is not all
        if error is None or isinstance(error, Exception):
            self._tracer.stop()
        else:  # Ctrl-C: the guest stands in the middle of a call that may never end
            self._recording.salvage()
            self._tracer.abandon()

    @property
    def result(self) -> Trace:
        """Everything up to now, or to the end of the block. After a reset: up to when it was asked for last."""
        if self._recording is None:
            raise UsageError("the trace has not begun", hint="with kernel.trace(...) as trace:")
        if self._result is None or not self._recording.over:
            self._recording.drain()
            self._result = self._recording.trace()
        return self._result

    @property
    def calls(self) -> tuple[Call, ...]:
        return self.result.calls

    @property
    def events(self) -> tuple[Event, ...]:
        return self.result.events

    def calls_of(self, glob: str) -> tuple[Call, ...]:
        """As ``Trace.calls_of``."""
        return self.result.calls_of(glob)

    def called(self, glob: str) -> bool:
        """As ``Trace.called``."""
        return self.result.called(glob)
