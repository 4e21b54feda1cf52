"""What a test needs from the machine: missing means a skip that says so, and under CI=true a failure."""

from __future__ import annotations

import os
import shutil

import pytest


def need_program(*names: str) -> None:
    """Require programs on PATH (``/sbin`` included)."""
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing:
        lacking(f"this test needs {', '.join(missing)}; apt-packages.txt lists the packages")


def lacking(what: str) -> None:
    """Say what is missing: a skip on a developer's machine, a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"required under CI=true: {what}")
    pytest.skip(what)


def need_fuse() -> None:
    """Require a host that mounts FUSE: /dev/fuse, and root or fusermount3."""
    if not os.path.exists("/dev/fuse"):
        lacking("this test needs /dev/fuse")
    if os.geteuid():
        need_program("fusermount3")
