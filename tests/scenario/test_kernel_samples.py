"""The kernel's own samples do on kobox what their authors say they do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_kernel import lacks

import kobox
from kernel_drive import Folder, Read, Step, Write, play, play_on_real_kernel, text
from kernel_source import kernel_tests
from kobox.box import Kernel
from kobox.errors import Errno
from kobox.ko import read_module
from needs import lacking

pytestmark = pytest.mark.image

CONFIGFS, TRACING, LIVEPATCH = "/sys/kernel/config", "/sys/kernel/tracing", "/sys/kernel/livepatch"


@dataclass
class Place:
    root: Path
    built: Path

    def __getitem__(self, name: str) -> Path:
        """A sample, or a module of the distribution's."""
        own = self.built / f"{name}.ko"
        return own if own.exists() else next((self.root / "lib/modules").rglob(f"{name}.ko*"))


@pytest.fixture(scope="module", params=["bookworm", pytest.param("trixie", marks=pytest.mark.full)])
def place(request: pytest.FixtureRequest) -> Place:
    bookworm = request.param == "bookworm"
    root, image = (
        request.getfixturevalue(f"{'debian' if bookworm else 'trixie'}_{what}") for what in ("root", "image")
    )
    return Place(root, kernel_tests(image.release, None if bookworm else "trixie"))


