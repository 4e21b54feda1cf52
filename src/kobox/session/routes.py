"""The requests that the server answers: one row each, and what each does with the kernel.

``openapi.json`` describes the same rows for people and programs; a test compares the two. A row with ``work`` runs in
the kernel's thread, in the order of arrival; ``work(session, call)`` returns what becomes JSON (bytes stay bytes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from kobox.errors import KoboxError, UsageError
from kobox.ko import decompress, parse_module
from kobox.session.watcher import log_fields
from kobox.session.worker import Request

if TYPE_CHECKING:
    from kobox.session.server import Session

_CHUNK = 1 << 16
_LONGEST_FILE = 64 << 20
"""A file of the kernel's tree may be endless (/dev/zero)."""
O_WRONLY, O_RDONLY = 1, 0


class Call(NamedTuple):
    """One request as a route's work sees it: parts of the path, the query, the body, and the request in the queue."""

    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    request: Request

    def text(self, name: str) -> str:
        """A value of the query that must be there."""
        if name not in self.query:
            raise UsageError(f"the request lacks {name!r} in its query")
        return self.query[name]

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.query.get(name, default))
        except ValueError:
            raise UsageError(f"{name}={self.query[name]!r} is not a number") from None

    def json(self) -> dict[str, Any]:
        """The body as an object."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise UsageError(f"the request's body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UsageError("the request's body is not a JSON object")
        return value

    def field(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A member of the body that must be there."""
        value = self.json().get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise UsageError(f"{name!r} in the request's body: found {value!r}, expected {wanted}")
        return value


Work = Callable[["Session", Call], Any]


class Route(NamedTuple):
    """``path`` is below ``/v1``. ``work`` None: the server answers it itself, without waiting for the kernel."""

    method: str
    path: str
    work: Work | None


# -- modules ----------------------------------------------------------------------------------------------------------


def list_modules(session: Session, call: Call) -> dict[str, Any]:
    return {"modules": [record._asdict() for record in session.kernel.modules]}


def load_module(session: Session, call: Call) -> dict[str, Any]:
    kernel, watcher = session.kernel, session.watcher
    data = bytes(decompress(call.body, "module"))
    operation: Any = kernel.start_load(data, call.query.get("parameters", ""), call.number("flags", 0))
    watcher.loading(operation, _name_in(data))
    result, reason = -5, "the load did not end"
    try:
        result = kernel.finish_load(operation)
        reason = kernel.explain_last_load()
    except KoboxError as error:
        reason = error.text
        raise
    finally:
        watcher.loaded(result, reason)
    steps = [{"name": step.name, "ms": round(step.ms, 3)} for step in operation.trace]
    return {"result": result, "reason": reason, "steps": steps}


def _name_in(data: bytes) -> str:
    """What the file calls the module, for events; the kernel says what it thinks of a broken one."""
    try:
        return parse_module(data, "module").name
    except KoboxError:
        return ""


def unload_module(session: Session, call: Call) -> dict[str, Any]:
    name = call.parts["name"]
    result = session.kernel.delete_module(name, call.number("flags", os.O_NONBLOCK))
    session.watcher.unloaded(name, result)
    return {"result": result}


def memory(session: Session, call: Call) -> dict[str, Any]:
    return {"leaks": list(session.kernel.leaks()), "reports": list(session.kernel.memory_reports())}


# -- files ------------------------------------------------------------------------------------------------------------


def read_file(session: Session, call: Call) -> bytes:
    """In pieces, so that an endless file ends where its reader goes away."""
    files, path = session.kernel.files, call.text("path")
    if session.is_bare:
        return bytes(files.read(path))
    descriptor = files.open(path, O_RDONLY)
    parts, size = [], 0
    try:
        while chunk := files.read_from(descriptor, _CHUNK):
            parts.append(chunk)
            size += len(chunk)
            call.request.check()
            if size > _LONGEST_FILE:
                raise KoboxError(f"{path}: has no end within {_LONGEST_FILE >> 20} MiB")
    finally:
        files.close(descriptor)
    return b"".join(parts)


def write_file(session: Session, call: Call) -> dict[str, Any]:
    path = call.text("path")
    if "flags" in call.query and not session.is_bare:
        return {"count": session.kernel.files.write(path, call.body, call.number("flags", O_WRONLY))}
    return {"count": session.kernel.files.write(path, call.body)}


