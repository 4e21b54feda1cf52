"""The same scripts through sh with coreutils and grep, and through the shell of kobox: the same output and status."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from needs import need_program
from paths import ROOT
from unit.shell.worlds import Ran

ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

TEXT = "one two\nthree\n\nFour  five\tsix\nseven [8] 9.0 a+b\nthree again\nx\\y $z 'q'\nlast without end"

FILES = {
    "text": TEXT,
    "empty": "",
    "numbers": "".join(f"{number}\n" for number in range(1, 41)),
    "names": "alpha\nBeta\ngamma\nalphabet\nALPHA\nal pha\nalpha-beta\n_alpha_\n",
    "with space": "spaced\n",
    "dir/inner": "inner alpha\n",
    "dir/.hidden": "hidden alpha\n",
    "dir/sub/deep": "deep\nalpha deep\n",
    "star*name": "literal star\n",
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "link").symlink_to("dir")
    return tmp_path


def real(script: str, world: Path) -> tuple[int, str]:
    """bash: its echo, unlike dash's, takes a backslash as it is."""
    need_program("bash", "grep", "wc")
    ran = subprocess.run(
        ["bash", "-c", script], cwd=world, env=ENVIRONMENT, capture_output=True, timeout=20, check=False
    )
    return ran.returncode, ran.stdout.decode("utf-8", "surrogateescape")


SCRIPTS = (ROOT / "tests/data/shell_scripts.txt").read_text().removesuffix("\n").split("\n%\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_does_what_it_does_in_sh(script: str, world: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    twin = tmp_path_factory.mktemp("twin") / "world"
    shutil.copytree(world, twin, symlinks=True)
    # "2>/dev/null" is for sh: there is no /dev in this tree, and messages are caught apart
    status, out, _ = Ran(world)(script.replace(" 2>/dev/null", ""))
    assert (status, out) == real(script, twin)


WORDS = st.sampled_from(
    [
        "a",
        "'b c'",
        '"d  e"',
        "$x",
        '"$x"',
        "${y}z",
        "\\ f",
        "''",
        "*one",
        "t*",
        '"t*"',
        "$y",
        "\\\\",
        "x=1",
        "#k",
        "g#h",
    ]
)


@given(words=st.lists(st.lists(WORDS, min_size=1, max_size=4).map("".join), max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_are_split_as_sh_splits_them(words: list[str], world: Path) -> None:
    script = f"x='p  q'; y=' r '\necho {' '.join(words)}\n"
    status, out, _ = Ran(world)(script)
    assert (status, out) == real(script, world)
