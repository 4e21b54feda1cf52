"""What the tools add to the product's headers: the newest release of a root, output that no path gets into."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest
from kernel_headers import from_arguments, make_modules, releases

from kobox.errors import UsageError
from prepared_headers import prepared


def test_without_a_release_the_newest_complete_headers_are_found(tmp_path: Path) -> None:
    prepared(tmp_path, "6.1.0-9-amd64")
    prepared(tmp_path, "6.1.0-10-amd64")
    (prepared(tmp_path, "6.12.1-amd64") / "Makefile").unlink()
    assert releases(tmp_path) == ["6.1.0-9-amd64", "6.1.0-10-amd64"]
    args = argparse.Namespace(headers=tmp_path, release=None, fetch=False)
    assert from_arguments(args).release == "6.1.0-10-amd64"


def test_a_root_without_headers_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no kernel headers in .*/usr/src"):
        from_arguments(argparse.Namespace(headers=tmp_path, release=None, fetch=False))


def test_what_make_says_is_in_the_error(tmp_path: Path) -> None:
    directory = prepared(tmp_path, "6.1.0-56-amd64")
    (directory / "Makefile").write_text("modules:\n\t@echo no rule for $(M) >&2; false\n")
    headers = from_arguments(argparse.Namespace(headers=tmp_path, release=None, fetch=False))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make_modules(headers, tmp_path / "work")
    assert f"no rule for {tmp_path}/work" in caught.value.stderr
