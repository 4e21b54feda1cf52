"""Devices that stay: ``kobox plug --session``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.session.client import connect
from paths import EXAMPLES
from schemas import problems_of_command

pytestmark = pytest.mark.image


@pytest.fixture(scope="module", autouse=True)
def _session(kobox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        assert main(["boot", "--image", kobox_image, "--name", "first"]) == 0
        yield
        main(["halt", "--all"])


def test_a_device_is_plugged_in_used_listed_and_unplugged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("disk").write_bytes(b"d" * 65536)
    assert main(["plug", "--session", "first", "--json", "disk:disk"]) == 0
    (record,) = found = json.loads(capsys.readouterr().out)
    assert problems_of_command(found, "plug") == []
    assert record["drivers"] == ["virtio-pci", "virtio_blk"]
    with connect("first") as kernel:
        assert kernel.read("/dev/vda") == b"d" * 65536
    assert main(["plug", "--session", "first", "--module", str(EXAMPLES / "edu.ko"), "edu"]) == 0
    capsys.readouterr()
    assert main(["plug", "--session", "first", "--list"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if " at " in line and line[0].isdigit()]
    assert shown == [f"1: disk:{tmp_path}/disk at 0000:00:01.0", "2: edu at 0000:00:02.0"]
    assert main(["save", "--session", "first", str(tmp_path / "kept")]) != 0
    assert "devices are plugged in" in capsys.readouterr().err
    for number in ("1", "2"):
        assert main(["plug", "--session", "first", "--unplug", number]) == 0
    with connect("first") as kernel:
        assert kernel.devices == []
        assert "vda" not in {entry.name for entry in kernel.ls("/dev")}


def test_what_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, what in (
        (["--session", "first", "--unplug", "9"], "no device 9 is plugged in"),
        (["--session", "first", "toaster"], "no device 'toaster'"),
        (["--list"], "where it stays"),
        ([], "no DEVICE to plug in"),
    ):
        assert main(["plug", *words]) == 2
        said = capsys.readouterr().err
        assert what in said
        assert said.count("\n") == 1
