"""Changes of files arrive once, whatever way they were made."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from kobox.errors import UsageError
from kobox.watch import changes as module
from kobox.watch.changes import Changes

SECONDS = 20.0


@pytest.fixture(params=[False, True], ids=["inotify", "polling"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Changes]]:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "hello.c").write_text("one\n")
    found = Changes([folder], lambda path: path.suffix in (".c", ".h"), polling=request.param)
    assert wait([found.fileno()], 0.5) == [], "nothing changed yet"
    yield folder, found
    found.close()


def names(found: Changes) -> set[str]:
    assert wait([found.fileno()], SECONDS), "no change was told"
    return {path.name for path in found.take()}


def test_a_file_that_is_written_is_told_once(watched: tuple[Path, Changes]) -> None:
    folder, found = watched
    (folder / "hello.c").write_text("two, and longer\n")
    assert names(found) == {"hello.c"}
    assert wait([found.fileno()], 0.5) == []
    assert found.take() == frozenset()


def test_a_file_renamed_over_another_is_told(watched: tuple[Path, Changes]) -> None:
    folder, found = watched
    (folder / ".hello.tmp").write_text("two, and longer\n")
    (folder / ".hello.tmp").rename(folder / "hello.c")
    assert names(found) == {"hello.c"}


def test_new_and_removed_files_are_told_in_folders_below_too(watched: tuple[Path, Changes]) -> None:
    folder, found = watched
    (folder / "deep/new.h").write_text("x\n")
    assert names(found) == {"new.h"}
    (folder / "hello.c").unlink()
    assert names(found) == {"hello.c"}


def test_what_is_not_wanted_is_not_told(watched: tuple[Path, Changes]) -> None:
    folder, found = watched
    (folder / "notes").write_text("x\n")
    assert wait([found.fileno()], 1.0) == []


def test_where_notices_cannot_be_had_polling_serves_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_notices(*paths: str, **options: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "watch", without_notices)
    said: list[str] = []
    found = Changes([tmp_path], lambda path: True, said.append)
    try:
        assert wait([found.fileno()], 1.0) == []
        (tmp_path / "new.c").touch()
        assert names(found) == {"new.c"}
    finally:
        found.close()
    assert said == ["no change notices here (No space left on device): looking every 300 ms instead"]


def test_what_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone: no such file or directory to watch"):
        Changes([tmp_path / "gone"], lambda path: True)
