"""docs/images.md: its examples run, its output is what the commands print, its tables list what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.image import Image
from kobox.image.cache import Finding
from kobox.image.overview import BootRecord, Listed, Overview

PAGE = (Path(__file__).parents[3] / "docs/images.md").read_text()
DOCUMENTED = "6.1.0-56-amd64"
VARYING = {"source", "added", "cache", "boot"}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def documented(debian_root: Path, debian_image: Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store with Debian's kernel."""
    data = debian_root.parents[2]
    monkeypatch.setenv("KOBOX_DATA_DIR", str(data))
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(debian_image.path.parents[1]))
    return data


@pytest.mark.image
def test_the_python_example_runs(documented: Path, debian_image: Image) -> None:
    example = _blocks("python")[0].replace(DOCUMENTED, debian_image.release)
    names: dict[str, object] = {}
    exec(example, names)
    assert "read" in names


@pytest.mark.image
def test_show_prints_what_the_page_has(
    documented: Path, debian_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = _blocks("console")
    command, *expected = block.replace(DOCUMENTED, debian_image.release).splitlines()
    assert main(command.removeprefix("$ kobox ").split()) == 0
    printed = capsys.readouterr().out.replace(str(documented), "~/.local/share/kobox").splitlines()
    assert [line.split(":")[0] for line in printed] == [line.split(":")[0] for line in expected]
    if debian_image.release != DOCUMENTED:
        return  # the archive has moved on from the kernel that the page shows: its figures are its own
    fixed = [line for line in expected if line.split(":")[0] not in VARYING]
    assert [line for line in printed if line.split(":")[0] not in VARYING] == fixed


def test_every_field_of_the_json_is_described() -> None:
    described = set(re.findall(r"`(\w+)`", PAGE))
    for record in (Overview, Listed, BootRecord, Finding):
        assert set(record.__annotations__) <= described


def test_every_command_of_the_page_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for command in set(re.findall(r"`kobox ((?:kernel|cache)[^`]*)`", PAGE)):
        words = [word for word in command.split() if word not in ("RELEASE",)]
        if len(words) == 1:
            continue
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0, command
        assert "usage: kobox" in capsys.readouterr().out
