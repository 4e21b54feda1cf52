"""``kobox kernel``: add, list, show, remove, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from image_builders import RELEASE, KernelBuilder
from kobox.cli import main
from kobox.image import Cache, open_image


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "vmlinuz").write_bytes(KernelBuilder().packed())
    return tmp_path


def _run(*args: str | Path) -> int:
    return main(["kernel", *map(str, args)])


def test_add_says_what_came(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("add", home / "vmlinuz") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"added {RELEASE} from {home / 'vmlinuz'}"
    assert "2 exports, no modules" in lines[1]


def test_add_as_json_is_the_overview(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("add", home / "vmlinuz", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["release"], facts["exports"], facts["boots"]) == (RELEASE, 2, [])


def test_list_of_nothing_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("list") == 0
    assert "kobox kernel add --debian" in capsys.readouterr().out
    assert _run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_has_a_line_an_image(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("add", home / "vmlinuz")
    capsys.readouterr()
    assert _run("list") == 0
    assert capsys.readouterr().out.split()[:4] == [RELEASE, "0", "modules", "ready"]


def test_show_takes_the_only_image(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("add", home / "vmlinuz")
    capsys.readouterr()
    assert _run("show") == 0
    rows = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["release"].strip() == RELEASE
    assert rows["exports"].strip() == "2 (1 GPL only, 2 with a CRC)"
    assert rows["boot"].strip() == "not booted yet"


def test_show_tells_of_boots(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("add", home / "vmlinuz")
    key = open_image(RELEASE).key
    Cache().build("boot", "b", lambda work: {"image": key, "seconds": 2.74, "results": {"ok": 597, "error": 66}})
    capsys.readouterr()
    _run("show")
    assert "1 snapshot kept, 0.0 MB; the newest took 2.7 s (597 ok, 66 error)" in capsys.readouterr().out


def test_show_of_a_path_needs_no_add(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("show", home / "vmlinuz", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["added"]) == ("host", None)


def test_show_without_a_choice_asks_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("show") == 2
    assert "which image?" in capsys.readouterr().err


def test_remove_forgets(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("add", home / "vmlinuz")
    assert _run("remove", RELEASE) == 0
    assert _run("remove", RELEASE) == 2
    assert f"no image '{RELEASE}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["add"],
        ["add", "x.deb", "--debian"],
        ["add", "x.deb", "--headers"],
        ["add", "--debian", "--modules", "x"],
        ["add", "nothing"],
    ],
)
def test_wrong_usage_is_one_line_and_two(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*args) == 2
    assert capsys.readouterr().err.startswith("kobox kernel: ")


def test_a_damaged_kernel_is_one_line_and_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "vmlinuz"
    path.write_bytes(path.read_bytes()[:-1000])
    assert _run("add", path) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "file is cut short" in error
