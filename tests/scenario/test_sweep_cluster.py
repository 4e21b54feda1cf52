"""A sweep on a Dask cluster of this machine: a scheduler, two workers, and one of them killed on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.errors import UsageError
from kobox.sweep import ModuleResult, SweepOptions, sweep

pytestmark = pytest.mark.image


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """(address, the two workers); workers have no nanny, so that one that is killed stays away."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> Path:
        log = tmp_path / f"log{len(children)}"
        with open(log, "wb") as file:
            command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
            children.append(subprocess.Popen(command, stdout=file, stderr=file, cwd=tmp_path))
        return log

    try:
        log = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        address = _wait_for(log, r"Scheduler at:\s+(tcp://\S+)")
        for _ in range(2):
            started = start("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
            _wait_for(started, r"(Registered to):")
        yield address, children[1:]
    finally:
        for child in reversed(children):
            child.kill()
            child.wait()


def _wait_for(log: Path, pattern: str) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"{log} never said {pattern}: {log.read_text(errors='replace')}")


def test_a_worker_that_is_killed_on_the_way_costs_no_module(
    kobox_image: str, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    select = ("nls_*", "dummy", "ext4")
    killed: list[int] = []

    def seen(result: ModuleResult, done: int, total: int) -> None:
        if not killed:
            killed.append(done)
            os.kill(workers[0].pid, signal.SIGKILL)

    report = sweep(SweepOptions(kobox_image, select=select, cluster=address), seen=seen)
    assert killed[0] < len(report.modules), "there was work left when it was killed"
    assert workers[0].wait() == -signal.SIGKILL
    here = sweep(SweepOptions(kobox_image, select=select, jobs=1))
    assert [result.name for result in report.modules] == [result.name for result in here.modules]
    for far, near in zip(report.modules, here.modules, strict=True):
        assert (far.load, far.unload, far.registered, far.error) == (near.load, near.unload, near.registered, "")


def test_an_address_where_no_scheduler_is_gets_one_clear_line(kobox_image: str) -> None:
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        sweep(SweepOptions(kobox_image, select=("dummy",), cluster="tcp://127.0.0.1:9"))


def test_without_dask_the_command_says_what_to_install(
    kobox_image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["sweep", "--image", kobox_image, "--select", "dummy", "--cluster", "x:1"]) == 3
    assert "pip install 'kobox[cluster]'" in capsys.readouterr().err
