"""A process that holds a booted kernel may be forked: both have the kernel, each its own from then on."""

from __future__ import annotations

import os
import threading

import pytest

import kobox
from example_files import example_file
from kobox.errors import GuestError

pytestmark = pytest.mark.image


def in_a_fork(action: object) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = int(action())  # type: ignore[operator]
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_each_side_has_its_own_kernel(kobox_image: str) -> None:
    with kobox.boot(kobox_image) as kernel:
        kernel.mark_pristine()
        hello = example_file(kernel.release, "hello")
        kernel.insmod(hello)

        def child() -> int:
            kernel.rmmod("hello")
            kernel.reset()
            kernel.insmod(hello, my_param=3)
            return int(kernel.module("hello").parameters["my_param"])

        assert in_a_fork(child) == 3
        assert [module.name for module in kernel.modules] == ["hello"]


def test_code_that_never_pauses_is_stopped_in_a_fork_too(kobox_image: str) -> None:
    """The watchdog is a thread, which a fork does not take along."""
    with kobox.boot(kobox_image) as kernel:
        kernel.mark_pristine()
        kernel.guest.tasks.real_limit = 0.5
        kernel.insmod(example_file(kernel.release, "hello"))  # the code of a load is translated from then on
        assert any(thread.name == "kobox-watchdog" for thread in threading.enumerate())

        def child() -> int:
            try:
                kernel.insmod(example_file(kernel.release, "hostile/spin"))
            except GuestError:
                return 7
            return 1

        assert in_a_fork(child) == 7


def test_a_fork_leaves_no_thread_behind_and_the_kernel_goes_on(kobox_image: str) -> None:
    with kobox.boot(kobox_image) as kernel:
        kernel.read("/proc/modules")
        assert in_a_fork(lambda: 0) == 0
        assert "kobox-watchdog" not in [thread.name for thread in threading.enumerate()]
        assert kernel.read("/proc/modules") == b""
        assert "kobox-watchdog" in [thread.name for thread in threading.enumerate()]
