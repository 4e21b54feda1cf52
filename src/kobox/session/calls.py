"""System calls for programs outside: the socket beside the HTTP one, for who makes thousands of small calls.

A frame is two lengths (``<II``), a JSON head and a blob. A request's head is ``{"id", "do", …}``:

- ``calls``: a list of ``[name, argument, …]``, made one after the other in the guest until one fails; behind a failure
  only ``close`` goes on. An argument is a number or an object: ``{"in": n}`` the next n bytes of the blob,
  ``{"out": n}`` room whose bytes come back, ``{"got": n}`` the same, cut to the call's result, ``{"both": n}`` in and
  out, ``{"of": k}`` the result of call k. The answer has ``results`` (a negative errno as the kernel says it) and
  ``sizes`` of what comes back in its blob.
- ``load`` (``parameters``, ``flags``; the blob is the file), ``init`` (``length``, ``parameters``), ``delete``
  (``name``, ``flags``): the system calls of modules; ``result``, and ``reason`` for people.
- ``cancel`` (``which``): a signal for the request of that id; it has no answer of its own.
- ``follow``: virtual time keeps up with the clock of the host from now on.

``comm`` names the caller. Every answer has ``begun``, the number of requests that the kernel had begun then: what it
says holds for as long as the file ``begun`` in the session's folder says the same. Answers come in any order: a call
that sleeps in the guest stays in flight, and while one does virtual time follows the host's. ``died`` in an answer: the
guest killed the caller's task, by this signal. Descriptors that a client's calls opened are closed when it goes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import socket
import struct
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.errors import KoboxError
from kobox.session import flights, places

if TYPE_CHECKING:
    from kobox.session.server import Session
    from kobox.session.worker import Request

HEAD = struct.Struct("<II")
_COUNT = struct.Struct("<Q")
_LARGEST = 256 << 20
_TICK_SECONDS = 0.01
"""How often calls in flight are looked at."""
_LONGEST_CATCH_UP = 300.0
"""Seconds by which virtual time is put forward at once, at most."""
_LEAST_LAG = 0.02
_TOLD_AGAIN_SECONDS = 0.1


class Calls:
    """All channels of one session. Flights are touched by the kernel's thread only."""

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        with open(folder / places.BEGUN, "w+b") as file:
            file.truncate(_COUNT.size)
            self._begun = mmap.mmap(file.fileno(), _COUNT.size)
        self._flights: list[flights.Flight] = []
        self._channels: set[Channel] = set()
        self._follows = False
        self._anchor = (0.0, 0.0)
        """The host's clock and the guest's, in seconds, when they last agreed."""
        session.worker.on_begin = self._note
        session.worker.pause = lambda: _TICK_SECONDS if self._flights else None
        session.worker.on_pause = self._tick

    def _note(self, number: int) -> None:
        _COUNT.pack_into(self._begun, 0, number)

    def listen(self, path: Path) -> None:
        """Accept clients, in threads of their own, until the process ends."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with places.reachable(path) as name:
            listening.bind(name)
        listening.listen(64)
        threading.Thread(target=self._accept, args=(listening,), name="kobox-calls", daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            client, _ = listening.accept()
            channel = Channel(self, client)
            self._channels.add(channel)
            threading.Thread(target=channel.read, name="kobox-calls-client", daemon=True).start()

    # -- in the kernel's thread -----------------------------------------------------------------------------------

    def begin(self, flight: flights.Flight) -> None:
        """Carry a request out, as far as it goes without waiting for time to pass."""
        self._catch_up()
        self._go_on(flight, flights.PATIENCE_NS)
        if flight.ended:
            self._look_at_others()
        else:
            self._flights.append(flight)

    def follow(self) -> None:
        if not self._follows and self._session.plan.seed is None:
            self._follows = True
            self._anchor = (time.monotonic(), self._session.kernel.now)

    def cancel(self, flight: flights.Flight) -> None:
        """Somebody wants a call in flight to end."""
        if flight not in self._flights:
            return
        self._flights.remove(flight)
        flight.interrupt()
        flight.deliver()

    def restart(self) -> None:
        """Another kernel runs now: whatever clients had in the old one is gone, and so are they."""
        self._flights.clear()
        for channel in list(self._channels):
            channel.descriptors.clear()
            channel.hang_up()

    def leave(self, channel: Channel) -> None:
        """A client has gone: end what it waits for, close what it opened."""
        self._channels.discard(channel)
        for flight in [one for one in self._flights if one.channel is channel]:
            self.cancel(flight)
        syscalls = self._session.image_kernel("system calls").syscalls
        for descriptor in sorted(channel.descriptors):
            syscalls.call("close", descriptor)
        channel.descriptors.clear()

    def _tick(self, request: Request) -> None:
        """While calls are in flight, virtual time follows the host's."""
        if not self._follows:
            self._session.kernel.sleep(_TICK_SECONDS)
        self._catch_up(0.0)
        self._look_at_others()

    def _look_at_others(self) -> None:
        for flight in list(self._flights):
            if flight.ready:
                self._go_on(flight, 0)
                if flight.ended:
                    self._flights.remove(flight)

    def _go_on(self, flight: flights.Flight, patience_ns: int) -> None:
        flight.go_on(patience_ns)
        if flight.ended:
            flight.deliver()

    def _catch_up(self, least: float = _LEAST_LAG) -> None:
        if not self._follows:
            return
        now, virtual = time.monotonic(), self._session.kernel.now
        lag = (now - self._anchor[0]) - (virtual - self._anchor[1])
        if lag > least:
            self._session.kernel.sleep(min(lag, _LONGEST_CATCH_UP))
        if lag < 0 or lag > _LONGEST_CATCH_UP:
            self._anchor = (now, self._session.kernel.now)


