"""System calls made from Python are those of a 64-bit program, one by one or several by one task."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EBADF

import pytest

from kobox.abi.syscalls import number_of
from kobox.box import Kernel
from kobox.errors import UsageError
from kobox.kernel.user_pages import UserPages

pytestmark = pytest.mark.image

FOUR_GIGABYTES = 1 << 32


def test_a_mapping_lies_where_only_64_bit_programs_have_one(linux: Kernel) -> None:
    """For a call of the x32 convention the kernel looks below 4 GiB, and reads vectors of 32-bit words."""
    with UserPages(linux.syscalls, 8192) as pages:
        assert pages.address > FOUR_GIGABYTES
        pages.put(b"hello", 5000)
        assert pages.read(5, 5000) == b"hello"


def test_a_call_has_its_number_while_it_runs(linux: Kernel) -> None:
    """``/proc/self/syscall`` shows the call in which it is read; what is no system call has -1 there."""
    number, *_ = linux.read("/proc/self/syscall").split()
    assert int(number) == number_of("read") == 0
    assert number_of("nosuch") is None


def test_several_calls_are_made_by_one_task(linux: Kernel) -> None:
    tasks = []

    def steps() -> Iterator[tuple[str, int]]:
        for _ in range(3):
            tasks.append((yield ("gettid",)))
        return (yield ("close", 999))

    result = linux.syscalls.in_one_task(steps())  # type: ignore[arg-type]  # a generator is what it is
    assert len(set(tasks)) == 1
    assert result == -EBADF


def test_an_error_between_calls_comes_out_and_the_kernel_goes_on(linux: Kernel) -> None:
    def steps() -> Iterator[tuple[str, int]]:
        yield ("gettid",)
        raise UsageError("changed my mind")

    with pytest.raises(UsageError, match="changed my mind"):
        linux.syscalls.in_one_task(steps())  # type: ignore[arg-type]  # a generator is what it is
    assert linux.syscalls.call("gettid") > 0
