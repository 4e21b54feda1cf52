"""Coverage of real modules on real kernels: lines of the branch that was taken ran, lines of the other did not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_headers import make_modules

import kobox
from headers import kernel_headers
from kobox.box import Kernel
from kobox.debug.coverage import Collected, FileCoverage
from kobox.elf import parse
from kobox.errors import Errno, UsageError
from kobox.image import Image
from kobox.kernel.coverage import CodeCoverage
from needs import lacking
from paths import EXAMPLES

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.image

SOURCE = """\
#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static int wanted, refuse;

static noinline int on_way_one(int x)
{
	pr_info("one\\n");
	return x + 1;
}

static noinline int on_way_two(int x)
{
	pr_info("two\\n");
	return x + 2;
}

static int set(const char *text, const struct kernel_param *kp)
{
	int error = param_set_int(text, kp);

	if (error) {
		pr_info("no number\\n");
		return error;
	}
	wanted = wanted == 2 ? on_way_two(wanted) : on_way_one(wanted);
	return 0;
}

static const struct kernel_param_ops ops = { .set = set, .get = param_get_int };
module_param(refuse, int, 0);
module_param_cb(wanted, &ops, &wanted, 0600);

static int __init ways_init(void)
{
	if (refuse)
		return -EINVAL;
	return 0;
}

static void __exit ways_exit(void)
{
	pr_info("bye\\n");
}

module_init(ways_init);
module_exit(ways_exit);
MODULE_LICENSE("GPL");
"""
LINE = {text.strip(): number for number, text in enumerate(SOURCE.splitlines(), 1)}
ONE, TWO, BAD = LINE['pr_info("one\\n");'], LINE['pr_info("two\\n");'], LINE['pr_info("no number\\n");']
INIT, REFUSED, EXIT = LINE["if (refuse)"], LINE["return -EINVAL;"], LINE['pr_info("bye\\n");']


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory, debian_image: Image) -> Path:
    """The module with debug data, for the image's own release."""
    headers = kernel_headers(debian_image.release)
    if headers.release != debian_image.release:
        lacking(f"headers of {debian_image.release}")
    folder = tmp_path_factory.mktemp("ways")
    (folder / "ways.c").write_text(SOURCE)
    (folder / "Kbuild").write_text("obj-m += ways.o\n")
    make_modules(headers, folder, flags=["-g"])
    return folder / "ways.ko"


