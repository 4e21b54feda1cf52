"""The Python examples of the guides run as they are printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from paths import EXAMPLES, ROOT

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.image

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page", ["docs/pytest.md", "docs/shell.md", "docs/autoload.md", "docs/real-work.md", "docs/devices.md", "README.md"]
)
def test_tests_shown_in_a_guide_pass(page: str, pytester: pytest.Pytester, debian_root: Path) -> None:
    blocks = [block for block in BLOCK.findall((ROOT / page).read_text()) if "def test_" in block]
    assert blocks
    for module in ("hello.ko", "dyndbg.ko", "edu.ko"):
        shutil.copy(EXAMPLES / module, pytester.path)
    pytester.makepyfile("\n".join(blocks))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kobox-image", str(debian_root))
    result.assert_outcomes(passed=sum(block.count("def test_") for block in blocks))


def test_the_log_shown_in_a_guide_comes_out_so(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = BLOCK.findall((ROOT / "docs/dmesg.md").read_text())
    exec(block, {})
    assert capsys.readouterr().out == "kern  :err   : [   12.500000] ext4: error\n\n"
