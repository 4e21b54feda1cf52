"""The examples of docs/signing.md give what is printed there, one after the other; ``…`` stands for any text."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from kobox.cli import main
from paths import EXAMPLES, ROOT

BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = (ROOT / "docs/signing.md").read_text()


def test_the_examples_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(EXAMPLES / "hello.ko", tmp_path)
    monkeypatch.chdir(tmp_path)
    steps = [step for block in BLOCK.findall(PAGE) for step in block.split("$ kobox ")[1:]]
    assert len(steps) > 5
    for step in steps:
        command, _, shown = step.partition("\n")
        main(shlex.split(command))
        wanted = ".*".join(re.escape(part) for part in shown.split("…"))
        assert re.fullmatch(wanted, capsys.readouterr().out, re.DOTALL), command