class Channel:
    """One client's connection."""

    def __init__(self, calls: Calls, client: socket.socket) -> None:
        self._calls, self._socket = calls, client
        self.session = calls._session
        self.descriptors: set[int] = set()
        self._requests: dict[int, tuple[Request, flights.Flight]] = {}
        self._late: list[bytes] = []
        self._lock = threading.Lock()

    def read(self) -> None:
        """The thread of this client: until it goes."""
        stream = self._socket.makefile("rb", buffering=1 << 16)
        try:
            while len(lengths := stream.read(HEAD.size)) == HEAD.size:
                head, blob = HEAD.unpack(lengths)
                if head + blob > _LARGEST:
                    break
                self._take(json.loads(stream.read(head)), stream.read(blob))
        except (OSError, ValueError, KeyError, KoboxError) as error:
            traceback.print_exception(error)  # in the server's log: this client speaks another language
        for request, _ in list(self._requests.values()):
            self.session.worker.take_back(request)
        self.session.worker.submit(lambda _: self._calls.leave(self), "leave", self._gone)

    def hang_up(self) -> None:
        """End the connection; its thread sees to the rest."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _gone(self, result: Any, error: BaseException | None) -> None:
        self._socket.close()
        if error is not None:
            traceback.print_exception(error)

    def _take(self, head: dict[str, Any], blob: bytes) -> None:
        """In the client's thread: one frame."""
        worker, do = self.session.worker, head.get("do", "calls")
        if do == "cancel":
            self._cancel(int(head["which"]))
            return
        if do == "follow":
            worker.submit(lambda _: self._calls.follow(), "follow", lambda result, error: None)
            return
        number = int(head["id"])
        flight = flights.make(do, self, head, blob)
        what = str(head.get("calls", [[do]])[0][0])
        request = worker.submit(lambda _: self._calls.begin(flight), what, lambda _, error: self._ended(flight, error))
        self._requests[number] = (request, flight)

    def _ended(self, flight: flights.Flight, error: BaseException | None) -> None:
        """In the kernel's thread: the first part of a request is over."""
        if error is not None and not flight.delivered:
            flight.fail(error)

    def _cancel(self, number: int) -> None:
        request, flight = self._requests.get(number, (None, None))
        if request is None or flight is None or flight.delivered:
            return
        worker = self.session.worker
        worker.take_back(request)
        worker.submit(lambda _: self._calls.cancel(flight), "cancel", lambda result, error: None)
        if worker.running is request:  # the signal may have come too early
            threading.Timer(_TOLD_AGAIN_SECONDS, self._cancel, (number,)).start()

    def send(self, number: int, head: dict[str, Any], blob: bytes = b"") -> None:
        """In the kernel's thread: an answer. A client that does not read it holds up nobody."""
        self._requests.pop(number, None)
        head |= {"id": number, "begun": self.session.worker.begun}
        text = json.dumps(head, separators=(",", ":")).encode()
        frame = b"".join((HEAD.pack(len(text), len(blob)), text, blob))
        with self._lock:
            if not self._late:
                try:
                    sent = self._socket.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    return  # it has gone, and its own thread sees that
                if sent == len(frame):
                    return
                frame = frame[sent:]
                threading.Thread(target=self._flush, daemon=True).start()
            self._late.append(frame)

    def _flush(self) -> None:
        while True:
            with self._lock:
                if not self._late:
                    return
                frame = self._late[0]
            try:
                self._socket.sendall(frame)
            except OSError:
                return
            with self._lock:
                self._late.pop(0)


def open_calls(session: Session, folder: Path) -> Calls | None:
    """Serve system calls at ``folder/calls``; of a bare kernel there are none."""
    if session.is_bare:
        return None
    calls = Calls(session, folder)
    calls.listen(folder / places.CALLS)
    return calls
