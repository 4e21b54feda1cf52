"""The kernel's own test modules say on kobox what they say on a real machine; those that a script drives are driven."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_kernel import lacks

import kobox
from kernel_drive import Folder, Read, Step, Write, play, play_on_real_kernel, text
from kernel_source import kernel_tests
from kobox.box import Kernel
from kobox.cli import main
from kobox.ko import read_module
from needs import lacking

pytestmark = pytest.mark.image

SYSCTL = "/proc/sys/debug/test_sysctl"
KMOD = "/sys/devices/virtual/misc/test_kmod0"
FIRMWARE = "/sys/devices/virtual/misc/test_firmware"
INT_MAX, UINT_MAX, PAGE = 2**31 - 1, 2**32 - 1, 4096
NOT_FOUND = "256"
"""What request_module answers where modprobe exits with 1."""


@dataclass
class Place:
    """A kernel and what was built for it: test modules by name."""

    root: Path
    release: str
    built: Path

    def file(self, name: str) -> Path:
        """A module that was built, else one that the distribution ships."""
        own = self.built / f"{name}.ko"
        if own.exists():
            return own
        return next((self.root / "lib/modules").rglob(f"{name}.ko*"))

    @property
    def vmlinuz(self) -> Path:
        return next((self.root / "boot").glob("vmlinuz*"))


@pytest.fixture(scope="module", params=["bookworm", pytest.param("trixie", marks=pytest.mark.full)])
def place(request: pytest.FixtureRequest) -> Place:
    bookworm = request.param == "bookworm"
    root, image = (
        request.getfixturevalue(f"{'debian' if bookworm else 'trixie'}_{what}") for what in ("root", "image")
    )
    return Place(root, image.release, kernel_tests(image.release, None if bookworm else "trixie"))


@pytest.fixture(scope="module")
def booted(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kobox.boot(place.root, root=modules_root(place, tmp_path_factory.mktemp("root"))) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.reset()
    return booted


def modules_root(place: Place, root: Path) -> Path:
    """A system with the modules that test_kmod asks for: a small one, and a file system with what it needs."""
    folder = root / "lib/modules" / place.release
    (folder / "kernel").mkdir(parents=True)
    tree = place.root / "lib/modules" / place.release
    # xfs asks for the checksum by the name of its algorithm
    wanted = {"test_module", "xfs", *(file.name.split(".")[0] for file in tree.rglob("crc32c_generic.ko*"))}
    while wanted:
        name = wanted.pop()
        file = place.file(name)
        if (folder / "kernel" / f"{name}.ko").exists():
            continue
        module = read_module(file)
        (folder / "kernel" / f"{name}.ko").write_bytes(bytes(module.data))
        wanted |= {need for need in (module.modinfo.get("depends") or "").split(",") if need}
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (tree / name).exists():
            shutil.copy(tree / name, folder)
    assert main(["depmod", "-b", str(root), place.release]) == 0
    return root


def log(kernel: Kernel) -> list[str]:
    return [record.text for record in kernel.dmesg()]


def real(place: Place, names: tuple[str, ...], begin: str, steps: list[Step]) -> list[str]:
    if lacks():
        lacking(lacks())
    modules = {name: bytes(read_module(place.file(name)).data) for name in names}
    return play_on_real_kernel(place.vmlinuz, modules, begin, steps)


# -- tests that run by themselves -------------------------------------------------------------------------------------


def test_meminit_finds_no_memory_that_was_not_wiped(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_meminit"))
    assert re.fullmatch(r"test_meminit: all \d+ tests passed!", log(kernel)[-1])


def test_user_copy_passes(kernel: Kernel, place: Place) -> None:
    if place.built.name and not list((place.root / "lib/modules").rglob("test_user_copy.ko*")):
        pytest.skip("this kernel has turned the module into a test of KUnit's: usercopy_kunit")
    kernel.insmod(place.file("test_user_copy"))
    assert log(kernel)[-1] == "test_user_copy: tests passed."


def test_static_keys_of_one_module_are_seen_by_the_other(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_static_key_base"))
    kernel.insmod(place.file("test_static_keys"))
    assert not [line for line in log(kernel) if "WARNING" in line]
    kernel.rmmod("test_static_keys")
    kernel.rmmod("test_static_key_base")


@pytest.mark.full
def test_bpf_programs_give_what_they_should(kernel: Kernel, place: Place) -> None:
    kernel.set_timeout(100_000)
    kernel.insmod(place.file("test_bpf"))
    found = [line for line in log(kernel) if "Summary:" in line]
    assert [re.sub(r"^test_bpf: ", "", line) for line in found if " 0 FAILED" not in line] == []
    total = sum(int(count) for line in found for count in re.findall(r"(\d+) PASSED", line))
    assert total > 1000


@pytest.mark.full
def test_pages_that_are_referenced_while_they_are_freed_do_not_leak(kernel: Kernel, place: Place) -> None:
    kernel.set_timeout(100_000)
    before = free_memory(kernel)
    kernel.insmod(place.file("test_free_pages"))
    assert log(kernel)[-1] == "test_free_pages: Test completed"
    assert free_memory(kernel) > before - 4096


def free_memory(kernel: Kernel) -> int:
    """In KiB."""
    return int(kernel.read("/proc/meminfo").split(b"MemFree:")[1].split()[0])


# -- sysctl -----------------------------------------------------------------------------------------------------------


def tries(name: str, *values: str | bytes) -> list[Step]:
    """Write each value, and read what is there then."""
    path, steps = f"{SYSCTL}/{name}", []
    for value in values:
        steps += [Write(path, value.encode() if isinstance(value, str) else value), Read(path)]
    return steps


def wide() -> list[str]:
    """Numbers that are wrong in an int although their lower half would fit."""
    magnitudes = ("100000000", "100000001", "1ffffffff", "180000000", "17fffffff", "ffffffff00000000",
                  "ffffffff00000001", "ffffffffffffffff", "ffffffff80000000", "ffffffff7fffffff")  # fmt: skip
    return [f"{sign}0x{magnitude}" for sign in ("", "-") for magnitude in magnitudes]


def sysctl_steps() -> list[Step]:
    spaces = b" " * (PAGE - 1)
    return [
        *tries("int_0001", "61\n", "0", "100", "101", "-1", "x", "5 6", "", *wide()),
        *tries("int_0001", spaces[:-1] + b"3", spaces + b"4" + b"\n", b" " * PAGE + b"4"),
        *tries("int_0002", "2\n", str(INT_MAX), str(INT_MAX + 1), "-3", str(-INT_MAX - 1), str(-INT_MAX - 2), *wide()),
        *tries("uint_0001", "315\n", str(UINT_MAX), str(UINT_MAX + 1), "-3", "0", *wide()),
        *tries("int_0003", "4 3 2 1", "100 101", spaces[:-1] + b"9", b" " * PAGE + b"7", "1 2 3 4 5", "7 x"),
        *tries("string_0001", "Testing sysctl", "A" * 63 + "B", "A" * 64 + "B", "A" * 64 + "BB", ""),
        *tries("bitmap_0001", "1,3-5,9", "7-2", "65535", "65536", "", "0-3,5-"),
    ]


def test_sysctl_values_are_taken_and_refused_at_their_limits(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_sysctl"))

    def after(name: str, value: str | bytes) -> tuple[str, str]:
        answers = play(kernel, tries(name, value))
        return answers[0], text(answers[1]).replace("\t", " ")

    assert after("int_0001", "61\n") == ("ok", "61")
    assert after("int_0001", "101") == ("EINVAL", "61")
    assert after("int_0001", b" " * PAGE + b"4") == ("EINVAL", "61")
    assert after("int_0002", str(INT_MAX)) == ("ok", str(INT_MAX))
    assert after("int_0002", str(INT_MAX + 1)) == ("EINVAL", str(INT_MAX))
    assert after("uint_0001", str(UINT_MAX)) == ("ok", str(UINT_MAX))
    assert after("uint_0001", "-3") == ("EINVAL", str(UINT_MAX))
    assert after("int_0003", "4 3 2 1") == ("ok", "4 3 2 1")
    assert after("int_0003", "100 101") == ("ok", "100 101 2 1")
    assert after("string_0001", "A" * 64 + "B") == ("ok", "A" * 64)
    assert after("bitmap_0001", "1,3-5,9") == ("ok", "1,3-5,9")
    for value in wide():
        assert after("int_0001", value) == ("EINVAL", "61")


@pytest.mark.full
def test_sysctl_answers_as_on_a_real_machine(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_sysctl"))
    steps = sysctl_steps()
    assert play(kernel, steps) == real(place, ("test_sysctl",), "insmod /m/test_sysctl.ko", steps)


# -- kmod -------------------------------------------------------------------------------------------------------------


def kmod(case: str, driver: str | bytes = b"", threads: int = 0, before: tuple[Step, ...] = ()) -> list[Step]:
    """One of kmod.sh's cases: ``case`` is driver or fs; no ``driver``: the usual one. Its answer is the last."""
    steps: list[Step] = [Write(f"{KMOD}/reset", b"1")]
    # what loads counts: it must not be there yet
    steps.append(Write(f"{KMOD}/config_test_case", b"1" if case == "driver" else b"2"))
    if threads:
        steps.append(Write(f"{KMOD}/config_num_threads", str(threads).encode()))
    if driver:
        data = driver.encode() if isinstance(driver, str) else driver
        steps.append(Write(f"{KMOD}/config_test_{case}", data))
    return [*steps, *before, Write(f"{KMOD}/trigger_config", b"1"), Read(f"{KMOD}/test_result")]


