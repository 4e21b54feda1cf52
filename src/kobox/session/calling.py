"""The client's end of ``calls``: requests that are answered later, for a loop of the caller's own.

Standard library only. ``Caller.ask`` sends; ``Caller.take`` reads what has come and calls back.
"""

from __future__ import annotations

import json
import mmap
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kobox.errors import KoboxError
from kobox.session.faults import from_data
from kobox.session.places import BEGUN, CALLS, Place, gone, reachable

_HEAD = struct.Struct("<II")
_COUNT = struct.Struct("<Q")
_CHUNK = 1 << 20

Argument = int | dict[str, int]
Call = Sequence[str | Argument]
"""A system call's name and arguments, as ``kobox.session.calls`` takes them."""


class Answer(NamedTuple):
    """``results``: of each call, a negative errno as the kernel says it. ``buffers``: what came back. ``died``: the
    signal that killed the caller's task in the guest, 0 where none did. ``error``: kobox or the kernel failed."""

    results: tuple[int, ...]
    buffers: tuple[bytes, ...] = ()
    died: int = 0
    reason: str = ""
    error: KoboxError | None = None
    begun: int = 0
    """Holds as long as ``Caller.begun`` is the same."""


Then = Callable[[Answer], None]


class Caller:
    """One connection to a session. Not for several threads."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with reachable(place.folder / CALLS) as name:
                self._socket.connect(name)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise gone(place) from error
        with open(place.folder / BEGUN, "rb") as file:
            self._begun = mmap.mmap(file.fileno(), _COUNT.size, prot=mmap.PROT_READ)
        self._buffer = b""
        self._next = 0
        self._then: dict[int, Then] = {}

    @property
    def begun(self) -> int:
        """How many requests the kernel has begun, of anybody's: as long as that does not change, nothing does."""
        count: int = _COUNT.unpack_from(self._begun)[0]
        return count

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def follow(self) -> None:
        """From now on the kernel's time keeps up with this machine's."""
        self._send({"do": "follow"})

    def ask(self, calls: Sequence[Call], data: bytes, then: Then, comm: str = "") -> int:
        """Have system calls made; the value names the request for ``cancel``."""
        return self._ask({"calls": calls, "comm": comm} if comm else {"calls": calls}, data, then)

    def load(self, data: bytes | int, parameters: str | None, flags: int, then: Then, comm: str = "") -> int:
        """``finit_module``: the file's bytes, or the errno for which it cannot be read; ``results`` has one number."""
        head = {"do": "load", "parameters": parameters, "flags": flags, "comm": comm}
        return self._ask(head | ({"unreadable": data} if isinstance(data, int) else {}), _bytes(data), then)

    def init(self, data: bytes, length: int, parameters: str | None, then: Then, comm: str = "") -> int:
        """``init_module``: what can be read of the caller's memory, and the length that it said."""
        return self._ask({"do": "init", "length": length, "parameters": parameters, "comm": comm}, data, then)

    def delete(self, name: str | None, flags: int, then: Then, comm: str = "") -> int:
        """``delete_module``; None: what it pointed to cannot be read."""
        return self._ask({"do": "delete", "name": name, "flags": flags, "comm": comm}, b"", then)

    def cancel(self, number: int) -> None:
        """Have a request end as by a signal; it is answered all the same."""
        if number in self._then:
            self._send({"do": "cancel", "which": number})

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._then)

    def take(self) -> None:
        """Read what has come, wait if nothing has, and call back for each answer that is whole."""
        data = self._socket.recv(_CHUNK)
        if not data:
            raise gone(self._place)
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            head, blob = _HEAD.unpack_from(self._buffer)
            whole = _HEAD.size + head + blob
            while len(self._buffer) < whole:
                data = self._socket.recv(max(_CHUNK, whole - len(self._buffer)))
                if not data:
                    raise gone(self._place)
                self._buffer += data
            text = self._buffer[_HEAD.size : _HEAD.size + head]
            returned = self._buffer[_HEAD.size + head : whole]
            self._buffer = self._buffer[whole:]
            self._answer(json.loads(text), returned)

    def _answer(self, head: dict[str, Any], returned: bytes) -> None:
        then = self._then.pop(head["id"])
        died = head.get("died", 0)
        if "error" in head:
            then(Answer((), error=from_data(head["error"]), died=died, begun=head["begun"]))
            return
        buffers, at = [], 0
        for size in head.get("sizes", ()):
            buffers.append(returned[at : at + size])
            at += size
        results = tuple(head["results"]) if "results" in head else (head["result"],)
        then(Answer(results, tuple(buffers), died, head.get("reason", ""), begun=head["begun"]))

    def _ask(self, head: dict[str, Any], data: bytes, then: Then) -> int:
        self._next += 1
        self._then[self._next] = then
        self._send(head | {"id": self._next}, data)
        return self._next

    def _send(self, head: dict[str, Any], data: bytes = b"") -> None:
        text = json.dumps(head, separators=(",", ":")).encode()
        try:
            self._socket.sendall(b"".join((_HEAD.pack(len(text), len(data)), text, data)))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise gone(self._place) from error


def _bytes(data: bytes | int) -> bytes:
    return b"" if isinstance(data, int) else data
