"""The first steps of docs/mount.md, typed as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mounting import blank, check, run
from needs import need_fuse

pytestmark = pytest.mark.image

PAGE = Path(__file__).resolve().parents[2] / "docs/mount.md"


def test_the_first_steps_work_as_they_are_shown(debian_root: Path, tmp_path: Path) -> None:
    need_fuse()
    (block,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands = [line[2:].partition("  #")[0] for line in block.splitlines() if line.startswith("$ ")]
    shown = next(line for line in block.splitlines() if line.endswith(")"))
    image = blank(tmp_path / "disk.img", 16)
    run("mkfs.ext4", "-q", "-F", image)
    (tmp_path / "notes.txt").write_text("noted")
    data = next(folder for folder in debian_root.parents if folder.name == "data")
    environment = os.environ | {
        "KOBOX_DATA_DIR": str(data), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    said = ""
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        said += done.stdout
    form = re.sub(r"4711", r"\\d+", re.escape(shown.replace("/home/me", str(tmp_path))))
    assert any(re.fullmatch(form, line) for line in said.splitlines()), said
    assert run("debugfs", "-R", "cat notes.txt", image) == "noted"
    check("ext4", image)