def modprobe_is(path: str) -> Write:
    return Write("/proc/sys/kernel/modprobe", path.encode() + b"\n")


KMOD_CASES: dict[str, tuple[list[Step], str]] = {
    "0001 no name, driver": (kmod("driver", b"\0", 1), NOT_FOUND),
    "0001 no name, file system": (kmod("fs", b"\0", 1), "-22"),
    "0002 not there, driver": (kmod("driver", "nope-test_module", 1), NOT_FOUND),
    "0002 not there, file system": (kmod("fs", "nope-xfs", 1), "-22"),
    "0003 file system": (kmod("fs", threads=1), "0"),
    "0004 file system by two": (kmod("fs", threads=2), "0"),
    "0005 driver by fifty": (kmod("driver"), "0"),
    "0006 file system by fifty": (kmod("fs"), "0"),
    "0008 driver by more than may run": (kmod("driver", threads=58), "0"),
    "0009 file system by more than may run": (kmod("fs", threads=62), "0"),
    "0010 no such modprobe": (kmod("driver", threads=1, before=(modprobe_is("/KMOD_TEST_NONEXISTENT"),)), "-2"),
    "0011 switched off": (kmod("driver", threads=1, before=(modprobe_is(""),)), "-2"),
}
RESTORED = modprobe_is("/sbin/modprobe")