def list_directory(session: Session, call: Call) -> dict[str, Any]:
    return {"entries": [entry._asdict() for entry in session.kernel.files.list(call.text("path"))]}


def file_status(session: Session, call: Call) -> dict[str, Any]:
    status: dict[str, Any] = session.image_kernel("files' status").files.status(call.text("path"))._asdict()
    return status


def read_link(session: Session, call: Call) -> dict[str, Any]:
    return {"target": session.image_kernel("links").files.readlink(call.text("path"))}


# -- log, time, calls -------------------------------------------------------------------------------------------------


def read_log(session: Session, call: Call) -> dict[str, Any]:
    return {"records": [log_fields(one) for one in session.kernel.dmesg(boot=bool(call.number("boot", 0)))]}


def log_start(session: Session, call: Call) -> dict[str, Any]:
    return {"start": session.kernel.log_start()}


def syslog(session: Session, call: Call) -> dict[str, Any]:
    return {"result": session.kernel.syslog(call.field("action", int), call.json().get("value", 0))}


def call_function(session: Session, call: Call) -> dict[str, Any]:
    arguments = call.json().get("arguments", [])
    if not isinstance(arguments, list) or not all(type(one) is int for one in arguments) or len(arguments) > 6:
        raise UsageError("'arguments' in the request's body: expected at most six numbers")
    return {"result": session.kernel.call(call.field("function", (str, int)), *arguments)}


def sleep(session: Session, call: Call) -> dict[str, Any]:
    session.kernel.sleep(float(call.field("seconds", (int, float))))
    return {"now": session.kernel.now}


def set_timeout(session: Session, call: Call) -> dict[str, Any]:
    session.kernel.set_timeout(float(call.field("seconds", (int, float))))
    return {}


# -- devices ----------------------------------------------------------------------------------------------------------


def list_devices(session: Session, call: Call) -> dict[str, Any]:
    return {"devices": [{"number": number} | told for number, (_, told) in session.devices.items()]}


def plug_device(session: Session, call: Call) -> dict[str, Any]:
    """The model is made here, in the server: by name, by numbers, or from a file of this host."""
    from kobox.devices.catalogue import model_of
    from kobox.devices.plug import as_data

    kernel, text = session.image_kernel("PCI bus"), call.field("device", str)
    before = len(kernel.dmesg())
    plugged = kernel.plug(model_of(text), probe=bool(call.json().get("probe", True)))
    number = max(session.devices, default=0) + 1
    told = as_data(text, plugged, [record.text for record in kernel.dmesg()[before:]])
    session.devices[number] = (plugged, told)
    return {"number": number} | told


def unplug_device(session: Session, call: Call) -> dict[str, Any]:
    name = call.parts["number"]
    number = int(name) if name.isdecimal() else 0
    if number not in session.devices:
        raise UsageError(f"no device {name} is plugged in", hint="kobox plug --list")
    plugged, _ = session.devices[number]
    session.image_kernel("PCI bus").unplug(plugged, surprise=bool(call.number("surprise", 0)))
    del session.devices[number]
    return {}


# -- life -------------------------------------------------------------------------------------------------------------


def save(session: Session, call: Call) -> dict[str, Any]:
    return session.save(call.field("name", str))


def reboot(session: Session, call: Call) -> dict[str, Any]:
    return session.reboot()


ROUTES: tuple[Route, ...] = (
    Route("GET", "/info", None),
    Route("GET", "/events", None),
    Route("POST", "/interrupt", None),
    Route("POST", "/halt", None),
    Route("GET", "/openapi.json", None),
    Route("GET", "/modules", list_modules),
    Route("POST", "/modules", load_module),
    Route("DELETE", "/modules/{name}", unload_module),
    Route("GET", "/memory", memory),
    Route("GET", "/files", read_file),
    Route("PUT", "/files", write_file),
    Route("GET", "/directory", list_directory),
    Route("GET", "/status", file_status),
    Route("GET", "/link", read_link),
    Route("GET", "/log", read_log),
    Route("GET", "/log/start", log_start),
    Route("POST", "/syslog", syslog),
    Route("POST", "/call", call_function),
    Route("POST", "/sleep", sleep),
    Route("POST", "/timeout", set_timeout),
    Route("GET", "/devices", list_devices),
    Route("POST", "/devices", plug_device),
    Route("DELETE", "/devices/{number}", unplug_device),
    Route("POST", "/save", save),
    Route("POST", "/reboot", reboot),
)
