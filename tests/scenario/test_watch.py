"""The edit loop with a real compiler and a real kernel: a file is saved, and what came of it is shown."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headers import kernel_headers
from kobox.image import Image
from schemas import problems_of_command

pytestmark = pytest.mark.image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELLO = (EXAMPLES / "hello.c").read_text()
CRASH = HELLO.replace("return 0;", "*(volatile int *)NULL = 1;\n\treturn 0;", 1)
TESTS = """\
def test_parameter(kernel, kobox_build):
    hello = kernel.insmod(kobox_build / "hello.ko", my_param=7)
    assert hello.parameters["my_param"] == "7"


def test_pristine(kernel):
    assert kernel.modules == []
"""
SECONDS = 120.0

Events = list[dict[str, Any]]


class Watching:
    """``kobox watch --json`` in a process of its own."""

    def __init__(self, folder: Path, common: list[str], environment: dict[str, str], *more: str) -> None:
        self.folder = folder
        line = [sys.executable, "-m", "kobox", "watch", str(folder), "--json", *common, *more]
        self.process = subprocess.Popen(
            line, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, kind: str = "result") -> Events:
        """Events up to the next one of a kind, or to the end."""
        found: Events = []
        while line := self._lines.get(timeout=SECONDS):
            found.append(json.loads(line))
            assert problems_of_command(found[-1], "watch") == []
            if found[-1]["event"] == kind:
                break
        return found

    def save(self, text: str, name: str = "hello.c") -> Events:
        """Save a file as many editors do, by renaming a new one over it; the events of the round that follows."""
        (self.folder / f".{name}.swp").write_text(text)
        (self.folder / f".{name}.swp").rename(self.folder / name)
        return self.until()

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def environment(debian_image: Image) -> dict[str, str]:
    return {**os.environ, "KOBOX_CACHE_DIR": str(debian_image.path.parents[1])}


@pytest.fixture(scope="module")
def common(debian_image: Image, debian_root: Path) -> list[str]:
    headers = kernel_headers(debian_image.release)
    root = str(headers.directory).partition("/usr/src/")[0] or "/"
    return ["--image", str(debian_root), "--headers", root]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("kobox-watched")
    (found / "hello.c").write_text(HELLO)
    (found / "test_hello.py").write_text(TESTS)
    yield found
    for copy in Path(environment["KOBOX_CACHE_DIR"], "work").glob(f"{found.name}-*"):
        shutil.rmtree(copy)


@pytest.fixture(scope="module")
def shared(folder: Path, common: list[str], environment: dict[str, str]) -> Iterator[Watching]:
    found = Watching(folder, common, environment)
    first = found.until()
    assert first[0]["event"] == "watching"
    assert first[0]["tests"] == ["test_hello.py"]
    assert (first[-1]["ok"], first[-1]["passed"]) == (True, 2)
    yield found
    assert found.end() == 0, "Ctrl-C ends it in good order"


@pytest.fixture
def watching(shared: Watching) -> Iterator[Watching]:
    """At rest with good sources, before and after each test."""
    yield shared
    for name, text in (("hello.c", HELLO), ("test_hello.py", TESTS)):
        if not (shared.folder / name).is_file() or (shared.folder / name).read_text() != text:
            assert shared.save(text, name)[-1]["ok"]


def of_kind(events: Events, kind: str) -> Events:
    return [event for event in events if event["event"] == kind]


def test_a_saved_source_is_built_loaded_and_tested(watching: Watching) -> None:
    events = watching.save(HELLO + "/* another */\n")
    assert of_kind(events, "changed")[0]["files"] == ["hello.c"]
    assert of_kind(events, "build")[0]["how"] == "replay", "without make"
    assert [test["name"].rpartition("::")[2] for test in of_kind(events, "test")] == ["test_parameter", "test_pristine"]
    result = events[-1]
    assert (result["ok"], result["stage"], result["passed"], result["failed"]) == (True, "run", 2, 0)
    assert 0 < result["after_compiler"] < result["after_save"]


def test_a_compile_error_is_told_and_nothing_is_run(watching: Watching) -> None:
    events = watching.save(HELLO.replace("return 0;", "return no_such_thing;", 1))
    (build,) = of_kind(events, "build")
    error = build["diagnostics"][0]
    line = next(number for number, text in enumerate(HELLO.splitlines(), 1) if "return 0;" in text)
    assert (error["level"], error["line"]) == ("error", line)
    assert error["file"].endswith("hello.c")
    assert "no_such_thing" in error["text"]
    assert of_kind(events, "test") == []
    assert (events[-1]["ok"], events[-1]["stage"]) == (False, "build")


def test_an_oops_is_told_with_its_source_line(watching: Watching) -> None:
    events = watching.save(CRASH)
    failed = next(test for test in of_kind(events, "test") if test["outcome"] != "passed")
    sections = {section["title"]: section["text"] for section in failed["sections"]}
    line = next(number for number, text in enumerate(CRASH.splitlines(), 1) if "volatile" in text)
    assert "TaskDied" in failed["text"]
    assert f"{watching.folder}/hello.c:{line})" in sections["kernel crash"]
    assert "NULL pointer dereference" in sections["kernel log"]
    assert (events[-1]["passed"], events[-1]["failed"]) == (1, 1), "the next test has a whole kernel"


def test_a_failing_test_is_told_and_its_traceback_ends_in_the_test(watching: Watching) -> None:
    refused = "def test_refused(kernel, kobox_build):\n    kernel.insmod(kobox_build / 'hello.ko', my_param='seven')\n"
    events = watching.save(f"{TESTS}\n\n{refused}", "test_hello.py")
    assert of_kind(events, "build")[0]["how"] == "nothing"
    failed = next(test for test in of_kind(events, "test") if test["outcome"] != "passed")
    assert failed["name"].endswith("test_refused")
    assert "EINVAL" in failed["text"]
    assert "src/kobox" not in failed["text"]
    assert events[-1]["failed"] == 1


def test_a_file_that_is_only_touched_starts_nothing(watching: Watching) -> None:
    os.utime(watching.folder / "hello.c")
    time.sleep(1)
    events = watching.save(HELLO + "/* real */\n")
    assert events[0]["event"] == "changed", "nothing was told of the touch"


def test_new_and_removed_files_and_makefiles_are_built(watching: Watching) -> None:
    new = HELLO.replace("hello", "second")
    events = watching.save(new, "second.c")
    assert [Path(path).name for path in of_kind(events, "build")[0]["modules"]] == ["hello.ko", "second.ko"]
    events = watching.save("obj-m += second.o\n", "Makefile")
    assert [Path(path).name for path in of_kind(events, "build")[0]["modules"]] == ["second.ko"]
    assert not events[-1]["ok"], "the tests have no hello.ko any more"
    (watching.folder / "Makefile").unlink()
    (watching.folder / "second.c").unlink()
    events = watching.until()
    while not events[-1]["ok"]:
        events = watching.until()
    assert [Path(path).name for path in of_kind(events, "build")[0]["modules"]] == ["hello.ko"]


def test_a_change_while_tests_run_starts_over(watching: Watching) -> None:
    slow = TESTS + "\n\ndef test_slow():\n    import time\n    time.sleep(600)\n"
    (watching.folder / "test_hello.py").write_text(slow)
    assert watching.until("test")
    watching.until("test")
    start = time.monotonic()
    first = watching.save(TESTS, "test_hello.py")
    assert first[-1]["stage"] == "cancelled"
    assert watching.until()[-1]["ok"]
    assert time.monotonic() - start < 300


def test_a_touch_while_tests_run_does_not_disturb_them(watching: Watching) -> None:
    slow = TESTS + "\n\ndef test_slow():\n    import time\n    time.sleep(3)\n"
    (watching.folder / "test_hello.py").write_text(slow)
    watching.until("test")
    os.utime(watching.folder / "hello.c")
    (watching.folder / "hello.c").write_text(HELLO)
    result = watching.until()[-1]
    assert (result["stage"], result["passed"]) == ("run", 3)


def test_a_test_that_takes_its_process_along_is_told(watching: Watching) -> None:
    text = "import os\n\n\ndef test_end():\n    os.abort()\n"
    events = watching.save(text, "test_hello.py")
    (told,) = of_kind(events, "note")
    assert told["level"] == "error"
    assert "ended by signal 6" in told["text"]
    assert "Fatal Python error: Aborted" in told["text"]
    assert not events[-1]["ok"]


def once(folder: Path, common: list[str], environment: dict[str, str], *more: str) -> tuple[int, str]:
    line = [sys.executable, "-m", "kobox", "watch", str(folder), "--once", *common, *more]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    found = tmp_path / f"kobox-watched-{os.getpid()}"
    found.mkdir()
    (found / "hello.c").write_text(HELLO)
    yield found
    for copy in Path(environment["KOBOX_CACHE_DIR"], "work").glob(f"{found.name}-*"):
        shutil.rmtree(copy)


def test_without_tests_the_modules_life_is_shown(project: Path, common: list[str], environment: dict[str, str]) -> None:
    code, text = once(project, common, environment, "--param", "my_param=9")
    assert code == 0, text
    assert "no tests: modules are loaded and unloaded" in text
    assert "hello: my_param is 9" in text
    assert "hello: loaded, unloaded, nothing leaked" in text
    assert text.strip().splitlines()[-1].startswith("1 passed")
    (project / "hello.c").write_text(CRASH)
    code, text = once(project, common, environment)
    assert code == 1
    assert "BUG: kernel NULL pointer dereference" in text
    assert "hello: crashed: the task that loaded the module was killed" in text


def test_a_failing_test_as_text(project: Path, common: list[str], environment: dict[str, str]) -> None:
    (project / "hello.c").write_text(CRASH)
    (project / "test_hello.py").write_text(TESTS)
    code, text = once(project, common, environment)
    assert code == 1
    assert "FAILED " in text
    assert '>       hello = kernel.insmod(kobox_build / "hello.ko", my_param=7)' in text
    log = text.partition("-- kernel log --")[2].partition("-- kernel crash --")[0]
    assert "hello: hello, world" in log
    assert "Call Trace" not in log, "the crash is shown once, decoded"
    assert "volatile int" in text.partition("-- kernel crash --")[2]
    assert text.strip().splitlines()[-1].startswith("1 failed, 1 passed")


def test_in_place_the_builds_own_files_start_no_round(
    project: Path, common: list[str], environment: dict[str, str]
) -> None:
    (project / "Kbuild").write_text("obj-m += hello.o\n")
    watching = Watching(project, common, environment, "--in-place", "--param", "my_param=3")
    assert watching.until()[-1]["ok"]
    time.sleep(1)
    events = watching.save(HELLO + "/* more */\n")
    assert of_kind(events, "changed")[0]["files"] == ["hello.c"]
    assert events[-1]["ok"]
    assert (project / "hello.ko").is_file()
    assert watching.end() == 0


def test_pytests_own_refusal_is_shown(project: Path, common: list[str], environment: dict[str, str]) -> None:
    code, text = once(project, common, environment, "--", "--no-such-option")
    assert code == 1
    assert "unrecognized arguments: --no-such-option" in text
    assert "Traceback" not in text


def test_a_worker_does_not_outlive_a_loop_that_is_killed(
    project: Path, common: list[str], environment: dict[str, str]
) -> None:
    (project / "test_hello.py").write_text("def test_slow():\n    import time\n    time.sleep(600)\n")
    watching = Watching(project, common, environment)
    watching.until("ready")
    workers = children_of(watching.process.pid)
    assert workers
    watching.process.kill()
    assert watching.end() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in workers):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.1)


def test_a_folder_that_is_taken_away_ends_the_loop(
    project: Path, common: list[str], environment: dict[str, str]
) -> None:
    watching = Watching(project, common, environment)
    watching.until()
    project.rename(project.with_name("elsewhere"))
    events = watching.until("nothing more")
    assert "the folder is gone" in events[-1]["text"]
    assert watching.end() == 1


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
