"""A kernel in the middle of its life goes to disk and comes back: whole, unharmed by who is killed, or not at all."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kobox
import kobox.ko
from example_files import example_file
from kobox.box import Kernel, resume, saved_key
from kobox.cli import main
from kobox.errors import KoboxError, UsageError
from kobox.runner import Finder
from kobox.session import places, saved
from kobox.session.boot import BootPlan
from kobox.session.client import RemoteKernel, connect
from kobox.session.launch import launch

pytestmark = pytest.mark.image


@pytest.fixture(autouse=True)
def _places(tmp_path_factory: pytest.TempPathFactory, kobox_image: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        patch.setenv("KOBOX_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield
        main(["halt", "--all"])


@pytest.fixture
def kernel(kobox_image: str) -> Iterator[RemoteKernel]:
    """With a seed, so that no busy host takes part in what a restored kernel does next."""
    launch(BootPlan(kobox_image, seed=1), "dev", lambda text: None)
    with connect("dev") as remote:
        yield remote


def restored(state: str | None, name: str = "again") -> RemoteKernel:
    launch(saved.find(state).plan(), name, lambda text: None)
    return connect(name)


# -- the state ------------------------------------------------------------------------------------------------------


Story = tuple[list[Path], list[str], list[Path], list[str]]
"""Modules loaded before a state is kept; those unloaded, loaded and unloaded after it."""


def story_of(kernel: Kernel, root: Path) -> Story:
    """Examples where they are built for the kernel; else the distribution's own modules."""
    if kernel.release.startswith("6.1.0"):
        files = {name: example_file(kernel.release, name) for name in ("slab", "kthread", "timer", "leak", "hello")}
        files["overrun"] = example_file(kernel.release, "hostile/overrun")
        before, after = ("slab", "kthread", "timer", "leak"), ("leak", "overrun", "hello")
        return [files[n] for n in before], ["timer", "kthread", "slab"], [files[n] for n in after], ["leak"]
    found = {file.name.partition(".")[0]: file for file in (root / "lib/modules").rglob("*.ko*")}
    return [found["tls"], found["bonding"]], ["bonding"], [found["dummy"], found["ext4"]], ["dummy", "tls"]


def go_on(kernel: Kernel, story: Story) -> list[Any]:
    """What happens next, with everything that can be seen of it."""
    _, gone, new, gone_at_last = story

    def look() -> list[Any]:
        memory = kernel.leaks(), kernel.memory_reports()
        return [kernel.now, kernel.tainted, kernel.modules, kernel.dmesg(boot=True), memory]

    seen = look()
    kernel.sleep(2)
    seen += look()
    for name in gone:
        kernel.rmmod(name)
    for file in new:
        with_needs(kernel, file)
    for name in gone_at_last:
        kernel.rmmod(name)
    return seen + look()


def with_needs(kernel: Kernel, file: Path) -> None:
    """Load a file after what it depends on."""
    for needed in Finder(file.parent, [], kernel.modules_folder).in_order(kobox.ko.read_module(file)):
        kernel.insmod(needed)
    kernel.insmod(file)


@pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
def test_what_was_saved_goes_on_as_the_kernel_itself_does(
    root: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Timers, threads, loaded modules, caches, leaks, lines that are said once: everything is compared.

    With a seed, because the host's clock would take part in what runs for more than 20 ms.
    """
    image: Path = request.getfixturevalue(root)
    with kobox.boot(image, seed=1) as kernel:
        story = story_of(kernel, image)
        for file in story[0]:
            kernel.insmod(file)
        if "leak" in [module.name for module in kernel.modules]:
            kernel.rmmod("leak")
        key = kernel.save(tmp_path)
        assert saved_key(tmp_path, image) == key
        with resume(tmp_path, image) as other:
            for file in tmp_path.iterdir():
                file.unlink()
            assert go_on(other, story) == go_on(kernel, story)


def test_what_was_restored_can_be_saved_again(kobox_image: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with kobox.boot(kobox_image) as kernel:
        kernel.insmod(example_file(kernel.release, "slab"))
        kernel.save(first)
    with resume(first, kobox_image) as kernel:
        kernel.insmod(example_file(kernel.release, "leak"))
        kernel.save(second)
    with resume(second, kobox_image) as kernel:
        kernel.rmmod("leak")
        assert {leak["module"] for leak in kernel.leaks()} == {"leak"}
        kernel.rmmod("slab")
        assert kernel.memory_reports()


def test_modules_that_the_checker_has_not_met_are_kept_apart(kobox_image: str, tmp_path: Path) -> None:
    def linked(kernel: Kernel) -> dict[str, Any]:
        return {
            name: (one.bases, one.addresses, {region: bytes(data) for region, data in one.memory.items()})
            for name, one in kernel._heap.linked.items()
        }

    with kobox.boot(kobox_image, check_memory=False) as kernel:
        for name in ("hello", "kthread", "timer"):
            kernel.insmod(example_file(kernel.release, name))
        kernel.save(tmp_path)
        with resume(tmp_path, kobox_image) as other:
            assert linked(other) == linked(kernel)
            assert len(linked(other)) == 3


def test_a_kernel_that_has_panicked_is_kept_as_it_is(kobox_image: str, tmp_path: Path) -> None:
    with kobox.boot(kobox_image) as kernel:
        kernel.write("/proc/sys/kernel/panic_on_oops", b"1")
        with pytest.raises(KoboxError, match="panic"):
            kernel.write("/proc/sysrq-trigger", b"c")
        kernel.save(tmp_path)
    with resume(tmp_path, kobox_image) as kernel:
        assert "panic" in kernel.dead
        with pytest.raises(KoboxError, match="the kernel has stopped"):
            kernel.read("/proc/uptime")
        assert any("Kernel panic" in record.text for record in kernel.dmesg())


def test_a_kernel_that_somebody_watches_is_refused(kobox_image: str, tmp_path: Path) -> None:
    with kobox.boot(kobox_image) as kernel:
        kernel.guest.machine.area.stub("a tracer's probe", lambda: None)
        with pytest.raises(UsageError, match="while it is watched: a tracer's probe; hint: switch tracing off"):
            kernel.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_outlives_its_server(kernel: RemoteKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.insmod(example_file(kernel.release, "hello"), my_param=7)
    assert main(["save", "state"]) == 0
    os.kill(kernel.info()["pid"], signal.SIGKILL)
    assert main(["restore", "--name", "again"]) == 0
    assert main(["cat", "--session", "again", "/sys/module/hello/parameters/my_param"]) == 0
    assert capsys.readouterr().out.endswith("7\n")
    with connect("again") as other:
        other.rmmod("hello")
        hello, event = other.events(0, ["uevent"], follow=False)
        assert (hello["type"], event["path"]) == ("hello", "/module/hello")
        assert other.reboot()["release"] == kernel.release
    capsys.readouterr()
    assert main(["restore", "--list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["release"]) == ("state", kernel.release)


def test_a_state_can_be_taken_up_many_times(kernel: RemoteKernel) -> None:
    kernel.save("state")
    others = [restored("state", f"again{number}") for number in range(3)]
    assert len({other.read("/proc/sys/kernel/random/uuid") for other in others}) == 1, "the same state, the same chance"
    for other in others:
        other.close()


def test_saving_again_replaces_the_state_and_leaves_nothing_behind(kernel: RemoteKernel) -> None:
    kernel.save("state")
    kernel.write("/proc/sys/kernel/hostname", b"second")
    kernel.save("state")
    assert len(list(saved.folder_for("state").glob("data-*"))) == 1
    with restored("state") as other:
        assert other.read("/proc/sys/kernel/hostname") == b"second\n"


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.full)])
def test_a_server_killed_while_it_saves_loses_nothing_that_was_confirmed(kobox_image: str, rounds: int) -> None:
    chance = random.Random(5)
    confirmed = 0
    about = launch(BootPlan(kobox_image), "dev", lambda text: None)
    for number in range(1, rounds + 1):
        with connect("dev") as kernel:
            kernel.write("/proc/sys/kernel/hostname", f"n{2 * number - 1}".encode())
            seconds = kernel.save("state")["seconds"]
            confirmed = 2 * number - 1
            kernel.write("/proc/sys/kernel/hostname", f"n{2 * number}".encode())
        threading.Timer(chance.uniform(0, seconds), os.kill, (about["pid"], signal.SIGKILL)).start()
        try:
            with connect("dev") as kernel:
                kernel.save("state")
                confirmed += 1
        except KoboxError as error:
            if "is gone" not in str(error):
                raise
        while any(place.alive for place in places.places()):
            time.sleep(0.02)
        about = launch(saved.find("state").plan(), "dev", lambda text: None)
        with connect("dev") as kernel:
            found = int(kernel.read("/proc/sys/kernel/hostname")[1:])
            assert confirmed <= found <= 2 * number
            assert kernel.read("/proc/uptime")


# -- what can be wrong ------------------------------------------------------------------------------------------------


def one_line(*words: str, code: int = 1) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kobox", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_a_full_disk_is_one_line_and_harms_nothing(kernel: RemoteKernel) -> None:
    kernel.write("/proc/sys/kernel/hostname", b"before")
    kernel.save("state")
    resource.prlimit(kernel.info()["pid"], resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    kernel.write("/proc/sys/kernel/hostname", b"after")
    line = one_line("save", "state")
    assert "the session was not saved: File too large; hint: it goes on" in line
    assert kernel.read("/proc/sys/kernel/hostname") == b"after\n"
    assert len(list(saved.folder_for("state").glob("data-*"))) == 1
    with restored("state") as other:
        assert other.read("/proc/sys/kernel/hostname") == b"before\n"


def test_a_state_of_another_kobox_or_image_is_refused_in_one_line(kernel: RemoteKernel) -> None:
    kernel.save("state")
    manifest = saved.folder_for("state") / saved.MANIFEST
    facts = json.loads(manifest.read_text())
    image, code = facts["key"].rsplit("-", 1)
    for key, says in (
        (f"{image}-0123456789abcdef", "saved by another kobox"),
        (f"6.6.6-{code}", "saved from another image: found 6.6.6"),
    ):
        manifest.write_text(json.dumps(facts | {"key": key}))
        assert says in one_line("restore", "state")
    manifest.write_text(json.dumps(facts | {"format": 2}))
    assert "format of the saved session: found 0x2, expected 0x1" in one_line("restore", "state")


def test_a_damaged_state_is_refused_in_one_line(kernel: RemoteKernel) -> None:
    kernel.save("state")
    state = saved.find("state")
    os.truncate(state.kernel / "memory", 4096)
    assert "is no saved kernel" in one_line("restore", "state")
    (state.kernel / "life.json").write_text("{")
    assert "is no saved kernel" in one_line("restore", "state")
    (state.path / saved.MANIFEST).write_text("nothing")
    assert "is no description of a saved session" in one_line("restore", "state")


def test_what_is_not_there_or_not_ours_is_one_line(kernel: RemoteKernel, tmp_path: Path) -> None:
    assert "no session was saved; hint: kobox save" in one_line("restore")
    assert "no saved session" in one_line("restore", "nothing")
    (tmp_path / "letter.txt").write_text("dear")
    assert "is not empty and no saved session" in one_line("save", str(tmp_path), code=2)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_the_bare_kernel_says_that_it_cannot_be_kept() -> None:
    launch(BootPlan("bare"), "small", lambda text: None)
    assert "the bare kernel has no state that could be kept" in one_line("save", "--session", "small", code=3)
