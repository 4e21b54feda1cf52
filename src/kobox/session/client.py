"""A kernel of another process: the face of ``kobox.boot()``'s kernels, each call a request to the session's server.

Standard library only, and little of it: a command on a running session is mostly the start of its own process. What a
call raises here is what it would raise in one process; ``Errno(EINTR)`` is a call that somebody interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from kobox.errors import KoboxError
from kobox.kernel.face import KernelFace
from kobox.kernel.log import LogRecord
from kobox.kernel.modules import ModuleRecord
from kobox.kernel.records import DirEntry, Status
from kobox.session.faults import from_data
from kobox.session.places import API, SOCKET, Place, gone, the_session
from kobox.session.wire import Connection, Lost, Refused, Reply


def connect(name: str | None = None) -> RemoteKernel:
    """The kernel of a running session: the named one, ``$KOBOX_SESSION``, or the only one."""
    return RemoteKernel(the_session(name))


class RemoteLoad(NamedTuple):
    """A load that has not been asked for yet."""

    data: bytes
    parameters: str
    flags: int


class Outcome(NamedTuple):
    """What the server said of a load. ``trace``: its steps, with ``name`` and ``ms``."""

    result: int
    reason: str
    trace: tuple[StepRecord, ...]


class StepRecord(NamedTuple):
    """One step of a load and its real time in milliseconds."""

    name: str
    ms: float


class RemoteFiles:
    """Files of the kernel's tree, whole ones: the part of ``kernel.files`` that needs no open descriptor."""

    def __init__(self, kernel: RemoteKernel) -> None:
        self._kernel = kernel

    def read(self, path: str) -> bytes:
        """A whole file."""
        return self._kernel.ask("GET", f"/files?path={_quoted(path)}").body

    def write(self, path: str, data: bytes, flags: int | None = None) -> int:
        """One ``write`` of ``data``; ``flags`` are those of open(2), without them ``O_WRONLY``."""
        chosen = "" if flags is None else f"&flags={flags}"
        count: int = self._kernel.answer("PUT", f"/files?path={_quoted(path)}{chosen}", data)["count"]
        return count

    def list(self, path: str) -> list[DirEntry]:
        rows = self._kernel.answer("GET", f"/directory?path={_quoted(path)}")["entries"]
        return [DirEntry(row["name"], row["kind"]) for row in rows]

    def status(self, path: str) -> Status:
        """``lstat``."""
        row = self._kernel.answer("GET", f"/status?path={_quoted(path)}")
        return Status(row["mode"], row["size"], row["uid"], row["gid"])

    def readlink(self, path: str) -> str:
        target: str = self._kernel.answer("GET", f"/link?path={_quoted(path)}")["target"]
        return target


