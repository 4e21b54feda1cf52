"""pytest: the fixture ``kernel`` gives every test a pristine booted kernel; its log is attached to a failure.

One kernel per image and worker process is booted (from its snapshot in the cache); between tests it is put back in well
under a millisecond. ``--kobox-image R`` (repeatable) runs each test that uses the fixture once per image.

Beside the fixture: ``facts`` (what reports say of the kernel, also in ``--junitxml``), ``ktap``, ``coverage``; the last
two are imported only when their options are given.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kobox.pytest_plugin.facts import attach, facts_of, junit_properties, log_of
from kobox.pytest_plugin.shown import end_in_the_test

if TYPE_CHECKING:
    from kobox.box import Kernel

_LOG_LINES = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kobox", "kobox: Linux kernel modules in this process")
    group.addoption(
        "--kobox-image",
        action="append",
        default=[],
        metavar="R",
        help="kernel image for the fixture 'kernel': a release, a root, a vmlinuz or 'bare'; may be repeated",
    )
    group.addoption(
        "--kobox-build",
        default=None,
        metavar="DIR",
        help="results of 'kobox build': the fixture 'kobox_build' is DIR/RELEASE (default: the nearest 'build')",
    )
    group.addoption("--kobox-append", default="", metavar="TEXT", help="kernel command line for the fixture 'kernel'")
    group.addoption("--kobox-ktap", metavar="FILE", help="write the results as KTAP, the kernel's own test format")
    group.addoption(
        "--kobox-cov",
        action="append",
        nargs="?",
        const="",
        default=[],
        metavar="MODULE",
        help="which source lines of modules ran (of all, or --kobox-cov=MODULE, repeatable); needs debug data in them",
    )
    group.addoption(
        "--kobox-cov-report",
        action="append",
        default=[],
        metavar="KIND",
        help="how coverage is shown: term (the default), lcov[:FILE], html[:DIR]; may be repeated",
    )
    parser.addini("kobox_image", "default for --kobox-image, one a line", type="linelist", default=[])
    parser.addini("kobox_timeout", "virtual seconds that one call into the kernel may take", default="120")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kobox(append=..., image=...): boot options of the fixture 'kernel' for one test"
    )
    is_worker = hasattr(config, "workerinput")
    if config.getoption("--kobox-cov"):
        from kobox.pytest_plugin.coverage import CoveragePlugin

        config.pluginmanager.register(CoveragePlugin(config), _COVERAGE)
    elif config.getoption("--kobox-cov-report"):
        raise pytest.UsageError("--kobox-cov-report goes with --kobox-cov")
    if config.getoption("--kobox-ktap") and not is_worker:
        from kobox.pytest_plugin.ktap import KtapWriter

        config.pluginmanager.register(KtapWriter(Path(config.getoption("--kobox-ktap"))), "kobox_ktap")


_COVERAGE = "kobox_coverage"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per image for every test that uses the kernel."""
    if "kobox_image" not in metafunc.fixturenames:
        return
    images = images_of(metafunc.config)
    if len(images) > 1:
        metafunc.parametrize("kobox_image", images, scope="session")


def images_of(config: pytest.Config) -> list[str]:
    """The images asked for, command line first."""
    return list(config.getoption("--kobox-image")) or list(config.getini("kobox_image"))


class Kernels:
    """The booted kernels of one pytest process, by image and command line."""

    def __init__(self) -> None:
        self._kernels: dict[tuple[str | None, str], Kernel] = {}

    def get(self, image: str | None, append: str) -> Kernel:
        """A pristine kernel. Two tests with the same options share one, reset in between."""
        from kobox.box import boot

        kernel = self._kernels.get((image, append))
        if kernel is not None and not kernel.rewind():
            kernel.close()  # a test made a checkpoint of its own, which is none of the next one's business
            kernel = None
        if kernel is None:
            kernel = boot(image, append=append)
            kernel.mark_pristine()
            self._kernels[image, append] = kernel
        return kernel

    def put(self, image: str | None, append: str, kernel: Kernel) -> None:
        """Have a pristine kernel that was booted elsewhere."""
        self._kernels[image, append] = kernel

    def close(self) -> None:
        for kernel in self._kernels.values():
            kernel.close()
        self._kernels.clear()