@pytest.fixture(scope="module")
def booted(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        kernel.record_coverage()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.reset()
    booted.record_coverage().take()
    return booted


def collected(kernel: Kernel, *only: str) -> Collected:
    found = Collected(only)
    found.add(kernel.record_coverage().take())
    return found


def file_of(collected: Collected) -> FileCoverage:
    (path,) = collected.files
    assert path.endswith("ways.c")
    return collected.files[path]


def test_lines_of_the_way_taken_ran_and_no_others(kernel: Kernel, ways: Path) -> None:
    kernel.insmod(ways, wanted=1)
    kernel.rmmod("ways")
    file = file_of(collected(kernel))
    assert [file.lines[line] for line in (ONE, INIT, EXIT)] == [1, 1, 1]
    assert [file.lines[line] for line in (TWO, BAD, REFUSED)] == [0, 0, 0]
    entered = {name for name, (_, count) in file.functions.items() if count}
    assert entered == {"on_way_one", "set", "ways_init", "ways_exit"}
    assert file.functions["on_way_two"] == (LINE["static noinline int on_way_two(int x)"], 0)


def test_counts_are_of_tests_and_outlive_resets(kernel: Kernel, ways: Path) -> None:
    found = Collected()
    for wanted in (1, 2, 1):
        kernel.insmod(ways, wanted=wanted)
        kernel.module("ways").parameters["wanted"] = wanted
        kernel.reset()
        found.add(kernel.record_coverage().take())
    file = file_of(found)
    assert [file.lines[line] for line in (ONE, TWO, INIT, EXIT)] == [2, 1, 3, 0]


def test_an_init_that_fails_is_seen_although_its_code_is_freed(kernel: Kernel, ways: Path) -> None:
    with pytest.raises(Errno, match="EINVAL"):
        kernel.insmod(ways, refuse=1)
    assert kernel.modules == []
    file = file_of(collected(kernel))
    assert [file.lines[line] for line in (INIT, REFUSED, EXIT)] == [1, 1, 0]


def test_other_code_at_the_same_place_is_told_apart(kernel: Kernel, ways: Path) -> None:
    kernel.insmod(EXAMPLES / "hello.ko")
    kernel.rmmod("hello")
    kernel.insmod(ways)
    kernel.rmmod("ways")
    found = collected(kernel)
    assert found.modules == {"hello", "ways"}
    assert found.without_lines == {"hello"}
    file = file_of(found)
    assert [file.lines[line] for line in (INIT, EXIT, ONE, TWO)] == [1, 1, 0, 0]


def test_only_the_modules_asked_for_count(kernel: Kernel, ways: Path) -> None:
    kernel.insmod(EXAMPLES / "hello.ko")
    kernel.insmod(ways)
    found = collected(kernel, "hello")
    assert (found.modules, found.files) == ({"hello"}, {})


def test_a_module_that_a_checkpoint_holds_is_still_seen_after_a_reset(debian_root: Path, ways: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        kernel.record_coverage()
        kernel.insmod(ways)
        kernel.checkpoint()
        kernel.record_coverage().take()
        for _ in range(2):
            kernel.reset()
            kernel.rmmod("ways")
            file = file_of(collected(kernel))
            assert [file.lines[line] for line in (EXIT, INIT)] == [1, 0]


def test_the_image_s_own_loader_is_not_covered(debian_root: Path) -> None:
    with kobox.boot(debian_root, loader="kernel") as kernel, pytest.raises(UsageError, match="kobox's own loader"):
        kernel.record_coverage()


def names_that_ran(coverage: CodeCoverage) -> dict[str, set[str]]:
    """Sections of which something ran, by module."""
    found = {}
    for run in coverage.take():
        elf = parse(run.data, run.name)
        found[run.name] = {elf.sections[number].name for number, blocks in run.blocks.items() if blocks}
    return found


def test_a_newer_kernel_s_modules_are_seen_too(trixie_image: Image, trixie_root: Path) -> None:
    file = next(trixie_root.rglob("dummy.ko*"))
    with kobox.boot(trixie_root) as kernel:
        coverage = kernel.record_coverage()
        kernel.insmod(file)
        kernel.rmmod("dummy")
        assert names_that_ran(coverage) == {"dummy": {".text", ".init.text", ".exit.text"}}


def test_the_bare_kernel_s_modules_are_seen_over_its_new_machines() -> None:
    with kobox.boot("bare") as kernel:
        coverage = kernel.record_coverage()
        for _ in range(2):
            kernel.insmod(EXAMPLES / "hello.ko")
            kernel.rmmod("hello")
            kernel.reset()
            assert names_that_ran(coverage) == {"hello": {".init.text", ".exit.text"}}


# --- as a user of pytest meets it ---


@pytest.fixture
def project(pytester: pytest.Pytester, debian_root: Path, ways: Path) -> pytest.Pytester:
    pytester.makeini(f"[pytest]\nkobox_image = {debian_root}\n")
    folder = pytester.path / ways.parent.name
    folder.mkdir()
    (folder / "ways.c").write_text(SOURCE)
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.parametrize("wanted", [1, 1, 3])
        def test_loads(kernel, wanted):
            kernel.insmod({str(ways)!r}, wanted=wanted)
            kernel.rmmod("ways")
    """)
    return pytester


@pytest.mark.parametrize("processes", ["0", "2"])
def test_tests_of_all_processes_are_added_up(project: pytest.Pytester, processes: str) -> None:
    options = ["--kobox-cov=ways", "--kobox-cov-report=lcov:out/x.lcov", "--kobox-cov-report=html:pages"]
    done = project.runpytest_subprocess("-p", "no:cacheprovider", "-n", processes, "--kobox-cov-report=term", *options)
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(["*kobox coverage*", "*ways.c * 13-*", "total *", "lcov tracefile: out/x.lcov"])
    trace = (project.path / "out/x.lcov").read_text().splitlines()
    source = next(line for line in trace if line.startswith("SF:")).removeprefix("SF:")
    assert Path(source).read_text() == SOURCE
    assert {f"DA:{ONE},3", f"DA:{TWO},0", f"DA:{INIT},3", "end_of_record"} <= set(trace)
    assert "on_way_two" in (project.path / "pages/source-1.html").read_text()


def test_a_module_without_debug_data_is_one_clear_line(project: pytest.Pytester, ways: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "ways.ko"
    subprocess.run(["strip", "--strip-debug", "-o", stripped, ways], check=True)
    project.makepyfile(f"def test_loads(kernel): kernel.insmod({str(stripped)!r})")
    done = project.runpytest_subprocess("-p", "no:cacheprovider", "--kobox-cov=ways", "--kobox-cov=other")
    done.stdout.fnmatch_lines(["no source lines in ways: build it with -g *", "never loaded: other"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kobox-cov", "--kobox-cov-report=pdf"], "*pdf: expected term, lcov?:FILE? or html?:DIR?*"),
        (["--kobox-cov-report=html"], "*--kobox-cov-report goes with --kobox-cov*"),
    ],
)
def test_a_wrong_option_is_one_clear_line(pytester: pytest.Pytester, options: list[str], said: str) -> None:
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([said])
