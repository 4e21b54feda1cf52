"""Which session a command means, and who may have a session's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kobox.errors import KoboxError, UsageError
from kobox.session import places


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv(places.VARIABLE, raising=False)
    return tmp_path / "kobox"


def test_names_are_given_in_order_and_taken_back_with_the_lock() -> None:
    (first, lock), (second, other) = places.claim(None), places.claim(None)
    assert [first.name, second.name] == ["k1", "k2"]
    os.close(lock)
    assert [place.alive for place in places.places()] == [False, True]
    again, third = places.claim(None)
    assert again.name == "k1"
    for descriptor in (other, third):
        os.close(descriptor)


def test_a_name_that_is_taken_is_refused() -> None:
    _, lock = places.claim("dev")
    with pytest.raises(UsageError, match="'dev' runs already"):
        places.claim("dev")
    os.close(lock)


def test_asking_whether_a_session_lives_does_not_keep_anyone_from_having_it() -> None:
    _, lock = places.claim("dev")
    os.close(lock)
    assert [place.alive for place in places.places()] == [False]
    os.close(places.claim("dev")[1])


def test_a_new_session_begins_in_an_empty_folder() -> None:
    folder, lock = places.claim("dev")
    (folder / places.LOG).write_text("old")
    os.close(lock)
    _, lock = places.claim("dev")
    assert sorted(os.listdir(folder)) == [places.LOCK]
    os.close(lock)


def test_the_only_session_is_meant_without_a_name() -> None:
    assert places.choose(None) is None
    _, lock = places.claim("dev")
    found = places.choose(None)
    assert found is not None
    assert found.name == "dev"
    os.close(lock)


def test_two_sessions_need_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    locks = [places.claim(name)[1] for name in ("one", "two")]
    with pytest.raises(UsageError, match="2 sessions run: one, two; hint: --session NAME"):
        places.choose(None)
    monkeypatch.setenv(places.VARIABLE, "two")
    chosen = places.choose(None)
    assert chosen is not None
    assert chosen.name == "two"
    for lock in locks:
        os.close(lock)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 65, "a b"])
def test_what_cannot_be_a_folder_cannot_be_a_name(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        places.check_name(name)


def test_a_killed_session_is_told_from_one_that_never_was() -> None:
    _, lock = places.claim("dev")
    os.close(lock)
    with pytest.raises(KoboxError, match="session 'dev' is gone"):
        places.choose("dev")
    with pytest.raises(KoboxError, match="no session 'other'; running: none"):
        places.choose("other")


def test_a_folder_that_others_may_use_is_refused(runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(KoboxError, match="found a folder that others may use"):
        places.claim("dev")
    with pytest.raises(KoboxError, match="found a folder that others may use"):
        places.choose(None)


def test_a_path_longer_than_a_sockets_address_is_reached(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 60] * 3)
    deep.mkdir(parents=True)
    (deep / "socket").write_text("here")
    with places.reachable(deep / "socket") as name:
        assert len(name) < 100
        assert Path(name).read_text() == "here"
