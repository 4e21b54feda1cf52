"""The cache: whole entries or none, repaired when damaged, kept below its limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from kobox.errors import UsageError
from kobox.image.cache import MANIFEST, Cache, data_root, default_root, parse_size


def _fill(work: Path) -> dict[str, int]:
    (work / "data").write_bytes(b"x" * 10000)
    (work / "inner").mkdir()
    (work / "inner/more").write_bytes(b"y" * 100)
    return {"answer": 42}


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, notes: list[str]) -> Cache:
    return Cache(tmp_path / "cache", notes.append)


def test_an_entry_keeps_files_and_facts(cache: Cache) -> None:
    cache.build("image", "a", _fill)
    entry = cache.entry("image", "a")
    assert entry is not None
    assert entry.facts == {"answer": 42}
    assert (entry.path / "inner/more").read_bytes() == b"y" * 100
    assert entry.size >= 10000


def test_what_was_never_made_is_none_and_touches_nothing(cache: Cache) -> None:
    assert cache.entry("image", "a") is None
    assert cache.entries() == []
    assert not cache.root.exists()


def test_a_second_maker_finds_the_first_ones_work(cache: Cache) -> None:
    first = cache.build("image", "a", _fill)
    second = cache.build("image", "a", lambda work: pytest.fail("made twice"))
    assert second.created == first.created


def test_replace_makes_it_again(cache: Cache) -> None:
    cache.build("image", "a", _fill)
    assert cache.build("image", "a", lambda work: {"answer": 43}, replace=True).facts == {"answer": 43}


def test_a_maker_that_fails_publishes_nothing(cache: Cache) -> None:
    def fail(work: Path) -> dict[str, int]:
        (work / "data").write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.build("image", "a", fail)
    assert cache.entry("image", "a") is None
    assert list((cache.root / "image").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "missing", "manifest", "other"])
def test_a_damaged_entry_is_dropped_and_said(cache: Cache, notes: list[str], damage: str) -> None:
    path = cache.build("image", "a", _fill).path
    if damage == "cut":
        os.truncate(path / "data", 5000)
    elif damage == "missing":
        (path / "data").unlink()
    elif damage == "manifest":
        (path / MANIFEST).write_text("kobox-entry 1 00000000\n{}\n")
    else:
        (path / MANIFEST).unlink()
    assert cache.entry("image", "a") is None
    assert len(notes) == 1
    assert "is damaged" in notes[0]
    assert not path.exists()
    assert cache.build("image", "a", _fill).facts == {"answer": 42}


def test_a_changed_file_of_the_same_size_is_damage(cache: Cache, notes: list[str]) -> None:
    path = cache.build("image", "a", _fill).path
    (path / "data").write_bytes(b"z" * 10000)
    assert cache.entry("image", "a") is None
    assert "content differs from its checksum" in notes[0]


def test_a_copied_entry_with_other_time_stamps_is_whole(cache: Cache, notes: list[str]) -> None:
    path = cache.build("image", "a", _fill).path
    os.utime(path / "data", (1, 1))
    assert cache.entry("image", "a") is not None
    assert notes == []


def test_an_entry_moved_to_another_key_is_damage(cache: Cache, notes: list[str]) -> None:
    path = cache.build("image", "a", _fill).path
    path.rename(path.with_name("b"))
    assert cache.entry("image", "b") is None
    assert "belongs elsewhere" in notes[0]


def test_files_added_later_are_nobodys_damage(cache: Cache) -> None:
    path = cache.build("image", "a", _fill).path
    (path / "later.json").write_text("{}")
    assert cache.entry("image", "a") is not None
    assert cache.check() == []


def test_a_full_check_finds_what_time_stamps_hide(cache: Cache) -> None:
    path = cache.build("image", "a", _fill).path
    status = (path / "data").stat()
    (path / "data").write_bytes(b"z" * 10000)
    os.utime(path / "data", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.entry("image", "a") is not None
    (finding,) = cache.check()
    assert finding.path == path
    assert "checksum" in finding.what
    assert not finding.fixed
    (fixed,) = cache.check(fix=True)
    assert fixed.fixed
    assert cache.check() == []


def _die_inside(root: Path) -> None:
    def fill(work: Path) -> dict[str, int]:
        (work / "data").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    Cache(root).build("image", "a", fill)


def test_a_killed_maker_leaves_nothing_that_matters(cache: Cache) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_inside, args=(cache.root,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert cache.entry("image", "a") is None
    assert [finding.what for finding in cache.check()] == ["left by a process that was killed"]
    cache.build("image", "a", _fill)
    assert cache.check() == []


def _build_slowly(root: Path, log: Path) -> None:
    def fill(work: Path) -> dict[str, int]:
        with open(log, "a") as handle:
            handle.write("made\n")
        time.sleep(0.2)
        return _fill(work)

    Cache(root).build("image", "a", fill)


def test_makers_of_one_key_at_the_same_time_make_it_once(cache: Cache, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=_build_slowly, args=(cache.root, tmp_path / "log")) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0, 0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_beyond_the_limit_the_longest_unused_goes(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, key in enumerate(("old", "used", "new")):
        path = cache.build("image", key, _fill).path
        os.utime(path / MANIFEST, (1000 + number, 1000 + number))
    cache.entry("image", "old")  # using it makes it the newest
    monkeypatch.setenv("KOBOX_CACHE_LIMIT", "40K")
    cache.build("image", "newest", _fill)
    assert [entry.key for entry in cache.entries()] == ["newest", "old"]


def test_what_was_just_made_stays_whatever_its_size(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOBOX_CACHE_LIMIT", "1")
    cache.build("image", "a", _fill)
    assert [entry.key for entry in cache.entries()] == ["a"]


def test_the_limit_is_stored_and_applied(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOBOX_CACHE_LIMIT", raising=False)
    cache.build("image", "a", _fill)
    cache.set_limit(100)
    assert Cache(cache.root).limit == 100
    assert cache.entries() == []
    cache.set_limit(0)
    cache.build("image", "a", _fill)
    assert len(cache.entries()) == 1


def test_clean_takes_a_kind_or_all(cache: Cache) -> None:
    for kind, key in (("image", "a"), ("image", "b"), ("boot", "a")):
        cache.build(kind, key, _fill)
    assert cache.clean("image") == 2
    assert [entry.kind for entry in cache.entries()] == ["boot"]
    assert cache.clean() == 1


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"])
def test_names_that_leave_the_cache_are_refused(cache: Cache, name: str) -> None:
    with pytest.raises(UsageError):
        cache.path("image", name)


def test_a_read_only_cache_still_serves(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build("image", "a", _fill)

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.entry("image", "a") is not None


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("17", 17), ("2K", 2048), ("3m", 3 << 20), ("1GiB", 1 << 30)])
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_places_follow_xdg_unless_kobox_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KOBOX_CACHE_DIR", "KOBOX_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg/cache")
    monkeypatch.setenv("XDG_DATA_HOME", "relative is ignored")
    monkeypatch.setenv("HOME", "/home/me")
    assert (str(default_root()), str(data_root())) == ("/xdg/cache/kobox", "/home/me/.local/share/kobox")
    monkeypatch.setenv("KOBOX_CACHE_DIR", "/own")
    assert str(default_root()) == "/own"
