"""What pytest writes of a run for other programs: KTAP, and JUnit's XML with what the kernel said."""

from __future__ import annotations

import contextlib
import io
from xml.etree import ElementTree

import pytest

import ktap
from kobox.pytest_plugin.ktap import Result, ktap_lines
from paths import EXAMPLES

pytest_plugins = ["pytester"]

TESTS = f"""
    import pytest

    def test_good(kernel):
        kernel.insmod({str(EXAMPLES / "hello.ko")!r}, my_param=7)

    def test_bad(kernel):
        kernel.insmod({str(EXAMPLES / "hello.ko")!r})
        assert kernel.modules == []

    def test_skipped(kernel):
        pytest.skip("no # such device")

    @pytest.mark.xfail(reason="not yet")
    def test_expected(kernel):
        assert 0

    @pytest.fixture
    def broken():
        raise ValueError("the fixture broke")

    def test_broken(broken):
        pass

    @pytest.fixture
    def late():
        yield
        raise ValueError("broke at the end")

    def test_late(late, kernel):
        pass

    @pytest.mark.parametrize("text", ["a # b"])
    def test_named(text):
        pass
"""
OUTCOMES = {
    "test_good": (True, ""),
    "test_bad": (False, ""),
    "test_skipped": (True, "SKIP"),
    "test_expected": (True, "XFAIL"),
    "test_broken": (False, ""),
    "test_late": (False, ""),
    "test_named[a _ b]": (True, ""),
}


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nkobox_image = bare\n")
    pytester.makepyfile(test_one=TESTS, test_two="def test_plain(): pass")
    return pytester


@pytest.mark.parametrize("processes", ["0", "2"])
def test_ktap_has_a_subtest_per_file_and_the_kernels_log_as_diagnostics(
    project: pytest.Pytester, processes: str
) -> None:
    done = project.runpytest_subprocess("-p", "no:cacheprovider", "-n", processes, "--kobox-ktap=out.ktap")
    done.assert_outcomes(passed=4, failed=1, skipped=1, xfailed=1, errors=2)
    tests = {test.name: test for test in ktap.parse((project.path / "out.ktap").read_text())}
    assert {name: test.ok for name, test in tests.items()} == {"test_one.py": False, "test_two.py": True}
    found = {test.name: test for test in tests["test_one.py"].tests}
    assert {name: (test.ok, test.directive) for name, test in found.items()} == OUTCOMES
    assert any("hello: my_param is 7" in note for note in found["test_good"].notes)
    assert any(note.startswith("kernel bare") and note.endswith("taint OE") for note in found["test_good"].notes)
    assert any("assert kernel.modules == []" in note for note in found["test_bad"].notes)
    assert any("broke at the end" in note for note in found["test_late"].notes)


def test_a_file_that_cannot_be_read_is_a_failed_test(project: pytest.Pytester) -> None:
    project.makepyfile(test_three="import nothing_of_this_name")
    project.runpytest_subprocess("-p", "no:cacheprovider", "--kobox-ktap=out.ktap", "--continue-on-collection-errors")
    tests = {test.name: test for test in ktap.parse((project.path / "out.ktap").read_text())}
    (collection,) = tests["test_three.py"].tests
    assert (collection.name, collection.ok) == ("collection", False)
    assert any("nothing_of_this_name" in note for note in collection.notes)


def test_the_kernels_own_parser_reads_the_same(project: pytest.Pytester) -> None:
    """Where the kernel's source is installed; the reader of the specification reads it in any case."""
    project.makepyfile(test_three="import nothing_of_this_name")
    project.runpytest_subprocess("-p", "no:cacheprovider", "--kobox-ktap=out.ktap", "--continue-on-collection-errors")
    text = (project.path / "out.ktap").read_text()
    ours = [(file.name, [(test.name, test.ok) for test in file.tests]) for file in ktap.parse(text)]
    assert len(ours) == 3
    parser = ktap.kernels_parser()
    if parser is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            read = parser.parse_run_tests(text.splitlines())
        passed = {parser.TestStatus.SUCCESS, parser.TestStatus.SKIPPED}
        theirs = [(file.name, [(one.name, one.status in passed) for one in file.subtests]) for file in read.subtests]
        assert theirs == ours


def test_a_place_that_cannot_be_is_told_before_any_test_runs(project: pytest.Pytester) -> None:
    (project.path / "file").write_text("")
    for option in ("--kobox-ktap=file/out.ktap", "--kobox-ktap=.", "--kobox-cov --kobox-cov-report=html:file/x"):
        done = project.runpytest_subprocess("-p", "no:cacheprovider", *option.split())
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        assert "Traceback" not in done.stderr.str()
    done = project.runpytest_subprocess("-p", "no:cacheprovider", "-k", "plain", "--kobox-ktap=new/out.ktap")
    assert (done.ret, (project.path / "new/out.ktap").exists()) == (0, True)


def test_names_and_reasons_stay_on_their_line() -> None:
    results = {"t.py": [Result("a\nb # SKIP", "skip", "two\nlines", ("x\n\ny",))]}
    (file,) = ktap.parse("".join(line + "\n" for line in ktap_lines(results)))
    (test,) = file.tests
    assert (test.name, test.directive, test.notes) == ("a b _ SKIP", "SKIP", ["x", "", "y"])
    assert (file.ok, file.directive) == (True, "SKIP")


def test_nothing_ran_is_a_document_too() -> None:
    assert ktap.parse("".join(line + "\n" for line in ktap_lines({}))) == []


@pytest.mark.parametrize("processes", ["0", "2"])
def test_junit_says_which_kernel_what_taint_and_what_the_log_was(project: pytest.Pytester, processes: str) -> None:
    project.runpytest_subprocess("-p", "no:cacheprovider", "-n", processes, "--junitxml=out.xml")
    cases = {case.get("name"): case for case in ElementTree.parse(project.path / "out.xml").iter("testcase")}
    good = {one.get("name"): one.get("value") or "" for one in cases["test_good"].iter("property")}
    assert (good["kobox.image"], good["kobox.taint"]) == ("bare", "OE")
    assert good["kobox.kernel"].startswith("bare (")
    assert "hello: my_param is 7" in good["kobox.log"].splitlines()[-1]
    assert list(cases["test_plain"].iter("property")) == []


def test_without_the_options_no_log_is_read(project: pytest.Pytester) -> None:
    project.makeconftest(
        "from kobox.bare.kernel import BareKernel\n"
        "def refuse(self, **options): raise AssertionError('the log was read')\n"
        "BareKernel.dmesg = refuse\n"
    )
    project.runpytest_subprocess("-p", "no:cacheprovider", "-k", "good").assert_outcomes(passed=1)
