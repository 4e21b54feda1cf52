"""The runner of kmod's suite: how it reads tests from C sources, and that it tells a pass from a failure."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from builders import KoBuilder
from depot_roots import DepotRoot
from needs import need_program

REPOSITORY = Path(__file__).parents[3]

SOURCE = """
static int lookup(void) {
    return test_spawn_prog("TOOLS" "/" "modprobe", (const char *[]){ "TOOLS/modprobe", "-R", "fs-foo", 0 });
}
static const struct test s1 = {
    .name = "finds_alias", .func = lookup,
    .config = { [TC_UNAME_R] = "4.4.4", [TC_ROOTFS] = TESTSUITE_ROOTFS "test-x", },
    .output = { .out = TESTSUITE_ROOTFS "test-x/correct.txt", },
};
static int load(void) {
    return test_spawn_prog("TOOLS/modprobe", (const char *[]){ "TOOLS/modprobe", "foo", 0 });
}
static const struct test s2 = {
    .name = "loads", .func = load,
    .config = { [TC_UNAME_R] = "4.4.4", [TC_ROOTFS] = TESTSUITE_ROOTFS "test-x", },
    .modules_loaded = "foo,ba-r",
};
static const struct test s3 = {
    .name = "not_of_a_tool", .func = other,
};
"""


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kmod_suite", REPOSITORY / "tools/kmod_suite.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kmod_suite"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one source of tests, one fixture root, and one module that is placed by the script."""
    need_program("cc")
    made = tmp_path / "kmod"
    root = DepotRoot(made / "testsuite/rootfs-pristine/test-x", "4.4.4").alias("fs-foo", "foo")
    root.module("kernel/foo.ko", needs=["kernel/ba-r.ko"]).module("kernel/ba-r.ko")
    root.conf("correct.txt", "foo\n\n").write()
    (made / "testsuite/test-x.c").write_text(SOURCE)
    (made / "scripts").mkdir()
    place = '    ["test-x$MODULE_DIRECTORY/4.4.4/kernel/"]="foo.ko"\n'
    (made / "scripts/setup-rootfs.sh").write_text(f"map=(\n{place})\n")
    modules = made / "testsuite/module-playground"
    modules.mkdir()
    for name in ("foo.ko", "mod-simple.ko"):
        (modules / name).write_bytes(KoBuilder("foo").module().build())
    return made


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-m", "tools.kmod_suite", str(checkout)]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


def test_tests_are_read_from_the_preprocessed_source(suite: ModuleType, checkout: Path) -> None:
    one, two = suite.read_cases(checkout, Path("/roots"))
    assert (one.name, one.tool, one.arguments) == ("finds_alias", "modprobe", ("-R", "fs-foo"))
    assert (one.root, one.release, one.out) == ("/roots/test-x", "4.4.4", "/roots/test-x/correct.txt")
    assert (two.loaded, two.expected_fail) == (("ba_r", "foo"), False)


def test_a_suite_that_passes_ends_with_its_count(checkout: Path) -> None:
    done = run(checkout)
    assert (done.returncode, done.stdout) == (0, "2 of 2 pass\n")


def test_a_failure_is_shown(checkout: Path) -> None:
    (checkout / "testsuite/rootfs-pristine/test-x/correct.txt").write_text("bar\n")
    done = run(checkout)
    assert done.returncode == 1
    assert "FAIL finds_alias: modprobe -R fs-foo: standard output is 'foo\\n', expected 'bar\\n'" in done.stdout
    assert done.stdout.endswith("1 of 2 pass\n")


def test_a_checkout_without_test_modules_is_named(checkout: Path) -> None:
    (checkout / "testsuite/module-playground/mod-simple.ko").unlink()
    done = run(checkout)
    assert done.returncode == 2
    assert "test modules are not there" in done.stderr
