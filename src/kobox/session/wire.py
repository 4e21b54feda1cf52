"""HTTP/1.1 over a Unix socket, as much of it as a client of kobox's own server needs: small, and quick to import."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kobox.errors import KoboxError
from kobox.session.places import reachable

_CHUNK = 1 << 16


class Reply(NamedTuple):
    """``headers`` have names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(KoboxError):
    """The server went away in the middle of an answer."""


class Connection:
    """One connection, made when it is first needed and kept for the next request."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer = b""

    def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        interrupt: Callable[[], object] | None = None,
    ) -> Reply:
        """Send and wait for the whole answer. ``interrupt`` is called when Ctrl-C is pressed before the answer begins;
        the answer is awaited all the same, and the ``KeyboardInterrupt`` raised after it."""
        interrupted = False
        try:
            self._send(method, target, body, headers or {})
            if interrupt is not None:
                interrupted = self._await(interrupt)
            status, answered = self._head()
            reply = Reply(status, answered, b"".join(self._body(answered)))
        except BaseException:
            self.close()
            raise
        if answered.get("connection") == "close":
            self.close()
        if interrupted:
            raise KeyboardInterrupt
        return reply

    def lines(self, target: str) -> Iterator[bytes]:
        """The lines of an answer that goes on, as they come; ``Refused`` when it is an error."""
        try:
            self._send("GET", target, b"", {})
            status, headers = self._head()
            if status != 200:
                raise Refused(Reply(status, headers, b"".join(self._body(headers))))
            rest = b""
            for part in self._body(headers):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
            if rest:
                yield rest
        finally:
            self.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> None:
        head = [f"{method} {target} HTTP/1.1", "Host: kobox", f"Content-Length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with reachable(self._path) as name:
                self._socket.connect(name)
        try:
            self._socket.sendall("\r\n".join([*head, "", ""]).encode("ascii") + body)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Lost("the server has closed the connection") from error

    def _await(self, interrupt: Callable[[], object]) -> bool:
        """Until the answer begins; whether Ctrl-C was pressed meanwhile."""
        assert self._socket is not None
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        try:
            poller.poll()
        except KeyboardInterrupt:
            interrupt()
            if not poller.poll(_PATIENCE_MS):
                raise  # the connection is closed, and with it the server ends the call
            return True
        return False

    def _receive(self) -> bytes:
        assert self._socket is not None
        try:
            data = self._socket.recv(_CHUNK)
        except ConnectionResetError as error:
            raise Lost("the server has ended") from error
        if not data:
            raise Lost("the server has ended")
        return data

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._buffer += self._receive()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, size: int) -> bytes:
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            parts.append(self._receive())
            have += len(parts[-1])
        data = b"".join(parts)
        self._buffer = data[size:]
        return data[:size]

    def _head(self) -> tuple[int, dict[str, str]]:
        status = int(self._line().split()[1])
        headers = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def _body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding") != "chunked":
            yield self._exactly(int(headers.get("content-length", "0")))
            return
        while size := int(self._line(), 16):
            yield self._exactly(size)
            self._exactly(2)
        self._exactly(2)


class Refused(Exception):
    """A stream that the server did not begin; ``reply`` says why."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.status)


_PATIENCE_MS = 5000
"""How long the end of an interrupted call is waited for."""
