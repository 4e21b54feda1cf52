"""Figures of sessions against their budgets: ``python -m tools.bench_session [--image R] [--json]``.

A command is timed as a whole process. For the events a module prints lines in a loop, and fifty followers, half of
them in a process of their own, count what they hear: from the call to the moment at which the last of them has heard
the last line. It needs kernel headers and a compiler, as ``kobox build`` does. Nothing is asserted but that no line is
lost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Thread

from kobox.build.headers import find_headers
from kobox.session.boot import BootPlan
from kobox.session.client import RemoteKernel, connect
from kobox.session.launch import launch
from kobox.session.places import API, SOCKET
from kobox.session.wire import Connection
from tools.bench import Row, command, median
from tools.kernel_headers import make_modules

FOLLOWERS, LINES = 50, 20_000
_PROCESSES = 2
_SOURCE = """\
#include <linux/module.h>
static int lines = 1;
module_param(lines, int, 0);
static int __init chatty_init(void)
{
	int i;
	for (i = 1; i <= lines; i++)
		pr_info("line %d of a module that talks\\n", i);
	return -ENODEV;
}
module_init(chatty_init);
MODULE_LICENSE("GPL");
"""


@contextmanager
def session(image: str | None) -> Iterator[str]:
    """A session in a runtime directory of its own."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            launch(BootPlan(image), "bench", lambda text: None)
            yield "bench"
            with connect("bench") as kernel:
                kernel.halt()
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before


def one_command(*words: str) -> Row:
    return Row(f"kobox {' '.join(words)} on a running session, whole process", median(command(*words), 15), "ms", 80)


def events(kernel: RemoteKernel, module: bytes) -> Row:
    """Lines a second, from a module's loop to the last of fifty followers."""
    context = get_context("fork")
    ready = context.Barrier(_PROCESSES + 1)
    listeners = [
        context.Process(target=_listen, args=(kernel.place.folder / SOCKET, FOLLOWERS // _PROCESSES, ready))
        for _ in range(_PROCESSES)
    ]
    for listener in listeners:
        listener.start()
    ready.wait()
    start = time.perf_counter()
    kernel.finish_load(kernel.start_load(module, f"lines={LINES}"))
    printed = time.perf_counter() - start
    for listener in listeners:
        listener.join()
        if listener.exitcode:
            raise SystemExit("a follower lost a line")
    seconds = time.perf_counter() - start
    print(f"printing alone took {printed:.2f} s of {seconds:.2f} s", file=sys.stderr)
    return Row(f"log events to {FOLLOWERS} followers, {LINES} lines of one call", LINES / seconds, "/s", 10_000, "more")


def _listen(socket: Path, count: int, ready: Barrier) -> None:
    heard: list[int] = []
    streams = [Connection(socket).lines(f"/v{API}/events?kinds=log") for _ in range(count)]
    for stream in streams:
        next(stream)  # the hello: it follows from here on

    def follow(stream: Iterator[bytes]) -> None:
        wanted = f"line {LINES} of a module".encode()
        for number, line in enumerate(line for line in stream if b" of a module that talks" in line):
            if wanted in line:
                heard.append(number + 1)
                return

    threads = [Thread(target=follow, args=(stream,)) for stream in streams]
    ready.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if heard != [LINES] * count:
        raise SystemExit(1)


def _chatty(release: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "chatty"
        source.mkdir()
        (source / "chatty.c").write_text(_SOURCE)
        (source / "Kbuild").write_text("obj-m += chatty.o\n")
        make_modules(find_headers(release), source)
        return (source / "chatty.ko").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a release that was added, or a root; default: the newest added")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    interpreter = median(partial(subprocess.run, [sys.executable, "-c", "pass"], check=True), 15)
    with session(args.image) as name, connect(name) as kernel:
        rows = [one_command("lsmod"), one_command("cat", "/proc/uptime"), events(kernel, _chatty(kernel.release))]
    if args.json:
        print(json.dumps({"python_ms": interpreter, "rows": [asdict(row) for row in rows]}))
        return 0
    print(f"{'python -c pass, whole process: the measure of this machine':<72} {interpreter:9.2f} ms")
    for row in rows:
        print(f"{row.name:<72} {row.value:9.2f} {row.unit:<5} budget {row.budget:8.2f}  ratio {row.ratio:5.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
