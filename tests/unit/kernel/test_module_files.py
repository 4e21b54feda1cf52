"""Module files are unpacked once, as long as they stay as they are."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest

from kobox.kernel import module_files
from kobox.kernel.module_files import ModuleFiles


def packed(path: Path, data: bytes) -> str:
    path.write_bytes(lzma.compress(data))
    return str(path)


def test_the_second_read_unpacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.ko.xz", b"\x7fELF and more" * 100)
    files = ModuleFiles()
    first = files.read(path)
    monkeypatch.setattr(module_files, "decompress", None)
    assert files.read(path) is first


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.ko.xz", b"\x7fELF one" * 100)
    files = ModuleFiles()
    files.read(path)
    packed(Path(path), b"\x7fELF two" * 100)
    os.utime(path, ns=(1, 1))
    assert files.read(path) == b"\x7fELF two" * 100


def test_a_plain_file_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"\x7fELF plain")
    files = ModuleFiles()
    assert files.read(str(tmp_path / "a.ko")) == b"\x7fELF plain"
    assert not files._files


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_files, "_KEPT", 2500)
    files = ModuleFiles()
    paths = [packed(tmp_path / f"{name}.ko.xz", b"\x7fELF" + name.encode() * 996) for name in "abc"]
    for path in paths:
        files.read(path)
    assert [key[0] for key in files._files] == paths[1:]
