"""Every example does in a kobox kernel what it did on a real one; see ``tests/example_cases.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kobox
from example_cases import RECORDED, expected, play
from kobox.box import Kernel

BARE = ("hello", "list", "slab", "exporter", "user", "timer", "work", "misc", "walk_oops", "leak")
"""The examples that need no image."""


def named(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in cases]


def is_for_bare(case: dict[str, Any]) -> bool:
    return all(action.get("module", "hello") in BARE for action in case["actions"])


@pytest.fixture(scope="module")
def booted(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root, check_memory=False) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.mark.image
@pytest.mark.parametrize("case", named(RECORDED))
def test_on_an_image_an_example_does_what_it_did_on_a_real_kernel(case: dict[str, Any], booted: Kernel) -> None:
    booted.reset()
    assert play(case, booted) == expected(case)


@pytest.mark.parametrize("case", named([case for case in RECORDED if is_for_bare(case)]))
def test_on_bare_an_example_does_what_it_did_on_a_real_kernel(case: dict[str, Any]) -> None:
    with kobox.boot("bare") as kernel:
        assert play(case, kernel) == expected(case)
