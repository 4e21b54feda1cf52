"""Which compiler is taken for a kernel, and what is said when it is another or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.build import find_compiler, read_headers
from kobox.build.headers import Headers
from kobox.errors import NotModelled
from prepared_headers import prepared

OURS = "gcc-99 (Test 99.9.9-1) 99.9.9"


def program(folder: Path, name: str, version: str, knows: bool = True) -> None:
    file = folder / name
    file.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" && exit 0\nexit {0 if knows else 1}\n')
    file.chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "bin"
    found.mkdir()
    for name in ("make", "ld", "objcopy"):
        program(found, name, "1.0")
    monkeypatch.setenv("PATH", str(found))
    return found


@pytest.fixture
def headers(tmp_path: Path) -> Headers:
    return read_headers(prepared(tmp_path, "6.1.0-1-test", OURS))


def test_the_kernels_own_compiler_is_preferred(folder: Path, headers: Headers) -> None:
    program(folder, "gcc", "gcc (Other) 98.0.0")
    program(folder, "gcc-99", "gcc-99 (Test 99.9.9-1) 99.9.9")
    found = find_compiler(headers)
    assert (found.program, found.difference) == ("gcc-99", "")


def test_another_version_serves_and_is_told(folder: Path, headers: Headers) -> None:
    program(folder, "gcc", "gcc (Other 98.0.0-3) 98.0.0")
    found = find_compiler(headers)
    assert found.program == "gcc"
    assert found.difference == f"the kernel was built with {OURS}, its module is built with gcc (Other 98.0.0-3) 98.0.0"


def test_a_compiler_that_is_not_there_is_named_with_its_package(folder: Path, headers: Headers) -> None:
    with pytest.raises(NotModelled, match=r"no gcc-99 or gcc on this machine.*hint: apt-get install gcc-99"):
        find_compiler(headers)


def test_make_that_is_not_there_is_named_with_its_package(folder: Path, headers: Headers) -> None:
    program(folder, "gcc-99", OURS)
    (folder / "make").unlink()
    with pytest.raises(NotModelled, match=r"no make on this machine.*hint: apt-get install make"):
        find_compiler(headers)


@pytest.mark.parametrize(("knows", "variables"), [(False, ("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=",)), (True, ())])
def test_an_older_compiler_takes_kbuilds_own_older_way(
    folder: Path, tmp_path: Path, knows: bool, variables: tuple[str, ...]
) -> None:
    directory = prepared(tmp_path, "6.12.0-test", OURS)
    with open(directory / "include/config/auto.conf", "a") as config:
        config.write("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y\n")
    program(folder, "gcc", "gcc (Other) 12.2.0", knows)
    assert find_compiler(read_headers(directory)).variables == variables


def test_clang_built_kernels_ask_for_clang(folder: Path, tmp_path: Path) -> None:
    headers = read_headers(prepared(tmp_path, "6.1.0-2-test", "Debian clang version 14.0.6"))
    program(folder, "clang-14", "Debian clang version 14.0.6")
    assert find_compiler(headers).program == "clang-14"


@pytest.mark.parametrize(
    ("version", "note"),
    [
        (None, "the module gets no types of its own (BTF): pahole is not installed"),
        ("v1.24", "the module gets no types of its own (BTF): pahole 1.24 is older than the kernel's"),
        ("v1.30", None),
    ],
)
def test_types_are_left_out_where_pahole_cannot_make_them(
    folder: Path, tmp_path: Path, version: str | None, note: str | None
) -> None:
    directory = prepared(tmp_path, "6.12.0-test", OURS)
    (directory / "vmlinux").touch()
    with open(directory / "include/config/auto.conf", "a") as config:
        config.write("CONFIG_DEBUG_INFO_BTF_MODULES=y\nCONFIG_PAHOLE_VERSION=130\n")
    program(folder, "gcc-99", OURS)
    if version is not None:
        program(folder, "pahole", version)
    found = find_compiler(read_headers(directory))
    assert found.variables == (("CONFIG_DEBUG_INFO_BTF_MODULES=",) if note else ())
    assert found.notes == ((note,) if note else ())
