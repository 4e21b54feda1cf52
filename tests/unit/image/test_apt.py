"""Kernels come through apt: its own programs, replaced here by a script that knows a small archive."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from kobox.errors import KoboxError, NotModelled, UsageError
from kobox.image import apt

FAKE = (
    f"#!{sys.executable} -IS"
    + r"""
import os, sys, pathlib
archive = {
    "linux-image-amd64": "linux-image-6.1.0-56-amd64 (= 6.1.192-2)",
    "linux-image-6.1.0-56-amd64": "kmod, linux-base (>= 4.3~)",
    "linux-image-6.9-only-unsigned-unsigned": "kmod",
    "linux-image-7.2.1-amd64": "linux-base-7.2.1-amd64 (= 7.2.1-1), linux-binary-7.2.1-amd64 | other, initramfs-tools",
    "linux-binary-7.2.1-amd64": "",
    "linux-base-7.2.1-amd64": "",
    "linux-headers-6.1.0-56-amd64": "linux-headers-6.1.0-56-common (= 1), linux-kbuild-6.1 (>= 1), linux-compiler",
    "linux-headers-6.1.0-56-common": "",
    "linux-kbuild-6.1": "",
}
args = sys.argv[1:]
with open(os.environ["FAKE_LOG"], "a") as log:
    print(os.path.basename(sys.argv[0]), *args, file=log)
own = any("Dir::State=" in arg for arg in args)
if not own and "FAKE_EMPTY" in os.environ:
    archive = {}
words = [arg for arg in args if not arg.startswith("-") and "::" not in arg]
if words[0] == "show":
    if words[-1] not in archive:
        print("E: No packages found", file=sys.stderr); sys.exit(100)
    print(f"Package: {words[-1]}\nSize: 5000000\nDepends: {archive[words[-1]]}\nDescription: x\n more\n")
elif words[0] == "download":
    if "FAKE_BROKEN" in os.environ:
        print("W: noise\nE: Hash Sum mismatch", file=sys.stderr); sys.exit(100)
    pathlib.Path(words[-1] + "_1_amd64.deb").write_bytes(b"!<arch>\n")
elif words[0] == "pkgnames":
    print("\n".join(archive))
"""
)


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def _download(work: Path, release: str | None, suite: str | None = None, headers: bool = False) -> apt.Download:
    return apt.download(release, work, suite=suite, headers=headers, progress=lambda text: None)


def _log(work: Path) -> str:
    return (work.parent / "log").read_text()


def test_without_a_release_the_metapackage_leads_to_the_kernel(work: Path) -> None:
    got = _download(work, None)
    assert got.release == "6.1.0-56-amd64"
    assert [file.name for file in got.files] == ["linux-image-6.1.0-56-amd64_1_amd64.deb"]
    assert got.origin == "the host's apt sources"


def test_the_hosts_state_is_only_read(work: Path) -> None:
    _download(work, "6.1.0-56-amd64")
    assert "update" not in _log(work)


def test_a_kernel_in_several_packages_comes_whole(work: Path) -> None:
    names = [file.name.split("_")[0] for file in _download(work, "7.2.1-amd64").files]
    assert names == ["linux-base-7.2.1-amd64", "linux-binary-7.2.1-amd64", "linux-image-7.2.1-amd64"]


def test_headers_come_with_what_they_need(work: Path) -> None:
    names = [file.name.split("_")[0] for file in _download(work, "6.1.0-56-amd64", headers=True).files]
    assert names == [
        "linux-headers-6.1.0-56-amd64",
        "linux-headers-6.1.0-56-common",
        "linux-image-6.1.0-56-amd64",
        "linux-kbuild-6.1",
    ]


def test_a_kernel_that_exists_only_unsigned_is_taken(work: Path) -> None:
    assert _download(work, "6.9-only-unsigned").release == "6.9-only-unsigned"


def test_a_host_without_lists_gets_lists_of_its_own(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EMPTY", "1")
    assert _download(work, None).release == "6.1.0-56-amd64"
    updates = [line for line in _log(work).splitlines() if " update" in line]
    assert len(updates) == 1
    assert f"Dir::State={work}/apt/state" in updates[0]


def test_a_suite_has_sources_of_its_own(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(apt, "KEYRING", keyring)
    monkeypatch.setattr(apt, "_mirror", lambda: "http://mirror.example/debian")
    got = _download(work, None, suite="trixie")
    assert got.origin == "Debian trixie from http://mirror.example/debian"
    assert (work / "apt/sources.list").read_text().splitlines() == [
        f"deb [signed-by={keyring} arch=amd64] http://mirror.example/debian trixie main",
        f"deb [signed-by={keyring} arch=amd64] http://mirror.example/debian trixie-updates main",
        f"deb [signed-by={keyring} arch=amd64] http://mirror.example/debian-security trixie-security main",
    ]


def test_a_suite_of_a_day_comes_from_the_snapshot_archive(
    work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(apt, "KEYRING", keyring)
    _download(work, "6.1.0-56-amd64", suite="bookworm@20261120")
    options = f"[signed-by={keyring} arch=amd64 check-valid-until=no]"
    assert (work / "apt/sources.list").read_text().splitlines() == [
        f"deb {options} http://snapshot.debian.org/archive/debian/20261120T000000Z bookworm main",
        f"deb {options} http://snapshot.debian.org/archive/debian/20261120T000000Z bookworm-updates main",
        f"deb {options} http://snapshot.debian.org/archive/debian-security/20261120T000000Z bookworm-security main",
    ]


def test_a_suite_needs_the_keyring_of_its_archive(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apt, "KEYRING", tmp_path)
    with pytest.raises(NotModelled, match="keyring"):
        _download(work, None, suite="sid")


def test_an_unknown_release_names_what_is_there(work: Path) -> None:
    with pytest.raises(UsageError, match=r"no package linux-image-9\.9.*6\.1\.0-56-amd64.*--suite"):
        _download(work, "9.9")


def test_apts_own_words_tell_what_failed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_BROKEN", "1")
    with pytest.raises(KoboxError, match=r"apt-get .*Hash Sum mismatch"):
        _download(work, None)


@pytest.mark.parametrize(
    ("release", "suite"), [("-o", None), ("a b", None), (None, "../x"), (None, "-o"), (None, "sid@now")]
)
def test_options_do_not_pass_as_names(work: Path, release: str | None, suite: str | None) -> None:
    with pytest.raises(UsageError, match="no release or suite"):
        _download(work, release, suite)


def test_a_machine_without_apt_says_so(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotModelled, match="--debian needs apt-get"):
        _download(work, None)
