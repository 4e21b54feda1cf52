"""A call into the kernel is ended from outside: by a signal where it sleeps, by force where it spins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.errors import Errno
from kobox.kernel.tasks import TaskDied
from paths import EXAMPLES

pytestmark = pytest.mark.image


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with kobox.boot(request.getfixturevalue(request.param)) as booted:
        yield booted


@contextmanager
def soon_interrupted(kernel: Kernel) -> Iterator[None]:
    kernel.interrupt(False)
    timer = threading.Timer(0.1, kernel.interrupt)
    timer.start()
    yield
    timer.join()
    kernel.interrupt(False)


def test_a_read_that_waits_answers_eintr(kernel: Kernel) -> None:
    """The end of the log: nobody will ever write a line while everybody waits."""
    with soon_interrupted(kernel), pytest.raises(Errno, match="EINTR"):
        kernel.read("/dev/kmsg")
    assert kernel.read("/proc/uptime")


def test_a_sleep_that_heeds_signals_ends_early(kernel: Kernel) -> None:
    kernel.interrupt()
    left = kernel.guest.call_int("msleep_interruptible", 200_000)
    assert 0 < left < 201_000


def test_the_next_call_finds_no_signal(kernel: Kernel) -> None:
    kernel.interrupt()
    kernel.guest.call_int("msleep_interruptible", 200_000)
    assert kernel.guest.call_int("msleep_interruptible", 1000) == 0
    status = kernel.read("/proc/self/status").decode()
    assert "SigPnd:\t0000000000000000" in status


def test_a_sleep_that_no_signal_ends_goes_on(kernel: Kernel) -> None:
    before = kernel.now
    kernel.interrupt()
    kernel.guest.call("msleep", 5000)
    kernel.interrupt(False)
    assert kernel.now - before >= 5


def test_what_was_taken_back_ends_nothing(kernel: Kernel) -> None:
    kernel.interrupt()
    kernel.interrupt(False)
    assert kernel.guest.call_int("msleep_interruptible", 1000) == 0


def test_code_that_spins_dies_long_before_the_watchdog_would_kill_it(debian_root: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        kernel.guest.tasks.real_limit = 600
        impatient = threading.Thread(target=_interrupt_often, args=(kernel,))
        impatient.start()
        with soon_interrupted(kernel), pytest.raises(TaskDied):
            kernel.insmod(EXAMPLES / "hostile" / "spin.ko")
        impatient.join()
        kernel.interrupt(False)
        assert kernel.insmod(EXAMPLES / "hello.ko").loaded


def _interrupt_often(kernel: Kernel) -> None:
    for _ in range(60):
        time.sleep(0.05)
        kernel.interrupt()


def test_the_bare_kernel_stops_what_spins(tmp_path: Path) -> None:
    with kobox.boot("bare") as kernel, soon_interrupted(kernel), pytest.raises(TaskDied):  # type: ignore[arg-type]
        kernel.insmod(EXAMPLES / "hostile" / "spin.ko")
