"""Kernel headers: what counts as prepared, where they are looked for, and what is said when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.build import find_headers, read_headers
from kobox.errors import UsageError
from prepared_headers import prepared

RELEASE = "6.1.0-1-test"


@pytest.fixture(autouse=True)
def no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt's programs that know no package, and a store of the test's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        (folder / name).write_text('#!/bin/sh\ncase "$*" in *update*) exit 0;; esac\nexit 100\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))


def test_a_tree_tells_its_release_and_the_kernels_configuration(tmp_path: Path) -> None:
    headers = read_headers(prepared(tmp_path, RELEASE))
    assert headers.release == RELEASE
    assert headers.config["CC_VERSION_TEXT"] == "gcc (GCC) 99.9.9"


def test_what_a_directory_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no prepared kernel headers: no Makefile in it"):
        read_headers(tmp_path)


def test_the_makefile_is_the_common_trees_below_the_same_root(tmp_path: Path) -> None:
    directory = prepared(tmp_path, RELEASE)
    (directory / "Makefile").write_text("include /usr/src/linux-headers-common/Makefile\n")
    common = tmp_path / "usr/src/linux-headers-common/Makefile"
    common.parent.mkdir()
    common.touch()
    assert find_headers(RELEASE, given=tmp_path).makefile == common


@pytest.mark.parametrize("place", ["lib/modules/{}/build", "usr/lib/modules/{}/build"])
def test_a_link_of_a_root_is_followed_below_that_root(tmp_path: Path, place: str) -> None:
    directory = prepared(tmp_path, RELEASE)
    elsewhere = directory.rename(tmp_path / "headers")
    link = tmp_path / place.format(RELEASE)
    link.parent.mkdir(parents=True)
    link.symlink_to("/headers")
    assert find_headers(RELEASE, root=tmp_path).directory == elsewhere


def test_headers_of_another_release_are_refused_with_the_way_out(tmp_path: Path) -> None:
    directory = prepared(tmp_path, RELEASE)
    with pytest.raises(UsageError, match=f"headers of {RELEASE}, not of 5.0; hint: --image {RELEASE}"):
        find_headers("5.0", given=directory)


def test_headers_that_were_fetched_before_serve_again(tmp_path: Path) -> None:
    prepared(tmp_path / "data/headers" / RELEASE, RELEASE)
    assert find_headers(RELEASE).where == "fetched with apt"


def test_without_any_headers_the_line_says_what_was_tried() -> None:
    with pytest.raises(
        UsageError, match=r"no headers of 9.9-none on this machine, and .* has no package linux-headers"
    ):
        find_headers("9.9-none")
