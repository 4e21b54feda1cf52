"""An error crosses the socket with its class, its fields and its text."""

from __future__ import annotations

import json

import pytest

from kobox.errors import BadFile, Errno, GuestError, KoboxError, NotModelled, UsageError
from kobox.kernel.tasks import JobTimeout, KernelDead, TaskDied
from kobox.session.faults import as_data, from_data

ERRORS = [
    KoboxError("it broke", "mend it"),
    UsageError("no such thing"),
    NotModelled("kernel x has no symbol y"),
    GuestError("a pointer"),
    Errno(17, "hello is loaded"),
    BadFile("hello.ko", "header", "no ELF file", b"\x7fELG", b"\x7fELF", "is it compressed?"),
    TaskDied("the task was killed"),
    JobTimeout("no result"),
    KernelDead("kernel panic", "reboot"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_it_went(error: KoboxError) -> None:
    back = from_data(json.loads(json.dumps(as_data(error))))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.exit_code == error.exit_code


def test_a_class_that_only_the_server_knows_becomes_the_nearest_one() -> None:
    class Odd(GuestError):
        pass

    assert type(from_data(as_data(Odd("x")))) is GuestError