@pytest.fixture(scope="session")
def kobox_kernels(pytestconfig: pytest.Config) -> Iterator[Kernels]:
    """All kernels of this process; closed when the session ends, unless they were there before it."""
    warm = pytestconfig.stash.get(WARM_KERNELS, None)
    if warm is not None:
        yield warm
        return
    kernels = Kernels()
    yield kernels
    kernels.close()


@pytest.fixture(scope="session")
def kobox_image(request: pytest.FixtureRequest) -> str | None:
    """The image that the fixture ``kernel`` boots. Override it to choose one for a folder of tests."""
    parameter: str | None = getattr(request, "param", None)
    if parameter is not None:
        return parameter
    images = images_of(request.config)
    return images[0] if images else None


@pytest.fixture
def kernel(request: pytest.FixtureRequest, kobox_kernels: Kernels, kobox_image: str | None) -> Iterator[Kernel]:
    """A pristine booted kernel."""
    append, image = request.config.getoption("--kobox-append"), kobox_image
    marker = request.node.get_closest_marker("kobox")
    if marker is not None:
        append = marker.kwargs.get("append", append)
        image = marker.kwargs.get("image", image)
    got = kobox_kernels.get(image, append)
    got.set_timeout(float(request.config.getini("kobox_timeout")))
    request.node.stash[_KERNEL] = got, image
    coverage = request.config.pluginmanager.get_plugin(_COVERAGE)
    if coverage is not None:
        coverage.start(got)
    yield got
    if coverage is not None:
        coverage.add(got)


@pytest.fixture
def kobox_build(request: pytest.FixtureRequest, kernel: Kernel) -> Path:
    """The folder of modules that ``kobox build`` made for the kernel of this test."""
    given, release = request.config.getoption("--kobox-build"), kernel.release
    above = [folder for folder in request.path.parents if folder.is_relative_to(request.config.rootpath)]
    places = [Path(given)] if given else [folder / "build" for folder in above]
    found = next((place / release for place in places if (place / release).is_dir()), None)
    if found is None:
        pytest.fail(f"no modules are built for {release}; 'kobox build DIR --image {release}' does it", pytrace=False)
    return found


WARM_KERNELS: pytest.StashKey[Kernels] = pytest.StashKey()
"""Kernels that a program which calls pytest has booted before."""

_KERNEL: pytest.StashKey[tuple[Kernel, str | None]] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """Attach to a test that failed what the kernel said, and facts where a file of results is written."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result object
    kernel, image = item.stash.get(_KERNEL, (None, None))
    if kernel is None or report.when != "call":
        return
    if report.failed:
        _show_failure(report, kernel, item)
    as_junit = bool(item.config.getoption("xmlpath", None))
    if as_junit or item.config.getoption("--kobox-ktap"):
        facts = facts_of(kernel, image)
        attach(report, facts)
        if as_junit:
            item.user_properties += junit_properties(facts)  # pytest reads them when the test is torn down


def _show_failure(report: pytest.TestReport, kernel: Kernel, item: pytest.Item) -> None:
    """The kernel's log and crash beside the traceback, which ends in the test."""
    from kobox.runner import first_oops

    if not item.config.getoption("fulltrace", False):
        end_in_the_test(report.longrepr, item.config.invocation_params.dir)
    lines = log_of(kernel)
    cut = [f"… {len(lines) - _LOG_LINES} earlier lines"] if len(lines) > _LOG_LINES else []
    report.sections.append(("kernel log", "\n".join(cut + lines[-_LOG_LINES:])))
    files = [file for file in kernel.module_files.values() if Path(file).is_file()]
    text, _ = first_oops([record.text for record in kernel.dmesg()], files)
    if text:
        report.sections.append(("kernel crash", text.rstrip()))
