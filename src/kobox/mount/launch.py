"""A process of its own for a mounted image: ``kobox mount`` returns when it serves, and it goes on alone.

What it tells while it starts comes over a pipe, a line of JSON each: ``progress``, then ``ready`` or ``error``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from kobox.errors import KoboxError
from kobox.mount.options import MountPlan


def launch(plan: MountPlan, log: str | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """What ``MountedImage.as_data`` says of it. ``log``: the file that gets its warnings."""
    reader, writer = os.pipe()
    said = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        server = subprocess.Popen(
            [sys.executable, "-m", "kobox.mount.launch", str(writer), json.dumps(plan.as_data())],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=(writer,), start_new_session=True, cwd="/",
        )  # fmt: skip
    finally:
        os.close(writer)
        os.close(said)
    try:
        return _await_ready(server, reader, progress)
    except BaseException:
        server.terminate()
        server.wait()
        raise


def _await_ready(server: subprocess.Popen[bytes], reader: int, progress: Callable[[str], None]) -> dict[str, Any]:
    with open(reader, encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                server.returncode = 0  # it goes on by itself: nothing is to be waited for
                ready: dict[str, Any] = message["ready"]
                return ready
            if "error" in message:
                server.wait()
                error = KoboxError(message["error"], message["hint"])
                error.exit_code = message["exit_code"]
                raise error
            progress(message["progress"])
    raise KoboxError(f"the process of the mounted image ended while it started (status {server.wait()})")


def main(writer: int, plan: MountPlan) -> int:
    """The process itself."""
    from kobox.mount.serving import serve

    started = False

    def tell(message: dict[str, Any]) -> None:
        if not started:
            os.write(writer, json.dumps(message).encode() + b"\n")

    def ready(about: Any) -> None:
        nonlocal started
        tell({"ready": about.as_data()})
        started = True
        os.close(writer)

    def say(text: str) -> None:
        sys.stderr.write(f"kobox mount: {text}\n")
        sys.stderr.flush()

    try:
        serve(plan, ready, say, lambda text: tell({"progress": text}))
    except (KoboxError, OSError) as error:
        code, hint = (error.exit_code, error.hint) if isinstance(error, KoboxError) else (1, None)
        text = error.text if isinstance(error, KoboxError) else f"{error.filename or plan.image}: {error.strerror}"
        tell({"error": text, "hint": hint, "exit_code": code})
        if started:
            say(str(error))
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), MountPlan.from_data(json.loads(sys.argv[2]))))
