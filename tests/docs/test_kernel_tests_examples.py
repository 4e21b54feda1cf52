"""The tests that docs/kernel-tests.md shows are built as it says, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headers import kernel_headers
from kobox.image import Image
from paths import ROOT

pytestmark = pytest.mark.image

PAGE = (ROOT / "docs/kernel-tests.md").read_text()
SHOWN = re.search(
    r"^\$ cat > shapes\.c\n(.*?)^\$ echo '(.*?)' > Kbuild\n.*?^\$ kobox kunit build\S+\n(.*?)^```",
    PAGE,
    re.DOTALL | re.MULTILINE,
)


def test_the_example_says_what_the_page_shows(debian_image: Image, debian_root: Path, tmp_path: Path) -> None:
    assert SHOWN
    source, kbuild, expected = SHOWN.groups()
    (tmp_path / "shapes.c").write_text(source)
    (tmp_path / "Kbuild").write_text(f"{kbuild}\n")
    headers = str(kernel_headers(debian_image.release).directory).partition("/usr/src/")[0] or "/"
    cache = debian_image.path.parents[1]
    environment = {**os.environ, "KOBOX_CACHE_DIR": str(cache), "KBUILD_MODPOST_WARN": "1"}

    def kobox(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "kobox", *words, "--image", str(debian_root)]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    built = kobox("build", ".", "--headers", headers)
    assert built.returncode == 0, built.stdout + built.stderr
    tested = kobox("kunit", f"build/{debian_image.release}/shapes.ko")
    assert tested.returncode == 1, tested.stderr
    # where the compiler ran is part of the file's name
    assert re.sub(r"FAILED at \S*shapes\.c", "FAILED at shapes.c", tested.stdout) == expected
