"""Every test of the kernel's that builds as a module says on kobox what it says on a real machine in QEMU.

Both kernels are the distribution's, the modules are the same files. The real machine is booted once, so that it is not
fresh for each module as kobox is: tests whose words depend on what was loaded before are left out by folder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from build_kernel_tests import folders
from build_kunit_tests import Built, build_kunit_tests
from kernel_headers import make_modules
from real_kernel import Said, lacks, run_steps
from real_kunit import build_real_kunit

import kobox
from headers import kernel_headers
from kernel_source import kernel_source, kernel_tests
from kobox.ko import read_module
from kobox.kunit import read_ktap, run_tests
from kobox.runner import run_in
from needs import lacking

pytestmark = [pytest.mark.image, pytest.mark.full]

LONG = {"test_lockup", "locktorture", "clocksource-wdtest", "preemptirq_delay_test", "test_vmalloc", "test_free_pages"}
"""Made to hang, to spin for minutes, or (test_vmalloc) of several CPUs."""
FOLDERS = ("lib", "lib/math", "kernel", "kernel/locking", "kernel/time")
SHIPPED = ("test_bpf", "test_user_copy")
VERDICT = re.compile(
    r"(?i).*(tests? (?:passed|completed?|succeeded|failed)|self-?tests?|passed|selftests|\d+ FAILED|all \d+ tests).*"
)
TEST_LINE = re.compile(r"( {4})*(ok |not ok |# |KTAP|1\.\.|Expected |\S.* == )")
LEFT_OUT_ON_REAL = {"usercopy_kunit", "test_fprobe", "test_kprobes", "platform-test", "slub_kunit"}
"""KUnit's tests that need what no module of a kernel without KUnit can export; and slub_kunit, which breaks memory to
see the kernel's allocator complain: on kobox the memory checker stands before it."""


class Place:
    def __init__(self, root: Path, release: str, suite: str | None) -> None:
        self.root, self.release, self.suite = root, release, suite

    @property
    def vmlinuz(self) -> Path:
        return next((self.root / "boot").glob("vmlinuz*"))


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def place(request: pytest.FixtureRequest) -> Place:
    if lacks():
        lacking(lacks())
    bookworm = request.param == "bookworm"
    root, image = (
        request.getfixturevalue(f"{'debian' if bookworm else 'trixie'}_{what}") for what in ("root", "image")
    )
    return Place(root, image.release, None if bookworm else "trixie")