def test_kmod_answers_every_kind_of_request(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_kmod"))
    found = {}
    for name, (steps, _) in KMOD_CASES.items():
        found[name] = text(play(kernel, steps)[-1])
        play(kernel, [RESTORED])
    assert found == {name: expected for name, (_, expected) in KMOD_CASES.items()}
    assert {"test_module", "xfs"} & {name for request in kernel.autoloaded for name in request.modules}


@pytest.mark.full
def test_kmod_answers_as_on_a_real_machine(kernel: Kernel, place: Place, tmp_path: Path) -> None:
    if lacks():
        lacking(lacks())
    steps = [step for case, _ in KMOD_CASES.values() for step in (*case, RESTORED)]
    kernel.insmod(place.file("test_kmod"))
    ours = play(kernel, steps)
    root = modules_root(place, tmp_path)
    files = {f"/{file.relative_to(root)}": file.read_bytes() for file in root.rglob("*") if file.is_file()}
    begin = "ln -s /bin/busybox /sbin/modprobe; insmod /m/test_kmod.ko"
    modules = {"test_kmod": bytes(read_module(place.file("test_kmod")).data)}
    assert ours == play_on_real_kernel(place.vmlinuz, modules, begin, steps, files=files)


# -- firmware ---------------------------------------------------------------------------------------------------------

NAME, CONTENT = "test-firmware.bin", b"ABCD0123\n"


def firmware_steps() -> list[Step]:
    def trigger(what: str, name: str | bytes = NAME) -> Write:
        return Write(f"{FIRMWARE}/{what}", name.encode() if isinstance(name, str) else name)

    def setting(**values: object) -> list[Step]:
        return [Write(f"{FIRMWARE}/config_{name}", str(value).encode()) for name, value in values.items()]

    batched: list[Step] = []
    for how in ("trigger_batched_requests", "trigger_batched_requests_async"):
        for name, count in ((NAME, 4), (f"nope-{NAME}", 4), (NAME, 1)):
            batched += [
                trigger("reset", "1"), *setting(name=name, num_requests=count, send_uevent=1),
                trigger(how, "1"), Read(f"{FIRMWARE}/test_result"),
            ]  # fmt: skip
            batched += [
                step for number in range(count)
                for step in (*setting(read_fw_idx=number), Read(f"{FIRMWARE}/read_firmware"))
            ]  # fmt: skip
            batched.append(trigger("release_all_firmware", "1"))
    return [
        Folder("/tmp"),
        Folder("/tmp/fw"),
        Write(f"/tmp/fw/{NAME}", CONTENT),
        Write("/sys/module/firmware_class/parameters/path", b"/tmp/fw"),
        Write("/sys/class/firmware/timeout", b"1"),
        trigger("trigger_request", b"\0"),
        trigger("trigger_async_request", b"\0"),
        trigger("trigger_request", f"nope-{NAME}"),
        Read("/dev/test_firmware"),
        trigger("trigger_request"),
        Read("/dev/test_firmware"),
        trigger("trigger_async_request", f"nope-{NAME}"),
        trigger("trigger_async_request"),
        Read("/dev/test_firmware"),
        trigger("reset", "1"),
        *setting(name=NAME, into_buf=1, buf_size=5, file_offset=0, partial=1),
        *batched,
    ]


def test_firmware_comes_from_a_directory_of_the_guest(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_firmware"))
    steps = firmware_steps()
    answers = list(zip(steps, play(kernel, steps), strict=True))
    requests = [
        answer for step, answer in answers if isinstance(step, Write) and step.path.endswith("/trigger_request")
    ]
    assert requests == ["EINVAL", "ENOENT", "ok"]
    reads = [answer for step, answer in answers if step == Read("/dev/test_firmware")]
    assert reads[1] == reads[2] == CONTENT.hex()
    batched = [answer for step, answer in answers if step == Read(f"{FIRMWARE}/read_firmware")]
    assert batched.count(CONTENT.hex()) == 10
    results = [text(answer) for step, answer in answers if step == Read(f"{FIRMWARE}/test_result")]
    assert results[:3] == ["0", "-2", "0"]


@pytest.mark.full
def test_firmware_answers_as_on_a_real_machine(kernel: Kernel, place: Place) -> None:
    kernel.insmod(place.file("test_firmware"))
    steps = firmware_steps()
    assert play(kernel, steps) == real(place, ("test_firmware",), "insmod /m/test_firmware.ko", steps)