class RemoteKernel(KernelFace):
    """A session's kernel. Not to be shared by threads; each makes its own of the same ``place``."""

    def __init__(self, place: Place) -> None:
        self.place = place
        _check_version(place)
        self._connection = Connection(place.folder / SOCKET)
        self.files = RemoteFiles(self)
        self.last_load: Outcome | None = None
        self._request = 0
        self._about: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The session's name."""
        return self.place.name

    def close(self) -> None:
        """Close the connection; the session goes on."""
        self._connection.close()

    # -- what it is ---------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What ``kobox ps --json`` shows of this session, now. It never waits for the kernel."""
        self._about = self.answer("GET", "/info")
        return self._about

    def _fixed(self, key: str) -> Any:
        """A fact of the session that does not change."""
        return (self._about or self.info())[key]

    @property
    def release(self) -> str:
        return str(self._fixed("release"))

    @property
    def image(self) -> str:
        """What was booted, as it was asked for."""
        return str(self._fixed("image"))

    @property
    def cpu_name(self) -> str:
        return str(self._fixed("cpu"))

    @property
    def loader(self) -> str:
        return str(self._fixed("loader"))

    @property
    def root(self) -> str | None:
        """The root directory whose modules and configuration it has; absolute."""
        value: str | None = self._fixed("root")
        return value

    @property
    def modules_folder(self) -> Path | None:
        """``lib/modules/RELEASE`` of its root or of its image."""
        value: str | None = self._fixed("modules_folder")
        return None if value is None else Path(value)

    @property
    def now(self) -> float:
        """Virtual seconds since power-on."""
        return float(self.info()["now"])

    @property
    def tainted(self) -> int:
        return int(self.info()["tainted"])

    # -- modules ------------------------------------------------------------------------------------------------------

    def start_load(self, data: bytes, parameters: str = "", flags: int = 0) -> RemoteLoad:
        return RemoteLoad(data, parameters, flags)

    def finish_load(self, operation: RemoteLoad) -> int:
        query = f"/modules?parameters={_quoted(operation.parameters)}&flags={operation.flags}"
        said = self.answer("POST", query, operation.data)
        trace = tuple(StepRecord(row["name"], row["ms"]) for row in said["steps"])
        self.last_load = Outcome(said["result"], said["reason"], trace)
        return self.last_load.result

    def explain_last_load(self) -> str:
        """Why the last load by this client was refused; empty where it was not."""
        return self.last_load.reason if self.last_load is not None else ""

    def delete_module(self, name: str, flags: int) -> int:
        result: int = self.answer("DELETE", f"/modules/{_quoted(name)}?flags={flags}")["result"]
        return result

    @property
    def modules(self) -> list[ModuleRecord]:
        rows = self.answer("GET", "/modules")["modules"]
        return [ModuleRecord(**row | {"users": tuple(row["users"])}) for row in rows]

    def plug(self, device: str, probe: bool = True) -> dict[str, Any]:
        """Plug a device in by its name (``devices.catalogue``; paths are the server's); what came of it, and the number
        by which it is unplugged."""
        return self.answer("POST", "/devices", json.dumps({"device": device, "probe": probe}).encode())

    def unplug(self, number: int, surprise: bool = False) -> None:
        """Take a device away again."""
        self.answer("DELETE", f"/devices/{number}?surprise={int(surprise)}")

    @property
    def devices(self) -> list[dict[str, Any]]:
        """What is plugged in, as ``plug`` told it."""
        found: list[dict[str, Any]] = self.answer("GET", "/devices")["devices"]
        return found

    def leaks(self) -> tuple[dict[str, Any], ...]:
        return tuple(self.answer("GET", "/memory")["leaks"])

    def memory_reports(self) -> tuple[dict[str, Any], ...]:
        return tuple(self.answer("GET", "/memory")["reports"])

    # -- log, time, calls ---------------------------------------------------------------------------------------------

    def dmesg(self, *, boot: bool = False) -> list[LogRecord]:
        """The log since the session began; with ``boot`` everything."""
        return [_record(row) for row in self.answer("GET", f"/log?boot={int(boot)}")["records"]]

    def log_start(self) -> int:
        """Sequence number of the first record that was not cleared; of the next one where there is none."""
        start: int = self.answer("GET", "/log/start")["start"]
        return start

    def syslog(self, action: int, value: int = 0) -> int:
        """``syslog(2)`` without a buffer: clear the log (5), console off, on, at a level (6, 7, 8)."""
        body = json.dumps({"action": action, "value": value}).encode()
        result: int = self.answer("POST", "/syslog", body)["result"]
        return result

    def call(self, function: str | int, *arguments: int) -> int:
        body = json.dumps({"function": function, "arguments": arguments}).encode()
        result: int = self.answer("POST", "/call", body)["result"]
        return result

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.answer("POST", "/sleep", json.dumps({"seconds": seconds}).encode())

    def set_timeout(self, seconds: float) -> None:
        """How much virtual time one call into the kernel may take, for every client."""
        self.answer("POST", "/timeout", json.dumps({"seconds": seconds}).encode())

    # -- events -------------------------------------------------------------------------------------------------------

    def events(
        self, since: int | None = None, kinds: Sequence[str] = (), follow: bool = True
    ) -> Iterator[dict[str, Any]]:
        """What happens, as it happens: log records, steps of loads, uevents, taint (docs/sessions.md has the fields).

        ``since``: go on behind this sequence number, 0 from the oldest that is kept; None: from now on. ``kinds``: only
        these, and gaps. Without ``follow`` it ends with what there is. The first event is always a ``hello``.
        """
        query = [f"follow={int(follow)}"]
        query += [f"since={since}"] if since is not None else []
        query += [f"kinds={','.join(kinds)}"] if kinds else []
        connection = Connection(self._connection_path)
        try:
            for line in connection.lines(f"/v{API}/events?{'&'.join(query)}"):
                yield json.loads(line)
        except Refused as refused:
            raise self._error(refused.reply) from None
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise gone(self.place) from error
        except Lost:
            return  # the session has ended, and so have its events
        finally:
            connection.close()

    @property
    def _connection_path(self) -> Path:
        return self.place.folder / SOCKET

    # -- life ---------------------------------------------------------------------------------------------------------

    def interrupt(self, wanted: bool = True, request: str = "") -> bool:
        """End the call that runs now, whoever made it; with ``request`` only the one with this id.

        False when nothing runs. May be called while another thread waits for that call.
        """
        if not wanted:
            return False  # the server takes back what has found no call to end
        with_own = Connection(self._connection_path)
        try:
            reply = with_own.request("POST", f"/v{API}/interrupt?request={_quoted(request)}")
        finally:
            with_own.close()
        return bool(json.loads(reply.body)["interrupted"])

    def save(self, state: str) -> dict[str, Any]:
        """Keep the whole state on disk, under a name or in a folder given by its path; then it is there to stay.

        The value says where (``path``), how large (``bytes``) and how long it took (``seconds``).
        """
        return self.answer("POST", "/save", json.dumps({"name": state}).encode())

    def reboot(self) -> dict[str, Any]:
        """Boot anew with the same options; what modules-load.d names is loaded again."""
        self._about = None
        return self.answer("POST", "/reboot")

    def halt(self) -> None:
        """End the session."""
        self.answer("POST", "/halt")

    # -- requests -----------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, body: bytes = b"") -> dict[str, Any]:
        """The JSON object that a request (path below ``/v1``) is answered with."""
        found: dict[str, Any] = json.loads(self.ask(method, target, body).body)
        return found

    def ask(self, method: str, target: str, body: bytes = b"") -> Reply:
        """The answer to a request; an error becomes the exception that it stands for. Ctrl-C interrupts the kernel's
        call and is raised once that has ended."""
        self._request += 1
        mine = f"{os.getpid()}-{id(self):x}-{self._request}"
        try:
            reply = self._connection.request(
                method, f"/v{API}{target}", body, {"Kobox-Request": mine}, lambda: self.interrupt(request=mine)
            )
        except (FileNotFoundError, ConnectionRefusedError, Lost) as error:
            raise gone(self.place) from error
        except PermissionError as error:
            raise KoboxError(f"session {self.name!r}: permission denied", "sessions are private to a user") from error
        if reply.status != 200:
            raise self._error(reply)
        return reply

    def _error(self, reply: Reply) -> KoboxError:
        try:
            return from_data(json.loads(reply.body)["error"])
        except (ValueError, KeyError):
            return _other_version(self.place)


def _check_version(place: Place) -> None:
    if place.about.get("api", API) != API:
        raise _other_version(place)


def _other_version(place: Place) -> KoboxError:
    from kobox import __version__

    theirs = f"version {place.about.get('api', 'unknown')} (kobox {place.about.get('kobox', 'unknown')})"
    return KoboxError(
        f"session {place.name!r} speaks {theirs}, this is kobox {__version__} with version {API}",
        f"kill {place.pid} ends it; or use the kobox that started it",
    )


def _record(row: dict[str, Any]) -> LogRecord:
    return LogRecord(
        row["sequence"], row["time"], row["level"], row["text"], row["facility"], row["caller"], row["continued"]
    )


def _quoted(text: str) -> str:
    return quote(text, safe="/", errors="surrogateescape")
