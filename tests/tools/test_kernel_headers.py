"""Finding kernel headers: which packages a release needs, what counts as complete, building against them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kernel_headers
import pytest
from kernel_headers import Headers, NoHeaders, find, packages, releases


def unpacked(root: Path, release: str, complete: bool = True) -> Headers:
    """What the .deb files of ``release`` leave below ``root``, as far as it matters here."""
    flavour = root / f"usr/src/linux-headers-{release}"
    common = root / f"usr/src/linux-headers-{release.rsplit('-', 1)[0]}-common"
    for directory in (flavour, common):
        directory.mkdir(parents=True)
    (flavour / "Makefile").write_text(f"include /usr/src/{common.name}/Makefile\n")
    if complete:
        (flavour / "Module.symvers").touch()
        (common / "Makefile").touch()
    return Headers(root, release)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1.0-56-amd64", ["linux-headers-6.1.0-56-amd64", "linux-headers-6.1.0-56-common", "linux-kbuild-6.1"]),
        (
            "6.1.0-56-rt-amd64",
            ["linux-headers-6.1.0-56-rt-amd64", "linux-headers-6.1.0-56-common-rt", "linux-kbuild-6.1"],
        ),
        (
            "6.12.107+deb12-amd64",
            [
                "linux-headers-6.12.107+deb12-amd64",
                "linux-headers-6.12.107+deb12-common",
                "linux-kbuild-6.12.107+deb12",
            ],
        ),
    ],
)
def test_the_packages_of_a_release_are_known_by_its_name(release: str, expected: list[str]) -> None:
    assert packages(release) == expected


def test_a_release_that_is_not_debians_is_refused() -> None:
    with pytest.raises(NoHeaders, match="does not look like a Debian kernel"):
        packages("5.15")


def test_without_a_release_the_newest_complete_headers_are_found(tmp_path: Path) -> None:
    unpacked(tmp_path, "6.1.0-9-amd64")
    unpacked(tmp_path, "6.1.0-10-amd64")
    unpacked(tmp_path, "6.12.1-amd64", complete=False)
    assert releases(tmp_path) == ["6.1.0-9-amd64", "6.1.0-10-amd64"]
    assert find(tmp_path).release == "6.1.0-10-amd64"


def test_missing_headers_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoHeaders, match=r"no complete linux-headers-6\.1\.0-1-amd64 in .*/usr/src"):
        find(tmp_path, "6.1.0-1-amd64")


def test_the_makefile_is_the_common_trees_below_the_same_root(tmp_path: Path) -> None:
    headers = unpacked(tmp_path, "6.1.0-56-amd64")
    assert headers.makefile == tmp_path / "usr/src/linux-headers-6.1.0-56-common/Makefile"


def test_the_kernels_own_compiler_is_preferred_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = unpacked(tmp_path, "6.1.0-56-amd64")
    (headers.directory / ".kernelvariables").write_text("CC = $(CROSS_COMPILE)gcc-12\n")
    monkeypatch.setattr(kernel_headers.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert headers.compiler == "gcc-12"
    monkeypatch.setattr(kernel_headers.shutil, "which", lambda name: None)
    assert headers.compiler == "gcc"


def test_what_make_says_is_in_the_error(tmp_path: Path) -> None:
    headers = unpacked(tmp_path, "6.1.0-56-amd64")
    headers.makefile.write_text("modules:\n\t@echo no rule for $(M) >&2; false\n")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        headers.make(tmp_path / "work")
    assert f"no rule for {tmp_path}/work" in caught.value.stderr
