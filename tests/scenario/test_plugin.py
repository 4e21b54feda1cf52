"""The pytest plugin as its user meets it: a pristine kernel per test, the log of a failure, an image matrix, xdist."""

from __future__ import annotations

from pathlib import Path

import pytest

from paths import EXAMPLES

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.image


@pytest.fixture
def project(pytester: pytest.Pytester, debian_root: Path) -> pytest.Pytester:
    pytester.makeini(f"[pytest]\nkobox_image = {debian_root}\n")
    return pytester


def test_every_test_gets_a_pristine_kernel(project: pytest.Pytester) -> None:
    project.makepyfile(f"""
        HELLO = {str(EXAMPLES / "hello.ko")!r}

        def test_one(kernel):
            hello = kernel.insmod(HELLO, my_param=7)
            assert hello.parameters["my_param"] == "7"

        def test_two(kernel):
            assert kernel.modules == []
            assert kernel.tainted == 0
    """)
    project.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_the_log_is_attached_to_a_failure(project: pytest.Pytester) -> None:
    project.makepyfile(f"""
        def test_fails(kernel):
            kernel.insmod({str(EXAMPLES / "hello.ko")!r})
            assert False
    """)
    result = project.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*kernel log*", "*hello: hello, world*"])


def test_boot_options_of_one_test_come_from_its_marker(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        @pytest.mark.kobox(append="loglevel=3 quiet")
        def test_command_line(kernel):
            assert kernel.read("/proc/cmdline") == b"loglevel=3 quiet\\n"
    """)
    project.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_several_images_make_several_runs(project: pytest.Pytester, debian_root: Path) -> None:
    project.makepyfile("def test_release(kernel): assert kernel.release")
    same = project.path / "again"
    same.symlink_to(debian_root)
    result = project.runpytest_subprocess(
        "-p", "no:cacheprovider", "--kobox-image", str(debian_root), "--kobox-image", str(same)
    )
    result.assert_outcomes(passed=2)


def test_it_works_with_xdist(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        @pytest.mark.parametrize("turn", range(4))
        def test_turn(kernel, turn):
            assert kernel.read("/proc/modules") == b""
    """)
    project.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2").assert_outcomes(passed=4)
