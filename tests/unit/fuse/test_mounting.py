"""Ways to mount: mount(2), in a user namespace of one's own, fusermount3; and what is said where there is none."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kobox.errors import KoboxError, UsageError
from kobox.fuse import MountOptions, mount, mounting, unmount
from memory_tree import MemoryTree, served
from needs import need_fuse, need_program


def tree() -> MemoryTree:
    made = MemoryTree()
    made.add(made.root, b"file", stat.S_IFREG | 0o644, b"content")
    return made


def line_of(folder: Path) -> list[str]:
    """The words of a mounted folder in mountinfo."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next(words for words in map(str.split, lines) if words[4] == str(folder))


def test_mount_2_serves_and_shows_its_source(tmp_path: Path) -> None:
    need_fuse()
    with served(tmp_path, tree(), MountOptions(source="an image", read_only=True)):
        words = line_of(tmp_path)
        assert words[words.index("-") + 1 : words.index("-") + 3] == ["fuse.kobox", "an\\040image"]
        assert {"ro", "nosuid", "nodev"} <= set(words[5].split(","))
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "new").touch()


def test_the_helper_mounts_where_one_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_fuse()
    need_program("fusermount3")
    monkeypatch.setattr(mounting, "_mount_directly", lambda folder, options: 1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with served(tmp_path, tree(), MountOptions(source="a,b")) as mounted:
        assert mounted.by_helper
        assert (tmp_path / "file").read_bytes() == b"content"
        assert line_of(tmp_path)[-2] == "a,b"
        with open(tmp_path / "file", "rb"), pytest.raises(KoboxError, match="is in use"):
            unmount(str(tmp_path))
    with pytest.raises(KoboxError):
        unmount(str(tmp_path))


IN_NAMESPACE = """
import sys, stat, pathlib
sys.path[:0] = sys.argv[2:]
from memory_tree import MemoryTree, served
tree = MemoryTree()
tree.add(tree.root, b"file", stat.S_IFREG | 0o644, b"content")
folder = pathlib.Path(sys.argv[1])
with served(folder, tree) as mounted:
    assert not mounted.by_helper
    print((folder / "file").read_text())
"""


def test_root_of_a_user_namespace_mounts_without_a_helper(tmp_path: Path) -> None:
    need_fuse()
    need_program("unshare")
    tests = str(Path(__file__).parents[2])
    words = ["unshare", "-Urm", sys.executable, "-c", IN_NAMESPACE, str(tmp_path), tests]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "content\n"), done.stderr


def test_a_folder_in_use_is_left_mounted(tmp_path: Path) -> None:
    need_fuse()
    with served(tmp_path, tree()), open(tmp_path / "file", "rb"):
        with pytest.raises(KoboxError, match="is in use"):
            unmount(str(tmp_path))
        assert (tmp_path / "file").read_bytes() == b"content"


def test_what_is_not_mounted_is_not_unmounted(tmp_path: Path) -> None:
    need_fuse()
    with pytest.raises(KoboxError, match="not mounted"):
        unmount(str(tmp_path))


def test_a_system_without_fuse_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "DEVICE", str(tmp_path / "none"))
    with pytest.raises(KoboxError, match=r"no usable .*modprobe fuse"):
        mount(str(tmp_path))


def test_a_user_without_the_helper_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(mounting, "HELPER", "fusermount3-that-is-not-there")
    with pytest.raises(KoboxError, match=r"is missing.*apt install fuse3"):
        mount(str(tmp_path))


def test_a_file_is_no_place_to_mount(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no directory to mount on"):
        mount(str(tmp_path / "file"))
