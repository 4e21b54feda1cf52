"""Start the server process of a session and wait until its kernel is ready."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.errors import KoboxError
from kobox.session import places
from kobox.session.faults import from_data

if TYPE_CHECKING:
    from kobox.session.boot import BootPlan


def launch(plan: BootPlan, name: str | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """A new session: what ``GET /v1/info`` says of it, ``loaded`` and ``complaints`` of its boot.

    The server belongs to no terminal and outlives this process. If this one is interrupted before the kernel is ready,
    the server ends too.
    """
    folder, lock = places.claim(name)
    try:
        (folder / "plan.json").write_text(json.dumps(plan.as_data()))
        server, reader = _spawn(folder, lock)
    finally:
        os.close(lock)  # the server has it now
    try:
        return _await_ready(folder, server, reader, progress)
    except BaseException:
        server.terminate()
        server.wait()
        raise


def _spawn(folder: Path, lock: int) -> tuple[subprocess.Popen[bytes], int]:
    reader, writer = os.pipe()
    log = os.open(folder / places.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        server = subprocess.Popen(
            [sys.executable, "-m", "kobox.session.server", str(folder), str(lock), str(writer)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock, writer), start_new_session=True,
            cwd="/",
        )  # fmt: skip
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        os.close(log)
    return server, reader


def _await_ready(
    folder: Path, server: subprocess.Popen[bytes], reader: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    with open(reader, encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                ready: dict[str, Any] = message["ready"]
                server.returncode = 0  # it goes on by itself: nothing is to be waited for
                return ready
            if "error" in message:
                server.wait()
                places.remove(folder)
                raise from_data(message["error"])
            progress(message["progress"])
    code = server.wait()
    last = (folder / places.LOG).read_text(errors="replace").strip().splitlines()[-1:]
    said = f": {last[0]}" if last else ""
    raise KoboxError(f"the session's server ended while it booted (exit code {code}){said}", f"see {folder / 'log'}")
