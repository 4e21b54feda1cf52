"""Kernel headers for tests that compile modules: those installed, those kept from an earlier run, or from apt."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
from pathlib import Path

from kernel_headers import Headers, NoHeaders, current_release, fetch, find

from needs import lacking, need_program

RELEASE = "6.1.0-56-amd64"
"""What ``examples/prebuilt`` was built for; when the archive has dropped it, the suite's current kernel serves."""


def kernel_headers(release: str | None = None) -> Headers:
    """Headers that modules can be built against here, of ``release`` if they can be had. Without any the test is
    skipped (fails under CI=true). ``$KOBOX_TEST_HEADERS`` names a root to look in first."""
    need_program("make", "ld", "strip")
    try:
        headers = _headers(release or RELEASE)
    except (NoHeaders, OSError, subprocess.CalledProcessError) as error:
        lacking(f"kernel headers: {error}")
        raise
    if headers.missing_programs():
        lacking(f"building modules needs {', '.join(headers.missing_programs())}")
    return headers


@functools.cache
def _headers(release: str) -> Headers:
    own = os.environ.get("KOBOX_TEST_HEADERS")
    for root in ([Path(own)] if own else []) + [Path("/"), kept_folder()]:
        try:
            return find(root, release)
        except NoHeaders:
            continue
    kept_folder().mkdir(parents=True, exist_ok=True)
    with open(kept_folder() / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return fetch(kept_folder(), release)
        except NoHeaders:
            return fetch(kept_folder(), current_release())


def kept_folder() -> Path:
    """Where headers, and what is built against them, are kept between runs."""
    own = os.environ.get("KOBOX_TEST_CACHE")
    store = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kobox-tests"
    return store / "headers"
