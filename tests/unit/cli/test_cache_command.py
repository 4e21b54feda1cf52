"""``kobox cache``: show, check, clean, limit, path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.image import Cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("KOBOX_CACHE_LIMIT", raising=False)
    made = Cache()
    made.build("image", "one", lambda work: {"n": (work / "data").write_bytes(b"x" * 9000)})
    return made


def _run(*args: str) -> int:
    return main(["cache", *args])


def test_without_a_verb_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "image"
    assert lines[0].split()[-1] == "one"
    assert "in 1 entries, limit 4295.0 MB" in lines[1]


def test_show_as_json_lists_entries(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("show", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(cache.root)
    assert [(entry["kind"], entry["key"]) for entry in facts["entries"]] == [("image", "one")]


def test_check_of_a_whole_cache_is_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("check") == 0
    assert "1 entries are whole" in capsys.readouterr().out


def test_check_names_damage_and_fixes_it(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    (cache.path("image", "one") / "data").write_bytes(b"y" * 9000)
    assert _run("check") == 1
    assert "checksum" in capsys.readouterr().out
    assert _run("check", "--fix", "--json") == 0
    assert [finding["fixed"] for finding in json.loads(capsys.readouterr().out)] == [True]
    assert _run("check") == 0


def test_clean_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("clean", "boot") == 0
    assert _run("clean") == 0
    assert capsys.readouterr().out == "removed 0 entries\nremoved 1 entries\n"


def test_limit_is_set_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("limit", "1G", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"limit": 1 << 30}
    assert _run("limit", "many") == 2


def test_path_is_printed(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("path") == 0
    assert capsys.readouterr().out == f"{cache.root}\n"
