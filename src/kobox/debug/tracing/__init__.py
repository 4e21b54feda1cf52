"""Tracing: the kernel's own ftrace, driven from Python.

``Tracing`` is what ``kernel.trace()`` gives, ``Trace`` what comes out; ``text`` and ``data`` render it.
"""

from kobox.debug.tracing.records import CLOCKS, FUNCTION, GRAPH, Call, Event, Options, Place, Trace
from kobox.debug.tracing.tracer import Tracer, Tracing

__all__ = ["CLOCKS", "FUNCTION", "GRAPH", "Call", "Event", "Options", "Place", "Trace", "Tracer", "Tracing"]
