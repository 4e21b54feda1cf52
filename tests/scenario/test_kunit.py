"""KUnit's tests run on kernels that were built without KUnit, and say what the kernel's own core would say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kernel_headers import make_modules

import kobox
import ktap
from example_files import example_file
from headers import kernel_headers
from kobox.box import Kernel
from kobox.cli import main
from kobox.errors import Errno
from kobox.kunit import read_ktap, run_tests
from needs import lacking
from paths import ROOT
from schemas import problems_of_command

pytestmark = pytest.mark.image

SOURCES = ("kunit_story", "kunit_crash")


@dataclass
class Place:
    """A kernel without KUnit, and modules of tests that were compiled for it."""

    root: Path
    modules: Path

    def __getitem__(self, name: str) -> Path:
        return self.modules / f"{name}.ko"


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    kind = "debian" if request.param == "bookworm" else "trixie"
    root, image = (request.getfixturevalue(f"{kind}_{what}") for what in ("root", "image"))
    headers = kernel_headers(image.release)
    if headers.release != image.release:
        lacking(f"headers of {image.release}")
    folder = tmp_path_factory.mktemp("kunit") / "story"
    folder.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / f"tests/data/{name}.c", folder)
    (folder / "Kbuild").write_text("".join(f"obj-m += {name}.o\n" for name in SOURCES))
    make_modules(headers, folder, variables=["KBUILD_MODPOST_WARN=1"])
    return Place(root, folder)


@pytest.fixture(scope="module")
def booted(place: Place) -> Iterator[Kernel]:
    with kobox.boot(place.root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.reset()
    return booted


def lines(kernel: Kernel) -> list[str]:
    return [line for record in kernel.dmesg() for line in record.text.split("\n")]


def statuses(kernel: Kernel) -> dict[str, dict[str, str]]:
    return {suite.name: {test.name: test.status for test in suite.tests} for suite in read_ktap(lines(kernel)).suites}


def test_each_case_ends_as_it_should(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_story"])
    assert statuses(kernel) == {
        "story": {
            "passes": "pass", "fails_and_goes_on": "fail", "fails_and_ends": "fail", "skips": "skip",
            "marked_skipped": "skip", "is_odd": "fail", "is_small": "pass", "owns": "pass",
        },
        "refused": {"passes": "fail"},
        "unstarted": {},
        "skipped": {"skips": "skip"},
    }  # fmt: skip


def test_a_failed_expectation_says_what_was_expected_and_the_test_goes_on(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_story"])
    said = lines(kernel)
    start = next(at for at, line in enumerate(said) if "fails_and_goes_on: EXPECTATION" in line)
    end = next(at for at, line in enumerate(said) if line.startswith("    not ok 2 fails_and_goes_on"))
    text = "\n".join(said[start:end])
    for expected in (
        "kunit_story.c:20\n    Expected answer == 43, but\n        answer == 42 (0x2a)\n",
        "        answer * 2L == 84 (0x54)\n        -7L == -7 (0xfffffffffffffff9)",
        "    Expected answer == 7 to be true, but is false",
        '    Expected word == "tiger", but\n        word == "lion"',
        "        (void *)0x20 == 0000000000000020",
        "    Expected (void *)((void *)0) is not null, but is",
        "is not error, but is: -2",
        "answer == 42 (0x2a)\n\nwith lion and 1, 2, 3",
        "by hand: lion",
        "    # fails_and_goes_on: still here",
    ):
        assert expected in text


def test_a_failed_assertion_ends_its_test_only(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_story"])
    said = "\n".join(lines(kernel))
    assert "never said" not in said
    assert "ASSERTION FAILED" in said
    assert "the answer is 42" in said
    assert "priv is lost" not in said


def test_parameters_are_tests_of_their_own(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_story"])
    story = read_ktap(lines(kernel)).suites[0]
    of_case = {test.name: [(one.name, one.status) for one in test.tests] for test in story.tests if test.tests}
    assert of_case == {
        "is_odd": [("number 1", "pass"), ("number 2", "fail"), ("number 3", "pass")],
        "is_small": [("param-0", "pass"), ("param-1", "pass"), ("param-2", "pass")],
    }
    assert "# Totals: pass:7 fail:3 skip:2 total:12" in lines(kernel)


def test_resources_are_freed_the_newest_first(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_story"])
    assert [line for line in lines(kernel) if "freed" in line] == ["story: freed second", "story: freed first"]


def test_the_kernel_says_who_serves_and_the_report_names_it(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_story"])
    assert any("this kernel is built without KUnit; kobox's own serves" in line for line in lines(kernel))
    adopted = kernel.adopted_hit()
    assert adopted["kunit_kmalloc_array"] == "full"
    assert adopted["kunit_kfree"] == "model"
    kernel.reset()
    assert not any("kunit" in name for name in kernel.adopted_hit())


def test_it_unloads_loads_again_and_leaves_nothing(kernel: Kernel, place: Place) -> None:
    for _ in range(2):
        kernel.insmod(place["kunit_story"])
        kernel.rmmod("kunit_story")
    assert len(read_ktap(lines(kernel)).suites) == 8
    assert kernel.leaks() == ()
    assert kernel.memory_reports() == ()


def test_tests_run_in_a_state_that_was_pushed(kernel: Kernel, place: Place) -> None:
    kernel.push()
    kernel.insmod(place["kunit_story"])
    kernel.push()
    kernel.rmmod("kunit_story")
    kernel.reset()
    kernel.rmmod("kunit_story")
    kernel.insmod(place["kunit_story"])
    assert len(statuses(kernel)["story"]) == 8
    kernel.pop()
    kernel.pop()


def test_a_test_that_crashes_fails_and_the_others_run(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kunit_crash"])
    said = lines(kernel)
    found = {"before": "pass", "crashes": "fail", "waits": "fail", "after": "pass"}
    assert statuses(kernel) == {"crash": found}
    assert any("BUG: kernel NULL pointer dereference" in line for line in said)
    assert any(line.startswith("    # crashes: try faulted") for line in said)
    assert "    # waits: try timed out" in said
    with pytest.raises(Errno, match=r"EAGAIN|EWOULDBLOCK"):
        kernel.rmmod("kunit_crash")  # a thread is in its code


def test_a_module_without_debug_data_is_refused_by_name(kernel: Kernel, place: Place, tmp_path: Path) -> None:
    stripped = tmp_path / "kunit_story.ko"
    subprocess.run(["strip", "--strip-debug", "-o", stripped, place["kunit_story"]], check=True)
    with pytest.raises(Errno, match="ENOENT"):
        kernel.insmod(stripped)
    assert "kunit_story: no debug data" in kernel.explain_last_load()
    assert not kernel.dmesg() or "KTAP version 1" not in lines(kernel)


def test_a_function_that_kobox_lacks_is_named(kernel: Kernel, place: Place, tmp_path: Path) -> None:
    data = place["kunit_story"].read_bytes().replace(b"\0kunit_kfree\0", b"\0kunit_kfryy\0")
    with pytest.raises(Errno, match="ENOENT"):
        kernel.init_module(data, "")
    assert any("Unknown symbol kunit_kfryy (err -2)" in line for line in lines(kernel))


def test_the_command_prints_what_the_kernels_own_tool_counts(
    place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["kunit", str(place["kunit_story"]), str(place["kunit_crash"]), "--image", str(place.root)]) == 1
    (tmp_path / "log").write_text(capsys.readouterr().out)
    parser = ktap.kernels_parser()
    if parser is None:
        lacking("the kernel's kunit.py (linux-source)")
    tool = Path(str(parser.__file__)).with_name("kunit.py")
    done = subprocess.run([sys.executable, tool, "parse", tmp_path / "log"], capture_output=True, text=True)
    # parameters are tests of their own, a suite that did not start is one, and so is the module that crashed
    assert done.stdout.splitlines()[-1].endswith("Ran 20 tests: passed: 9, failed: 8, skipped: 3")
    assert "kunit_crash" in done.stdout


def test_the_command_fits_its_schema(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kunit", str(place["kunit_story"]), "--image", str(place.root), "--json"]) == 1
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert problems_of_command(answer, "kunit") == []
    assert answer["summary"] == {"pass": 7, "fail": 5, "skip": 3}
    assert answer["modules"][0]["suites"][0]["name"] == "story"


def test_a_module_without_tests_is_no_success(booted: Kernel, place: Place) -> None:
    hello = example_file(booted.release, "hello")
    report = run_tests([hello], image=str(place.root))
    assert not report.ok
    assert report.modules[0].why == "no tests in it"