@pytest.fixture(scope="module")
def kunit(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All of KUnit's tests that compile as modules of their own."""
    headers = kernel_headers(place.release)
    source = kernel_source(place.release, place.suite)
    return build_kunit_tests(headers, source, tmp_path_factory.mktemp("kunit"))


def spoken(lines: Sequence[str]) -> list[str]:
    """The lines in which a test judges, without times and addresses. Each once: busybox's insmod tries a module that
    was refused again, by the other system call."""
    found = [line for line in lines if VERDICT.fullmatch(line) and "taint" not in line]
    times = r"0x[0-9a-f]+|\d+(\.\d+)? ?(ns|us|ms|s|nsec|usec|cycles|bytes)\b"
    return list(dict.fromkeys(re.sub(times, "N", line) for line in found))


def test_tests_that_judge_themselves_judge_as_on_a_real_machine(place: Place) -> None:
    built = kernel_tests(place.release, place.suite)
    names = [name for folder in FOLDERS for name in folders()[folder] if name not in LONG]
    files = [built / f"{name}.ko" for name in names if (built / f"{name}.ko").exists()]
    files += [file for name in SHIPPED for file in (place.root / "lib/modules").rglob(f"{name}.ko*")]
    ours = {}
    with kobox.boot(place.root) as kernel:
        kernel.set_timeout(100_000)
        kernel.mark_pristine()
        for file in files:
            kernel.reset()
            report = run_in(kernel, file)
            lines = [line for _, _, text in report.log for line in text.split("\n")]
            ours[file.name.split(".")[0]] = (report.result == 0 and not report.reason, spoken(lines))
    theirs = {
        name: (not any("can't insert" in line for line in said.output), spoken(said.log))
        for name, said in zip(ours, on_real_machine(place, files), strict=True)
    }
    assert ours == theirs
    judged = [name for name, (_, lines) in ours.items() if lines]
    print(f"{place.release}: {len(ours)} modules, {len(judged)} of them judge themselves, all as the real machine")
    assert len(judged) >= 25


def on_real_machine(place: Place, files: Sequence[Path]) -> list[Said]:
    names = [file.name.split(".")[0] for file in files]
    modules = {f"/m/{name}.ko": bytes(read_module(file).data) for name, file in zip(names, files, strict=True)}
    steps = [f"insmod /m/{name}.ko; sleep 0.1; rmmod {name.replace('-', '_')} 2>/dev/null" for name in names]
    return run_steps(place.vmlinuz, steps, modules, seconds=900)


def story_module(place: Place, source: Path, folder: Path) -> Path:
    """The module whose tests end in every way, for kobox."""
    folder.mkdir()
    shutil.copy(source, folder)
    (folder / "Kbuild").write_text(f"obj-m += {source.stem}.o\n")
    make_modules(kernel_headers(place.release), folder, variables=["KBUILD_MODPOST_WARN=1"])
    return folder / f"{source.stem}.ko"


def lines_of_tests(lines: Sequence[str]) -> list[str]:
    """KTAP's own lines without what differs: numbers of suites, folders of sources, and the values in hex that later
    releases add."""
    found = []
    for line in lines:
        if not TEST_LINE.match(line) or line.startswith(("KTAP", "1..")):
            continue
        line = re.sub(r"^(ok|not ok) \d+ ", r"\1 N ", line)
        line = re.sub(r" at \S*?([\w-]+?)(-tests)?\.c:", lambda at: f" at {at[1].replace('-', '_')}.c:", line)
        found.append(re.sub(r" \(0x[0-9a-f]+\)$", "", line))
    return found


def test_kunit_says_what_the_kernels_own_core_says(place: Place, kunit: Built, tmp_path: Path) -> None:
    source = kernel_source(place.release, place.suite)
    story = Path(__file__).parents[1] / "data/kunit_story.c"
    report = run_tests([*kunit.modules.values()], image=str(place.root))
    ran = {str(Path(module.file).stem): module for module in report.modules if module.run.result == 0}
    wanted = {name for name, module in ran.items() if name not in LEFT_OUT_ON_REAL and not module.run.dependencies}
    alone = [Path(path) for path in kunit.modules if Path(path).stem in wanted]
    real_work = tmp_path / "real"
    real_work.mkdir()
    real = build_real_kunit(
        kernel_headers(place.release), source / "lib/kunit", [*(source / path for path in alone), story], real_work
    )
    names = [path.stem.replace("-", "_") for path in alone]
    steps = ["insmod /m/kunit.ko", *(f"insmod /m/{name}.ko; rmmod {name}" for name in [*names, "kunit_story"])]
    said = run_steps(place.vmlinuz, steps, {f"/m/{name}": data for name, data in real.items()}, seconds=600)
    assert len(said) == len(steps)
    ours = {path.stem: lines_of_tests(ran[path.stem].lines) for path in alone}
    theirs = {path.stem: lines_of_tests(one.log) for path, one in zip(alone, said[1:], strict=False)}
    different = {name: (lines, theirs[name]) for name, lines in ours.items() if lines != theirs[name]}
    assert different == {}
    (told,) = run_tests([story_module(place, story, tmp_path / "story")], image=str(place.root)).modules
    assert lines_of_tests(told.lines) == lines_of_tests(said[-1].log)
    counts = [len(suite.tests) for path in alone for suite in read_ktap(ran[path.stem].lines).suites]
    print(f"{place.release}: {len(alone)} modules, {sum(counts)} cases in {len(counts)} suites, all as the real core")
    assert sum(counts) >= 200
