"""The keeper: one loop that serves the trees, the caught system calls, and the session's answers to both.

It lives as long as any program of its ``kobox enter`` does. Files come first in each turn: what a program has closed is
closed in the guest before its next system call is looked at.
"""

from __future__ import annotations

import os
import queue
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from kobox.enter import processes
from kobox.enter.seccomp import Caught, Listener
from kobox.errors import KoboxError

if TYPE_CHECKING:
    from kobox.enter.answers import Answers
    from kobox.enter.tree import Handle, Node
    from kobox.fuse import Session
    from kobox.session.calling import Caller

_LOOK_MS = 100
"""How often it is looked whether the callers of calls under way still wait."""


class Loop:
    """``run`` serves until the last program has gone. ``alive`` is readable (at its end) once no program is left, for
    hosts where no calls are caught."""

    answers: Answers

    def __init__(self, caller: Caller, alive: int) -> None:
        self._caller, self._alive = caller, alive
        self._poller = select.poll()
        self._trees: list[Session[Node, Handle]] = []
        self._listener: Listener | None = None
        self._watched: dict[int, Callable[[], None]] = {}
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = os.pipe()
        self.under_way: dict[int, tuple[Caught, int]] = {}
        """By the notification's number: calls that the session works on, with the request's number."""
        self._poller.register(caller.fileno(), select.POLLIN)
        self.watch(self._wake_reader, self._take_done)

    # -- what is served -------------------------------------------------------------------------------------------

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever there is something to read."""
        self._watched[descriptor] = ready
        self._poller.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        self._poller.unregister(descriptor)
        del self._watched[descriptor]

    def add_tree(self, tree: Session[Node, Handle]) -> None:
        """Serve a tree whose session has begun."""
        self._trees.append(tree)
        self._poller.register(tree.device, select.POLLIN)

    def listen(self, listener: Listener) -> None:
        """Answer the calls that are caught, by ``answers``."""
        self._listener = listener
        self._poller.register(listener.fileno(), select.POLLIN)

    def begun(self) -> None:
        """The program has begun, or failed to: from now on the end of the last one is the end."""
        if self._listener is None:
            self._poller.register(self._alive, select.POLLIN)

    def in_thread(self, work: Callable[[], Callable[[], None]]) -> None:
        """Have something that blocks done aside; what it returns is called in the loop."""

        def run() -> None:
            self._done.put(work())
            os.write(self._wake_writer, b"x")

        threading.Thread(target=run, daemon=True).start()

    def _take_done(self) -> None:
        os.read(self._wake_reader, 1)
        self._done.get()()

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until nobody is left, or the session is gone (``KoboxError``)."""
        session = self._caller.fileno()
        while True:
            events = dict(self._poller.poll(_LOOK_MS if self.under_way else None))
            if session in events:
                self._caller.take()
            for tree in list(self._trees):
                if not tree.take():
                    self._poller.unregister(tree.device)
                    self._trees.remove(tree)
            for descriptor in self._watched.keys() & events.keys():
                self._watched[descriptor]()
            listener = self._listener
            found = events.get(listener.fileno() if listener is not None else self._alive, 0)
            if listener is not None and found & select.POLLIN:
                self._serve_call(listener)
            elif found:
                return
            if not events:
                self._look_after_callers()

    def _serve_call(self, listener: Listener) -> None:
        caught = listener.receive()
        if caught is not None:
            self.answers.serve(caught)

    def _look_after_callers(self) -> None:
        """Who died, or has a signal to see to, wants its call to end."""
        for caught, request in list(self.under_way.values()):
            assert self._listener is not None
            if not self._listener.waits(caught) or processes.is_signalled(caught.pid):
                self._caller.cancel(request)


def serve(loop: Loop, tell: Callable[[str], None]) -> int:
    """Run the loop; what goes wrong is told in one line."""
    try:
        loop.run()
    except KoboxError as error:
        tell(f"kobox enter: {error}")
        return error.exit_code
    return 0
