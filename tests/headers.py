"""Kernel headers for tests that compile modules: those installed, those kept from an earlier run, or from apt."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import subprocess
from pathlib import Path

import pytest

from kobox.build.compiler import find_compiler
from kobox.build.headers import Headers, find_headers
from kobox.errors import KoboxError, UsageError
from needs import lacking, need_program

RELEASE = "6.1.0-56-amd64"
"""What ``examples/prebuilt`` was built for; when the archive has dropped it, the suite's current kernel serves."""


def kernel_headers(release: str | None = None) -> Headers:
    """Headers that modules can be built against here, of ``release`` if they can be had. Without any the test is
    skipped (fails under CI=true). ``$KOBOX_TEST_HEADERS`` names a root to look in first."""
    need_program("make", "ld", "strip")
    try:
        headers = _headers(release or RELEASE)
        find_compiler(headers)
    except (KoboxError, OSError, subprocess.CalledProcessError) as error:
        lacking(f"kernel headers: {error}")
        raise
    return headers


@functools.cache
def _headers(release: str) -> Headers:
    own = os.environ.get("KOBOX_TEST_HEADERS")
    for root in ([Path(own)] if own else []) + [Path("/"), kept_folder()]:
        try:
            return find_headers(release, given=root)
        except UsageError:
            continue
    kept_folder().mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, open(kept_folder() / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("KOBOX_DATA_DIR", str(kept_folder().parent / "data"))
        try:
            return find_headers(release)
        except KoboxError:
            return find_headers(current_release())


def current_release(flavour: str = "amd64") -> str:
    """The release whose headers apt would install now for this flavour of the kernel."""
    depends = subprocess.run(
        ["apt-cache", "depends", f"linux-headers-{flavour}"], capture_output=True, text=True
    ).stdout
    named = re.search(r"Depends: linux-headers-(\d\S*)", depends)
    if not named:
        raise KoboxError(f"apt knows no linux-headers-{flavour}; its package lists may be empty")
    return named[1]


def kept_folder() -> Path:
    """Where headers, and what is built against them, are kept between runs."""
    own = os.environ.get("KOBOX_TEST_CACHE")
    store = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kobox-tests"
    return store / "headers"
