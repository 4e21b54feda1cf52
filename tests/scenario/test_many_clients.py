"""Many clients on one session: nobody gets a wrong answer, nobody loses an event, whoever is killed meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from example_files import example_file
from kobox.cli import main
from kobox.session.boot import BootPlan
from kobox.session.client import RemoteKernel, connect
from kobox.session.launch import launch

pytestmark = pytest.mark.image
_LAST = "the last words"


@pytest.fixture
def session(kobox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        launch(BootPlan(kobox_image), "busy", lambda text: None)
        yield "busy"
        main(["halt", "--all"])


@dataclass
class Client:
    """Asks what it knows the answer of, and says things that every follower must hear."""

    number: int
    chance: random.Random
    said: list[str] = field(default_factory=list)
    asked: int = 0

    def work(self, kernel: RemoteKernel) -> None:
        self.asked += 1
        kind = self.chance.randrange(4)
        if kind == 0:
            digit = self.chance.choice("0123456789abcdef")
            assert kernel.call("hex_to_bin", ord(digit)) == int(digit, 16)
        elif kind == 1:
            assert kernel.read("/proc/sys/kernel/ostype") == b"Linux\n"
        elif kind == 2:
            assert {"kernel", "module"} <= {entry.name for entry in kernel.ls("/sys")}
        else:
            text = f"client {self.number} line {len(self.said)}"
            kernel.write("/dev/kmsg", text)
            self.said.append(text)


def load_and_unload(kernel: RemoteKernel, number: int) -> None:
    hello = kernel.insmod(example_file(kernel.release, "hello"), my_param=number)
    assert hello.parameters["my_param"] == str(number)
    kernel.rmmod("hello")


def follow(name: str, heard: list[dict[str, Any]]) -> None:
    with connect(name) as kernel:
        for event in kernel.events(0):
            heard.append(event)
            if event.get("text") == _LAST:
                return


def kill_at_random(until: float, chance: random.Random) -> int:
    """Start clients in the middle of whose calls they are killed; how many."""
    killed = 0
    while time.monotonic() < until:
        words = chance.choice((["cat", "/dev/zero"], ["events", "--since", "0"], ["cat", "/proc/kallsyms"]))
        client = subprocess.Popen(
            [sys.executable, "-m", "kobox", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0, 0.4))
        client.kill()
        client.wait()
        killed += 1
    return killed


@pytest.mark.parametrize(("clients", "seconds"), [(8, 4), pytest.param(50, 60, marks=pytest.mark.full)])
def test_no_answer_is_wrong_and_no_event_is_lost(session: str, clients: int, seconds: int) -> None:
    failures: list[BaseException] = []
    workers = [Client(number, random.Random(number)) for number in range(clients)]
    streams: list[list[dict[str, Any]]] = [[] for _ in range(clients)]
    loads: list[int] = []
    killed: list[int] = []
    until = time.monotonic() + seconds

    def talk(client: Client) -> None:
        with connect(session) as kernel:
            while time.monotonic() < until:
                client.work(kernel)

    def load() -> None:
        with connect(session) as kernel:
            while time.monotonic() < until:
                load_and_unload(kernel, len(loads))
                loads.append(1)

    def noted(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
                failures.append(error)

        return run

    works: list[Callable[[], object]] = [lambda client=client: talk(client) for client in workers]  # type: ignore[misc]
    works += [load, lambda: killed.append(kill_at_random(until, random.Random(1)))]
    followers = [threading.Thread(target=noted(lambda heard=heard: follow(session, heard))) for heard in streams]  # type: ignore[misc]
    threads = [threading.Thread(target=noted(work)) for work in works]
    for thread in [*followers, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(session) as kernel:
        kernel.write("/dev/kmsg", _LAST)
    for thread in followers:
        thread.join(60)
        assert not thread.is_alive(), "a follower never heard the last words"
    if failures:
        raise failures[0]

    first = streams[0]
    assert [event["seq"] for event in first[1:]] == list(range(1, len(first))), "numbers without a gap"
    for stream in streams[1:]:
        assert stream[1:] == first[1:], "everybody hears the same"
    said = [event["text"] for event in first if event["type"] == "log" and event["text"].startswith("client ")]
    for client in workers:
        assert [text for text in said if text.startswith(f"client {client.number} ")] == client.said
        assert client.asked > 5
    assert len([event for event in first if event["type"] == "load"]) == len(loads) > 0
    assert len([event for event in first if event["type"] == "uevent"]) == 2 * len(loads)
    assert killed[0] > 3
    print(f"{sum(client.asked for client in workers)} requests, {len(first)} events, {len(loads)} loads", os.times())
