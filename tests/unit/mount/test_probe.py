"""Marks of file systems, as their own tools write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.mount.probe import KINDS, names_are_exact, probe
from mounting import MAKERS, blank, made, run


@pytest.mark.parametrize("kind", MAKERS)
def test_what_a_tool_has_made_is_known(kind: str, tmp_path: Path) -> None:
    found = probe(str(made(kind, tmp_path / "image")))
    assert found is not None
    assert found.kind == kind


def test_one_that_begins_later_is_known_there_and_nowhere_else(tmp_path: Path) -> None:
    inner = made("vfat", tmp_path / "inner").read_bytes()[:4096]
    (tmp_path / "image").write_bytes(bytes(1 << 20) + inner)
    found = probe(str(tmp_path / "image"), 1 << 20)
    assert found is not None
    assert found.kind == "vfat"
    assert probe(str(tmp_path / "image")) is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(1 << 17)])
def test_what_holds_nothing_is_not_known(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content)
    assert probe(str(tmp_path / "image")) is None


def test_swap_space_is_told_apart(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 1)
    image.chmod(0o600)
    run("mkswap", image)
    found = probe(str(image))
    assert found is not None
    assert (found.kind, found.what) == ("", "swap space")


@pytest.mark.parametrize(
    ("kind", "make", "exact"),
    [
        ("ext4", ("mkfs.ext4", "-q", "-F"), True),
        ("ext4", ("mkfs.ext4", "-q", "-F", "-O", "casefold"), False),
        ("f2fs", ("mkfs.f2fs", "-q"), True),
        ("f2fs", ("mkfs.f2fs", "-q", "-O", "casefold", "-C", "utf8"), False),
        ("xfs", ("mkfs.xfs", "-q", "-f"), True),
        ("xfs", ("mkfs.xfs", "-q", "-f", "-n", "version=ci"), False),
        ("vfat", ("mkfs.vfat",), False),
        ("btrfs", ("mkfs.btrfs", "-q"), True),
    ],
)
def test_file_systems_that_fold_names_are_known(kind: str, make: tuple[str, ...], exact: bool, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 320)
    run(*make, image)
    assert names_are_exact(str(image), 0, kind) is exact


def test_an_unknown_kind_is_taken_to_fold_names(tmp_path: Path) -> None:
    assert "exotic" not in KINDS
    assert not names_are_exact(str(tmp_path), 0, "exotic")
