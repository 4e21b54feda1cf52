"""Work over forked processes: results in order, errors told, nothing left behind."""

from __future__ import annotations

import os

import pytest

from kobox.depot.parallel import Child, parallel_map
from kobox.errors import KoboxError


def test_results_come_in_the_order_of_the_items() -> None:
    assert parallel_map(lambda number: number * 2, range(1000), 3) == [number * 2 for number in range(1000)]


def test_one_process_does_not_fork() -> None:
    assert set(parallel_map(lambda _: os.getpid(), range(10), 1)) == {os.getpid()}


def test_a_child_that_fails_tells_why() -> None:
    child = Child(lambda: 1 // 0)
    with pytest.raises(KoboxError, match="ZeroDivisionError"):
        child.result()
    child.end()


def test_a_child_that_is_killed_is_noticed() -> None:
    child = Child(lambda: os.kill(os.getpid(), 9))
    with pytest.raises(KoboxError, match="ended with status"):
        child.result()
    child.end()
