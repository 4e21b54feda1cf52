"""The server process of one session: ``python -m kobox.session.server FOLDER LOCK READY``.

The kernel runs in one thread (``worker``), the event loop with its clients in another. ``READY`` is a descriptor on
which lines of JSON tell whoever started this how the boot goes; after ``{"ready": …}`` or ``{"error": …}`` it is
closed. The ``LOCK``, a descriptor too, is held until the process ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kobox import __version__
from kobox.errors import KoboxError, NotModelled, UsageError
from kobox.session import boot, places, saved
from kobox.session.calls import Calls, open_calls
from kobox.session.events import KINDS, EventLog
from kobox.session.faults import as_data, status_of
from kobox.session.routes import ROUTES, Call, Route
from kobox.session.watcher import BareUevents, NetlinkUevents, Uevents, Watcher
from kobox.session.worker import Request, Worker

if TYPE_CHECKING:
    from kobox.bare.kernel import BareKernel
    from kobox.box import Kernel
    from kobox.devices.plug import Plugged

_LARGEST_BODY = 256 << 20
_LONGEST_LINE = 1 << 20
"""Of a request: a module's parameters stand in its query."""
_KEPT_OPEN = 86_400
"""Seconds for which a client may say nothing on a connection that it keeps."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Session:
    """One kernel, its worker thread, its events. ``open`` boots; everything that touches the kernel runs in the
    worker."""

    kernel: Kernel | BareKernel
    watcher: Watcher

    def __init__(self, name: str, folder: Path, plan: boot.BootPlan, tell: boot.Progress) -> None:
        self.name, self.folder, self.plan = name, folder, plan
        self.events = EventLog()
        self.started = time.time()
        self.halted = asyncio.Event()
        self._tell = tell
        self._facts: dict[str, Any] = {}
        self._descriptor = -1
        """In the guest: the socket that uevents are heard with."""
        self.worker = Worker(self._interrupt, self._after)
        self.calls: Calls | None = None

    # -- in the worker ------------------------------------------------------------------------------------------------

    def start(self, request: Request) -> boot.Started:
        """Boot, or take up a saved state."""
        started = (boot.resume if self.plan.restore else boot.start)(self.plan, self._tell)
        self._adopt(started)
        return started

    def reboot(self) -> dict[str, Any]:
        """Another kernel of the same plan; the old one ends only when the new one runs."""
        old, plan = self.kernel, self.plan
        self._adopt(boot.start(plan, lambda text: None))
        if self.calls is not None:
            self.calls.restart()
        old.close()
        self.events.add("reboot", release=self.kernel.release)
        return {"release": self.kernel.release}

    def save(self, state: str) -> dict[str, Any]:
        """Keep the kernel under a name or path."""
        began = time.monotonic()
        kernel = self.image_kernel("state that could be kept")
        options = self.plan.as_data() | {"restore": None}
        kept = saved.write(state, kernel, boot.image_of(self.plan) or kernel.release, self._descriptor, options)
        seconds = round(time.monotonic() - began, 3)
        self.events.add("save", path=str(kept.path), seconds=seconds)
        return {"path": str(kept.path), "bytes": saved.size_of(kept), "seconds": seconds}

    def _adopt(self, started: boot.Started) -> None:
        self.kernel = kernel = started.kernel
        self.devices: dict[int, tuple[Plugged, dict[str, Any]]] = {}
        uevents: Uevents
        if self.is_bare:
            uevents = BareUevents(kernel)  # type: ignore[arg-type]  # it is bare
        else:
            uevents = NetlinkUevents(self.image_kernel("uevents"), started.uevents)
            self._descriptor = uevents.descriptor
        self.watcher = Watcher(kernel, uevents, self.events)
        kernel.guest.machine.on_look = self.watcher.look
        self._after()

    @property
    def is_bare(self) -> bool:
        return self.kernel.modules_folder is None and self.kernel.release.startswith("bare ")

    def image_kernel(self, what: str) -> Kernel:
        """The kernel, where it must be one of an image."""
        if self.is_bare:
            raise NotModelled(f"the bare kernel has no {what}", "boot an image: kobox kernel add --debian")
        return self.kernel  # type: ignore[return-value]  # not bare

    def _interrupt(self, wanted: bool) -> None:
        kernel = getattr(self, "kernel", None)
        if kernel is not None:
            kernel.interrupt(wanted)

    def _after(self) -> None:
        """Behind every request: what happened becomes events, and the facts that anyone may ask for."""
        if not hasattr(self, "watcher"):
            return
        self.watcher.settle()
        self._facts = {
            "release": self.kernel.release,
            "cpu": self.kernel.cpu_name,
            "loader": self.kernel.loader,
            "tainted": self.kernel.tainted,
            "dead": self.kernel.dead,
        }

    # -- for anyone ---------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """What ``kobox ps`` shows; taint and death as of the last request."""
        folder = boot.modules_folder(self.kernel, self.plan)
        running = self.worker.running
        return {
            "name": self.name,
            "pid": os.getpid(),
            "api": places.API,
            "kobox": __version__,
            "image": boot.image_of(self.plan) or self._facts["release"],
            **self._facts,
            "append": self.plan.append,
            "root": self.plan.root,
            "seed": self.plan.seed,
            "variables": self.plan.variables,
            "modules_folder": None if folder is None else str(folder),
            "started": self.started,
            "now": self.kernel.now,
            "running": running.what if running is not None else None,
            "waiting": self.worker.length,
            "served": self.worker.done,
            "stream": self.events.stream,
            "next_event": self.events.next,
        }


class Api:
    """The routes as aiohttp serves them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: dict[tuple[str, str], Handler] = {
            ("GET", "/info"): self._info,
            ("GET", "/events"): self._events,
            ("POST", "/interrupt"): self._interrupt,
            ("POST", "/halt"): self._halt,
            ("GET", "/openapi.json"): self._openapi,
        }

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_errors], client_max_size=_LARGEST_BODY)
        for route in ROUTES:
            handler = self._own.get((route.method, route.path)) or self._queued(route)
            application.router.add_route(route.method, f"/v{places.API}{route.path}", handler)
        return application

    def _queued(self, route: Route) -> Handler:
        """A handler that has the route's work done in the kernel's thread."""
        work = route.work
        assert work is not None

        async def handle(request: web.Request) -> web.Response:
            body = await request.read()
            parts, query = dict(request.match_info), dict(request.query)

            def do(own: Request) -> Any:
                return work(self._session, Call(parts, query, body, own))

            name = request.headers.get("Kobox-Request", "")
            answer = await self._session.worker.do(do, name, f"{route.method} {request.path_qs}")
            if isinstance(answer, bytes):
                return web.Response(body=answer, content_type="application/octet-stream")
            return web.json_response(answer)

        return handle

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(self._session.info())

    async def _interrupt(self, request: web.Request) -> web.Response:
        return web.json_response({"interrupted": self._session.worker.interrupt(request.query.get("request", ""))})

    async def _halt(self, request: web.Request) -> web.Response:
        self._session.halted.set()
        return web.json_response({})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.Response(text=openapi_text(), content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        events = self._session.events
        since, kinds = _since(request), frozenset(filter(None, request.query.get("kinds", "").split(",")))
        unknown = kinds - set(KINDS)
        if unknown:
            raise UsageError(f"no events of kind {', '.join(sorted(unknown))}", f"there are {', '.join(KINDS)}")
        follow = request.query.get("follow", "1") != "0"
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        position = events.position(since)
        await response.write(events.hello(position))
        end = events.next
        while await events.more(position) if follow else position < end:
            position, lines = events.take(position, kinds)
            if lines:
                await response.write(lines)
        await response.write_eof()
        return response


def _since(request: web.Request) -> int | None:
    text = request.query.get("since")
    if text is None:
        return None
    if not text.isdecimal():
        raise UsageError(f"since={text!r} is not a number")
    return int(text)


def openapi_text() -> str:
    """The description of the API that is part of the package."""
    return Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as JSON; one that kobox did not mean to raise goes to the log with its traceback."""
    try:
        return await handler(request)
    except KoboxError as error:
        return web.json_response({"error": as_data(error)}, status=status_of(error))
    except web.HTTPException as error:
        hint = f"this server speaks version {places.API} of the API: GET /v{places.API}/openapi.json"
        wrong = UsageError(f"{request.method} {request.path}: {error.reason}", hint)
        return web.json_response({"error": as_data(wrong)}, status=error.status)
    except Exception as error:  # noqa: BLE001  # the border to clients: the session lives on
        traceback.print_exc()
        fault = KoboxError(f"the server failed: {type(error).__name__}: {error}", "its log has the traceback")
        return web.json_response({"error": as_data(fault)}, status=500)


async def serve(folder: Path, plan: boot.BootPlan, ready: int) -> int:
    """Boot, listen, and answer until somebody halts the session; the process's exit code."""
    tell = _teller(ready)
    session = Session(folder.name, folder, plan, lambda text: tell({"progress": text}))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, session.halted.set)
    session.events.attach(loop)
    booting = asyncio.ensure_future(session.worker.do(session.start, what="boot"))
    ending = asyncio.ensure_future(session.halted.wait())
    await asyncio.wait((booting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not booting.done():
        places.remove(folder)
        os._exit(130)  # in the middle of a boot: nobody waits for its end, and nothing is there to be kept
    try:
        started = booting.result()
    except KoboxError as error:
        tell({"error": as_data(error)})
        return error.exit_code
    runner = web.AppRunner(
        Api(session).application(), handler_cancellation=True, access_log=None, keepalive_timeout=_KEPT_OPEN,
        shutdown_timeout=1.0, max_line_size=_LONGEST_LINE,
    )  # fmt: skip
    await runner.setup()
    await web.SockSite(runner, _listen(folder / places.SOCKET), backlog=512).start()
    session.calls = open_calls(session, folder)
    _note(folder / places.ABOUT, session.info())
    tell({"ready": session.info() | {"loaded": started.loaded, "complaints": started.complaints}})
    os.close(ready)
    await ending
    session.events.close()
    await runner.cleanup()
    await session.worker.stop()
    places.remove(folder)
    return 0


def _teller(ready: int) -> Callable[[dict[str, Any]], None]:
    def tell(message: dict[str, Any]) -> None:
        try:
            os.write(ready, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            sys.exit("whoever started this session has gone")  # before it was ready: nobody knows of it

    return tell


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with places.reachable(path) as name:
        listening.bind(name)
    return listening


def _note(path: Path, about: dict[str, Any]) -> None:
    work = path.with_suffix(".new")
    work.write_text(json.dumps(about))
    os.replace(work, path)


def main(argv: list[str]) -> int:
    os.umask(0o077)
    folder, ready = Path(argv[0]), int(argv[2])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    plan = boot.BootPlan.from_data(json.loads((folder / "plan.json").read_bytes()))
    return asyncio.run(serve(folder, plan, ready))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
