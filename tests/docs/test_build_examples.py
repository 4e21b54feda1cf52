"""The module and the test that docs/build.md shows build, load and pass as they are printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headers import kernel_headers
from kobox.image import Image
from paths import ROOT

pytestmark = pytest.mark.image

PAGE = (ROOT / "docs/build.md").read_text()
MODULE = re.search(r"^\$ cat > hello\.c\n(.*?)^\$ ", PAGE, re.DOTALL | re.MULTILINE)
TEST = re.search(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_tutorial_ends_in_a_passing_test(debian_image: Image, debian_root: Path, tmp_path: Path) -> None:
    assert MODULE
    assert TEST
    headers = kernel_headers(debian_image.release)
    root = str(headers.directory).partition("/usr/src/")[0] or "/"
    (tmp_path / "hello.c").write_text(MODULE[1])
    (tmp_path / "test_hello.py").write_text(TEST[1])
    line = [sys.executable, "-m", "kobox", "watch", ".", "--once", "--image", str(debian_root), "--headers", root]
    cache = debian_image.path.parents[1]
    done = subprocess.run(
        line, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KOBOX_CACHE_DIR": str(cache)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    for copy in (cache / "work").glob(f"{tmp_path.name}-*"):
        shutil.rmtree(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"watching {tmp_path} for {debian_image.release}; tests: test_hello.py")
    assert lines[-1].startswith("1 passed")
