"""The kernel that most scenarios are played on: a booted image, fresh for each test, on three releases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel


@pytest.fixture(scope="module", params=["debian_root", "trixie_root", "newest_root"])
def linux_root(request: pytest.FixtureRequest) -> Path:
    """The root of a release's image. A file whose story is not of all releases has its own."""
    root: Path = request.getfixturevalue(request.param)
    return root


@pytest.fixture(scope="module")
def booted_linux(linux_root: Path) -> Iterator[Kernel]:
    with kobox.boot(linux_root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def linux(booted_linux: Kernel) -> Kernel:
    """As after boot. Not called ``kernel``: that is the plugin's, which some scenarios are about."""
    booted_linux.reset()
    return booted_linux
