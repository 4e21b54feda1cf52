"""Fetched headers: where they go, and how their programs start on a host with an older C library."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from kobox.build import fetch, find_headers
from kobox.image import apt

RELEASE = "6.12.0-test"
AUTO_CONF = "CONFIG_MODULES=y\n"


def deb(path: Path, files: dict[str, str]) -> Path:
    """A package with these files; those that begin with ELF's magic may be executed."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text.encode("latin-1"))
            member.mode = 0o755 if text.startswith("\x7fELF") else 0o644
            tar.addfile(member, io.BytesIO(text.encode("latin-1")))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        text = f"Package: {path.stem}\nVersion: 1\n".encode()
        member = tarfile.TarInfo("./control")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    members = {"debian-binary": b"2.0\n", "control.tar": control.getvalue(), "data.tar": data.getvalue()}
    with open(path, "wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """An archive with headers and a C library; which suites were asked for."""
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))
    tree = f"usr/src/linux-headers-{RELEASE}"
    asked: list[str | None] = []

    def headers(release: str, folder: Path, *, suite: str | None, progress: object) -> apt.Download:
        asked.append(suite)
        files = {
            f"{tree}/Makefile": "modules:\n",
            f"{tree}/include/config/auto.conf": AUTO_CONF,
            f"{tree}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n',
            "usr/lib/linux-kbuild-6.12/scripts/mod/modpost": "\x7fELF new",
            "usr/lib/linux-kbuild-6.12/scripts/helper.sh": "#!/bin/sh\n",
        }
        return apt.Download(release, (deb(folder / "headers.deb", files),), "a test")

    def packages(names: list[str], folder: Path, *, suite: str | None, progress: object) -> tuple[Path, ...]:
        assert names == ["libc6"]
        loader = '#!/bin/sh\necho "loader $*"\n'
        place = "usr/lib/x86_64-linux-gnu"
        return (deb(folder / "libc6.deb", {f"{place}/ld-linux-x86-64.so.2": loader, f"{place}/libc.so.6": "library"}),)

    monkeypatch.setattr(fetch.apt, "download_headers", headers)
    monkeypatch.setattr(fetch.apt, "download_packages", packages)
    return asked


def test_headers_are_fetched_once_and_kept(archive: list[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_starts", lambda program: True)
    headers = find_headers(RELEASE)
    assert headers.where == "fetched with apt"
    assert headers.release == RELEASE
    assert not (fetch.headers_home(RELEASE) / "libc").exists(), "nothing needs it"
    assert find_headers(RELEASE) == headers
    assert archive == [None], "the host's own suite, once"


def test_programs_that_need_a_newer_library_start_through_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_starts", lambda program: False)
    find_headers(RELEASE)
    home = fetch.headers_home(RELEASE)
    modpost = home / "usr/lib/linux-kbuild-6.12/scripts/mod/modpost"
    assert modpost.stat().st_mode & stat.S_IXUSR
    loader = home / "libc/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.chmod(0o755)
    said = subprocess.run([modpost, "-m", "a b"], capture_output=True, text=True, check=True).stdout
    assert said == f"loader --library-path {loader.parent} {modpost}.of-its-distribution -m a b\n"
    assert modpost.with_name("modpost.of-its-distribution").read_bytes() == b"\x7fELF new"
    assert (home / "usr/lib/linux-kbuild-6.12/scripts/helper.sh").read_text() == "#!/bin/sh\n", "no program"


def test_headers_that_were_kept_without_their_library_are_fetched_again(
    archive: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_starts", lambda program: True)
    tree = find_headers(RELEASE).directory
    (tree / "scripts/mod").mkdir(parents=True)
    (tree / "scripts/mod/modpost").write_bytes(b"\x7fELF new")
    monkeypatch.setattr(fetch, "_starts", lambda program: False)
    find_headers(RELEASE)
    assert archive == [None, None]
    assert (fetch.headers_home(RELEASE) / "libc").is_dir()


def test_a_program_of_this_machine_starts() -> None:
    assert fetch._starts(Path("/bin/sh").resolve())
