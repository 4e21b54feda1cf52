"""The installed kmod and kobox, asked the same: on made-up systems, and on Debian's own module tree."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from depot_roots import DepotRoot, chroot_kmod, plain_messages, run_in_root
from kobox.cli import insmod, lsmod, modprobe, rmmod
from needs import lacking, need_program

Answer = tuple[int, str, str]


def _load_fuzzer() -> ModuleType:
    path = Path(__file__).parents[3] / "tools/fuzz_modprobe.py"
    spec = importlib.util.spec_from_file_location("fuzz_modprobe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_modprobe"] = module
    spec.loader.exec_module(module)
    return module


def _need_chroot() -> None:
    need_program("modprobe", "ldd", "chroot")
    if os.geteuid() != 0:
        need_program("unshare")
        if subprocess.run(["unshare", "-r", "true"], capture_output=True).returncode != 0:
            lacking("this test runs kmod in a chroot, which needs root or user namespaces")


@pytest.mark.parametrize("seed", [1, 2])
def test_random_systems_get_the_same_answers_from_both(seed: int) -> None:
    _need_chroot()
    counts = _load_fuzzer().fuzz(cases=8, seed=seed * 1000, show=2)
    assert counts["DIFFERENT"] == 0
    assert counts["same"] > 50


@pytest.mark.full
def test_a_thousand_random_systems_get_the_same_answers_from_both() -> None:
    _need_chroot()
    assert _load_fuzzer().fuzz(cases=1000, seed=500_000, show=5)["DIFFERENT"] == 0


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("lsmod", []),
        ("lsmod", ["operand"]),
        ("rmmod", ["held"]),
        ("rmmod", ["busy", "held", "none"]),
        ("rmmod", []),
        ("rmmod", ["--bogus"]),
        ("insmod", []),
        ("insmod", ["-"]),
        ("insmod", ["none.ko"]),
    ],
)
def test_the_other_tools_say_the_same_where_nothing_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: str, words: list[str]
) -> None:
    _need_chroot()
    root = DepotRoot(tmp_path).loaded("held", 1, ("user",), size=123456).loaded("user").loaded("busy", 2)
    listed = "user 16384 0 - Live 0x0\nheld 123456 1 user, Live 0x0\nbusy 16384 2 - Live 0x0\n"
    root.conf("proc/modules", listed).write()
    chroot_kmod(tmp_path)
    code = {"lsmod": lsmod, "rmmod": rmmod, "insmod": insmod}[tool].main(["--root", str(tmp_path), *words])
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err) == run_in_root(tmp_path, tool, words)


# --- Debian's tree ---------------------------------------------------------------------------------------------------


class Tree:
    """A copy of the distribution's tree with indexes by the installed depmod, and both tools on it."""

    def __init__(self, root: Path, release: str) -> None:
        self.base = ["-d", str(root), "-S", release]
        self.directory = root / "lib/modules" / release

    def kmod(self, arguments: list[str]) -> Answer:
        done = subprocess.run(
            ["modprobe", *self.base, *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env={"PATH": os.environ.get("PATH", "") + ":/sbin:/usr/sbin"},
        )
        return done.returncode, done.stdout, plain_messages(done.stderr)

    def kobox(self, arguments: list[str]) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        os.environ.pop("MODPROBE_OPTIONS", None)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = modprobe.main([*self.base, *arguments])
        os.environ.pop("MODPROBE_OPTIONS", None)
        return code, out.getvalue(), err.getvalue()

    def names(self) -> list[str]:
        modules = [line.partition(":")[0] for line in (self.directory / "modules.dep").read_text().splitlines()]
        builtin = (self.directory / "modules.builtin").read_text().splitlines()
        return [Path(path).name.partition(".")[0] for path in modules + builtin]

    def aliases(self, index: str) -> list[str]:
        lines = (self.directory / index).read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("alias ")]

    def compare(self, modes: list[list[str]], names: list[str]) -> list[str]:
        """The commands on which the two differ."""
        commands = [[*mode, "--", name] for mode in modes for name in names]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = pool.map(self.kmod, commands)
            pairs = zip(commands, answers, strict=True)
            return [" ".join(command) for command, kmod in pairs if kmod != self.kobox(command)]


@pytest.fixture(scope="module")
def tree(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    need_program("modprobe", "depmod")
    source = next(path for path in (debian_root / "lib/modules").iterdir() if (path / "kernel").is_dir())
    root = tmp_path_factory.mktemp("debian")
    target = root / "lib/modules" / source.name
    target.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / name, target / name)
    shutil.copytree(source / "kernel", target / "kernel", copy_function=_linked)
    path = os.environ.get("PATH", "") + ":/sbin:/usr/sbin"
    subprocess.run(["depmod", "-b", str(root), source.name], check=True, env={"PATH": path})
    return Tree(root, source.name)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        os.symlink(source, target)


def concrete(pattern: str, rng: random.Random) -> str:
    """A name that the wildcard pattern matches."""
    pattern = re.sub(r"\[([^\]])[^\]]*\]", r"\1", pattern).replace("?", "7")
    return "".join(rng.choice(["", "0", "00AB", "x-y_z"]) if char == "*" else char for char in pattern)


MODES = [["-D"], ["-R"], ["-n", "-v"], ["-q", "-n", "-v", "-b"]]


@pytest.mark.image
def test_the_whole_configuration_and_all_indexes_are_listed_alike(tree: Tree) -> None:
    assert tree.kobox(["-c"]) == tree.kmod(["-c"])


@pytest.mark.image
def test_a_sample_of_modules_is_planned_alike(tree: Tree) -> None:
    names = random.Random(1).sample(tree.names(), 60)
    assert tree.compare(MODES, ["btrfs", "ext4", "cifs", "no-such", "a]b", *names]) == []


@pytest.mark.image
def test_a_sample_of_aliases_and_symbols_is_planned_alike(tree: Tree) -> None:
    rng = random.Random(2)
    patterns = rng.sample(tree.aliases("modules.alias"), 80)
    names = [concrete(pattern, rng) for pattern in patterns] + rng.sample(tree.aliases("modules.symbols"), 20)
    assert tree.compare(MODES[:2], names) == []


@pytest.mark.image
@pytest.mark.parametrize("option", ["--show-modversions", "--show-exports"])
def test_symbol_versions_of_a_sample_are_listed_alike(tree: Tree, option: str) -> None:
    paths = [line.partition(":")[0] for line in (tree.directory / "modules.dep").read_text().splitlines()]
    chosen = [str(tree.directory / path) for path in random.Random(3).sample(paths, 12)]
    commands = [[option, path] for path in chosen]
    assert [command for command in commands if tree.kobox(command)[:2] != tree.kmod(command)[:2]] == []


@pytest.mark.image
@pytest.mark.full
def test_every_module_is_planned_alike(tree: Tree) -> None:
    assert tree.compare(MODES, tree.names()) == []


@pytest.mark.image
@pytest.mark.full
def test_every_alias_family_is_planned_alike(tree: Tree) -> None:
    rng = random.Random(4)
    patterns = tree.aliases("modules.alias")
    families = {re.split(r"[:\-]", pattern)[0]: pattern for pattern in patterns}
    chosen = [*families.values(), *rng.sample(patterns, 2000)]
    assert tree.compare(MODES[:2], [concrete(pattern, rng) for pattern in chosen]) == []
