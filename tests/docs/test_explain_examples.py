"""The examples of docs/explain.md give what is printed there; a line of ``…`` stands for any number of lines."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.image import Image
from paths import EXAMPLES, ROOT

pytestmark = pytest.mark.image

BLOCK = re.compile(r"^```console\n\$ kobox (.*?)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = (ROOT / "docs/explain.md").read_text()
SHOWN = "6.1.0-56-amd64"


def fits(printed: list[str], shown: list[str]) -> bool:
    """Whether ``shown`` is ``printed`` with some lines left out where it says so."""
    if not shown:
        return not printed
    if shown[0].strip() == "…":
        return any(fits(printed[skip:], shown[1:]) for skip in range(len(printed) + 1))
    return bool(printed) and printed[0] == shown[0] and fits(printed[1:], shown[1:])


@pytest.mark.parametrize(("command", "shown"), BLOCK.findall(PAGE), ids=lambda text: text[:40])
def test_an_example_prints_what_is_shown(
    command: str,
    shown: str,
    debian_image: Image,
    debian_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("hello", "user", "exporter"):
        shutil.copy(EXAMPLES / f"{name}.ko", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOBOX_DATA_DIR", str(debian_root.parents[2]))
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(debian_image.path.parents[1]))
    main(shlex.split(command.replace(SHOWN, debian_image.release)))
    printed = capsys.readouterr().out.replace(debian_image.release, SHOWN).splitlines()
    assert fits(printed, shown.splitlines()), "\n".join(printed)


def test_every_rule_is_on_the_page() -> None:
    from kobox.verdict.fixes import FIXES

    words = set(re.findall(r"`(-?[a-z-]+)`", PAGE))
    assert {rule for rule in FIXES if rule not in words and "-" + rule.partition("-")[2] not in words} == set()
