"""The installed modinfo and kobox's, asked the same of Debian's modules: by file, by name, by alias, field by field."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from depot_roots import plain_messages
from kobox.cli import modinfo
from kobox.depot.depmod import DepmodOptions, depmod
from needs import need_program

pytestmark = pytest.mark.image

MODES = [[], ["-F", "alias"], ["-p"], ["-0"], ["-n"], ["-F", "signature"], ["-F", "name"], ["-d"]]


class Both:
    """A copy of the distribution's tree, indexed, and both tools on it."""

    def __init__(self, root: Path, release: str) -> None:
        self.base = ["-b", str(root), "-k", release]
        self.tree = root / "lib/modules" / release

    def compare(self, arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        """One command line, the same answer."""
        path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
        theirs = subprocess.run(["modinfo", *arguments], capture_output=True, env={"PATH": path}, check=False)
        code = modinfo.main(arguments)
        captured = capfdbinary.readouterr()
        assert captured.out == theirs.stdout, arguments[:8]
        assert captured.err.decode() == plain_messages(theirs.stderr.decode()), arguments[:8]
        assert code == theirs.returncode

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.tree.rglob("*.ko"))

    def names(self) -> list[str]:
        lines = (self.tree / "modules.dep").read_text().splitlines()
        lines += (self.tree / "modules.builtin").read_text().splitlines()
        return [Path(line.partition(":")[0]).stem for line in lines]

    def aliases(self, rng: random.Random) -> list[str]:
        """A name that each wildcard matches."""
        lines = [line.split() for line in (self.tree / "modules.alias").read_text().splitlines()[1:]]
        lines += [line.split() for line in (self.tree / "modules.symbols").read_text().splitlines()[1:]]
        plain = [re.sub(r"\[([^\]])[^\]]*\]", r"\1", words[1]).replace("?", "7") for words in lines]
        return ["".join(rng.choice(["", "0", "00AB"]) if char == "*" else char for char in text) for text in plain]


@pytest.fixture(scope="module")
def both(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    need_program("modinfo")
    source = next(path for path in (debian_root / "lib/modules").iterdir() if (path / "kernel").is_dir())
    root = tmp_path_factory.mktemp("debian")
    tree = root / "lib/modules" / source.name
    tree.mkdir(parents=True)
    (tree / "kernel").symlink_to(source / "kernel")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (tree / name).write_bytes((source / name).read_bytes())
    depmod(DepmodOptions(str(tree), source.name))
    return Both(root, source.name)


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_a_sample_of_files_is_told_alike(
    both: Both, mode: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    both.compare([*mode, *both.files()[::40]], capfdbinary)


def test_names_aliases_and_builtin_modules_are_told_alike(
    both: Both, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    rng = random.Random(1)
    asked = rng.sample(both.names(), 100) + rng.sample(both.aliases(rng), 60) + ["nothing", "a]b", "fs-ext3"]
    both.compare([*both.base, "-F", "filename", *asked], capfdbinary)
    both.compare([*both.base, *asked[:60]], capfdbinary)
    both.compare([*both.base, "-m", *asked], capfdbinary)


@pytest.mark.full
@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_every_file_is_told_alike(both: Both, mode: list[str], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    both.compare([*mode, *both.files()], capfdbinary)


@pytest.mark.full
def test_every_name_and_alias_is_told_alike(both: Both, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    both.compare([*both.base, *both.names()], capfdbinary)
    aliases = both.aliases(random.Random(2))
    for start in range(0, len(aliases), 4000):
        both.compare([*both.base, "-F", "filename", *aliases[start : start + 4000]], capfdbinary)
