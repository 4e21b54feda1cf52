"""The copy that kbuild works in: what is a source, what a change is, and what to build where nothing says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kobox.build import mirror
from kobox.build.mirror import Changes, kbuild_for, sync
from kobox.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "hello"
    found.mkdir()
    (found / "hello.c").write_text('MODULE_LICENSE("GPL");\n')
    (found / "hello.h").write_text("int x;\n")
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    found = tmp_path / "tree"
    found.mkdir()
    return found


def changed(*modified: str, others: tuple[str, ...] = ()) -> Changes:
    return Changes(frozenset(modified), frozenset(others))


def test_sources_are_copied_and_what_kbuild_makes_is_not(folder: Path, tree: Path) -> None:
    for name in ("hello.ko", "hello.o", "hello.mod.c", "Module.symvers", ".hello.o.cmd", ".hidden", "hello.c~"):
        (folder / name).touch()
    (folder / "blob.o").write_bytes(b"no source of this one")
    (folder / "build/6.1").mkdir(parents=True)
    (folder / "build/6.1" / mirror.RECORD).touch()
    (folder / "build/6.1/hello.c").touch()
    (folder / "build/part.c").touch()
    sync(folder, tree, {})
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert found == {"hello.c", "hello.h", "blob.o", "build/part.c"}


def test_only_what_has_new_content_counts_as_changed(folder: Path, tree: Path) -> None:
    first, stamps = sync(folder, tree, {})
    assert first == changed(others=("hello.c", "hello.h"))
    os.utime(folder / "hello.c")
    (folder / "hello.h").write_text("int y;\n")
    assert sync(folder, tree, stamps)[0] == changed("hello.h")


def test_an_older_file_put_in_place_is_newer_in_the_copy(folder: Path, tree: Path) -> None:
    _, stamps = sync(folder, tree, {})
    before = (tree / "hello.h").stat().st_mtime_ns
    (folder / "old").write_text("int z;\n")
    os.utime(folder / "old", (1, 1))
    (folder / "old").rename(folder / "hello.h")
    assert sync(folder, tree, stamps)[0] == changed("hello.h")
    assert (tree / "hello.h").stat().st_mtime_ns > before


def test_removed_files_go_from_the_copy(folder: Path, tree: Path) -> None:
    _, stamps = sync(folder, tree, {})
    (folder / "hello.h").unlink()
    changes, stamps = sync(folder, tree, stamps)
    assert changes == changed(others=("hello.h",))
    assert not (tree / "hello.h").exists()
    assert sync(folder, tree, stamps)[0] == changed()


def test_tests_and_notes_are_no_input_of_a_build(folder: Path, tree: Path) -> None:
    _, stamps = sync(folder, tree, {})
    for name in ("test_hello.py", "README.md", "conftest.py"):
        (folder / name).write_text("x")
    changes, _ = sync(folder, tree, stamps)
    assert len(changes.others) == 3
    assert changes.inputs == frozenset()


def test_links_that_go_round_end(folder: Path, tree: Path) -> None:
    (folder / "again").symlink_to(folder)
    sync(folder, tree, {})
    assert (tree / "again/hello.c").is_file()
    assert not (tree / "again/again/again").exists()


def test_a_folder_of_c_files_gets_a_kbuild(folder: Path, tree: Path) -> None:
    (folder / "helper.c").write_text("int helper(void) { return 1; }\n")
    _, stamps = sync(folder, tree, {})
    assert kbuild_for(folder, stamps) == "obj-m += hello.o\n"
    (folder / "Makefile").write_text("obj-m += hello.o\n")
    _, stamps = sync(folder, tree, stamps)
    assert kbuild_for(folder, stamps) is None


def test_a_folder_with_nothing_to_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no Kbuild, Makefile or \.c file in it"):
        kbuild_for(tmp_path, {})
    (tmp_path / "a.c").touch()
    with pytest.raises(UsageError, match=r"none of a\.c has a MODULE_LICENSE"):
        kbuild_for(tmp_path, {"a.c": (0, 0)})


def test_a_folder_that_is_no_folder_of_sources_is_refused(
    folder: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_MOST_FILES", 1)
    with pytest.raises(UsageError, match="more than 1 files"):
        sync(folder, tree, {})