@pytest.fixture(scope="module")
def booted(place: Place) -> Iterator[Kernel]:
    with kobox.boot(place.root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.reset()
    return booted


def log(kernel: Kernel) -> list[str]:
    return [line for record in kernel.dmesg() for line in record.text.split("\n")]


def make_a_thread(kernel: Kernel, place: Place) -> None:
    """By a sample that has one."""
    kernel.insmod(place["trace-events-sample"])


# -- objects in sysfs -------------------------------------------------------------------------------------------------

KOBJECT = [
    step
    for folder in ("kobject_example", "kset_example/foo", "kset_example/bar", "kset_example/baz")
    for name, value in (("foo", b"20"), ("bar", b"-5"), ("baz", b"0x7\n"), ("baz", b"7"))
    for step in (
        Read(f"/sys/kernel/{folder}/{name}"),
        Write(f"/sys/kernel/{folder}/{name}", value),
        Read(f"/sys/kernel/{folder}/{name}"),
    )
]


def test_kobject_and_kset_keep_what_is_written_to_their_files(kernel: Kernel, place: Place) -> None:
    for name in ("kobject-example", "kset-example"):
        kernel.insmod(place[name])
    for folder in ("kobject_example", "kset_example/bar"):
        assert kernel.read(f"/sys/kernel/{folder}/foo") == b"0\n"
        kernel.write(f"/sys/kernel/{folder}/foo", "20")
        kernel.write(f"/sys/kernel/{folder}/baz", "-5")
        assert kernel.read(f"/sys/kernel/{folder}/foo") == b"20\n"
        assert kernel.read(f"/sys/kernel/{folder}/baz") == b"-5\n"
        with pytest.raises(Errno, match="EINVAL"):
            kernel.write(f"/sys/kernel/{folder}/bar", "five")
    assert kernel.read("/sys/kernel/kset_example/foo/foo") == b"0\n"
    kernel.rmmod("kobject_example")
    with pytest.raises(Errno, match="ENOENT"):
        kernel.read("/sys/kernel/kobject_example/foo")


# -- configfs ---------------------------------------------------------------------------------------------------------


def configfs_steps() -> list[Step]:
    childless, simple, group = (
        f"{CONFIGFS}/{name}" for name in ("01-childless", "02-simple-children", "03-group-children")
    )
    return [
        Read(f"{childless}/showme"), Read(f"{childless}/showme"), Write(f"{childless}/storeme", b"17"),
        Read(f"{childless}/storeme"), Write(f"{childless}/storeme", b"x"), Read(f"{childless}/storeme"),
        Read(f"{childless}/description"), Read(f"{simple}/description"),
        Folder(f"{simple}/one"), Read(f"{simple}/one/storeme"), Write(f"{simple}/one/storeme", b"3"),
        Read(f"{simple}/one/storeme"), Folder(f"{group}/g"), Folder(f"{group}/g/two"),
        Write(f"{group}/g/two/storeme", b"4"), Read(f"{group}/g/two/storeme"), Read(f"{group}/g/description"),
    ]  # fmt: skip


def with_configfs(kernel: Kernel, place: Place) -> None:
    if list((place.root / "lib/modules").rglob("configfs.ko*")):
        kernel.insmod(place["configfs"])
    kernel.files.mount("config", CONFIGFS, "configfs")
    kernel.insmod(place["configfs_sample"])


def test_configfs_makes_objects_of_directories(kernel: Kernel, place: Place) -> None:
    with_configfs(kernel, place)
    answers = dict(zip(map(str, configfs_steps()), play(kernel, configfs_steps()), strict=True))
    found = {step.path: answers[str(step)] for step in configfs_steps() if isinstance(step, Read)}
    assert text(found[f"{CONFIGFS}/01-childless/showme"]) == "1"
    assert text(found[f"{CONFIGFS}/01-childless/storeme"]) == "17"
    assert text(found[f"{CONFIGFS}/02-simple-children/one/storeme"]) == "3"
    assert text(found[f"{CONFIGFS}/03-group-children/g/two/storeme"]) == "4"
    assert text(found[f"{CONFIGFS}/02-simple-children/description"]).startswith("[02-simple-children]")
    with pytest.raises(Errno):
        kernel.rmmod("configfs_sample")  # there are objects


# -- kfifo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytestream", "inttype", "record", "dma"])
def test_kfifo_samples_pass(kernel: Kernel, place: Place, kind: str) -> None:
    kernel.insmod(place[f"{kind}-example"])
    assert log(kernel)[-1] == "test passed"
    assert not [line for line in log(kernel) if "test failed" in line]


KFIFO = [
    Write("/proc/bytestream-fifo", b"hello"), Write("/proc/bytestream-fifo", b" world"),
    Write("/proc/bytestream-fifo", b"x" * 64), Read("/proc/bytestream-fifo"), Read("/proc/bytestream-fifo"),
]  # fmt: skip


def test_kfifo_gives_bytes_back_in_order_and_is_full_at_its_size(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["bytestream-example"])
    assert kernel.write("/proc/bytestream-fifo", "hello world") == 11
    assert kernel.write("/proc/bytestream-fifo", "x" * 64) == 32 - 11
    assert kernel.read("/proc/bytestream-fifo") == b"hello world" + b"x" * 21
    assert kernel.read("/proc/bytestream-fifo") == b""


@pytest.mark.full
def test_what_is_driven_by_files_answers_as_on_a_real_machine(kernel: Kernel, place: Place) -> None:
    if lacks():
        lacking(lacks())
    with_configfs(kernel, place)
    names = ["kobject-example", "kset-example", "bytestream-example"]
    for name in names:
        kernel.insmod(place[name])
    steps = [*KOBJECT, *configfs_steps(), *KFIFO]
    answers = play(kernel, steps)
    names = [
        *(["configfs"] if list((place.root / "lib/modules").rglob("configfs.ko*")) else []),
        *names,
        "configfs_sample",
    ]
    modules = {name: bytes(read_module(place[name]).data) for name in names}
    begin = "; ".join(
        [*(f"insmod /m/{name}.ko" for name in names), f"mount -t configfs c {CONFIGFS} 2>/dev/null; true"]
    )
    vmlinuz = next((place.root / "boot").glob("vmlinuz*"))
    assert answers == play_on_real_kernel(vmlinuz, modules, begin, steps)


# -- probes and events ------------------------------------------------------------------------------------------------


def test_a_kprobe_sees_a_thread_being_made(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["kprobe_example"])
    make_a_thread(kernel, place)
    kernel.rmmod("kprobe_example")
    said = log(kernel)
    assert any("Planted kprobe at" in line for line in said)
    assert any("handler_pre: <kernel_clone>" in line for line in said)
    assert any("handler_post: <kernel_clone>" in line for line in said)
    assert "unregistered" in said[-1]


def test_a_kretprobe_sees_what_a_function_returns(kernel: Kernel, place: Place) -> None:
    """It passes over kernel threads, so a function is taken that processes call."""
    kernel.insmod(place["kretprobe_example"], func="vfs_read")
    version = kernel.read("/proc/version")
    kernel.rmmod("kretprobe_example")
    said = log(kernel)
    assert any(re.search(rf"vfs_read returned {len(version)} and took \d+ ns to execute", line) for line in said)
    assert "Missed probing 0 instances of vfs_read" in said[-1]


def test_an_fprobe_sees_entry_and_return_where_the_kernel_has_fprobes(kernel: Kernel, place: Place) -> None:
    if kernel.image.config.get("CONFIG_FPROBE") != "y":
        with pytest.raises(Errno, match=r"ENOTSUP|EOPNOTSUPP"):
            kernel.insmod(place["fprobe_example"])
        return
    kernel.insmod(place["fprobe_example"])
    make_a_thread(kernel, place)
    kernel.rmmod("fprobe_example")
    said = "\n".join(log(kernel))
    assert "Planted fprobe at kernel_clone" in said
    assert re.search(r"Enter <kernel_clone\+0x\w+/0x\w+>", said)
    assert re.search(r"Return from <kernel_clone\+0x\w+/0x\w+>", said)
    assert re.search(r"fprobe at kernel_clone unregistered\. [1-9]\d* times hit, 0 times missed", said)


def test_trace_events_of_a_module_appear_in_the_trace(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["trace-events-sample"])
    for event in ("foo_bar", "foo_bar_with_cond", "foo_with_template_print"):
        kernel.write(f"{TRACING}/events/sample-trace/{event}/enable", "1")
    kernel.sleep(12.5)
    trace = kernel.read(f"{TRACING}/trace").decode()
    rows = re.findall(r"event-sample-\d+ .*: (\w+): (.*)", trace)
    found = [number for name, words in rows if name == "foo_bar" and (number := re.match(r"foo hello (\d+)", words))]
    assert [int(one[1]) for one in found] == list(range(int(found[0][1]), int(found[0][1]) + len(found)))
    assert 11 <= len(found) <= 14
    assert 1 <= sum(name == "foo_bar_with_cond" for name, _ in rows) <= 2  # every tenth
    kernel.write(f"{TRACING}/events/sample-trace/enable", "0")
    kernel.rmmod("trace_events_sample")


# -- livepatch --------------------------------------------------------------------------------------------------------


def test_a_livepatch_replaces_a_function_and_gives_it_back(kernel: Kernel, place: Place) -> None:
    before = kernel.read("/proc/cmdline")
    kernel.insmod(place["livepatch-sample"])
    kernel.sleep(5)
    assert kernel.read("/proc/cmdline") == b"this has been live patched\n"
    assert kernel.read(f"{LIVEPATCH}/livepatch_sample/transition") == b"0\n"
    kernel.write(f"{LIVEPATCH}/livepatch_sample/enabled", "0")
    kernel.sleep(5)
    kernel.rmmod("livepatch_sample")
    assert kernel.read("/proc/cmdline") == before


def test_callbacks_of_a_livepatch_are_called_in_order(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["livepatch-callbacks-mod"])
    kernel.insmod(place["livepatch-callbacks-demo"])
    kernel.sleep(5)
    kernel.write(f"{LIVEPATCH}/livepatch_callbacks_demo/enabled", "0")
    kernel.sleep(5)
    pattern = r"livepatch_callbacks_demo: (\w+patch_callback): (\w+)"
    calls = [found.groups() for line in log(kernel) if (found := re.match(pattern, line))]
    kinds = ("pre_patch_callback", "post_patch_callback", "pre_unpatch_callback", "post_unpatch_callback")
    assert [kind for kind, target in calls if target == "livepatch_callbacks_mod"] == list(kinds)
    assert [kind for kind, target in calls if target == "vmlinux"] == list(kinds)


def test_shadow_variables_of_a_livepatch_are_attached_to_objects_of_the_module(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place["livepatch-shadow-mod"])
    kernel.insmod(place["livepatch-shadow-fix1"])
    kernel.insmod(place["livepatch-shadow-fix2"])
    kernel.sleep(60)
    assert any(re.search(r"dummy @ \S+, prevented leak @", line) for line in log(kernel))
    assert not any("leaked!" in line for line in log(kernel))
    kernel.write(f"{LIVEPATCH}/livepatch_shadow_fix2/enabled", "0")
    kernel.sleep(5)
    assert kernel.read(f"{LIVEPATCH}/livepatch_shadow_fix1/enabled") == b"1\n"
