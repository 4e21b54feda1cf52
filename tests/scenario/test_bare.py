"""The bare kernel plays the examples: what goes in, what its log says, what is left. No image, no network."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.bare.kernel import BareKernel
from kobox.errors import Errno, GuestError, UsageError
from kobox.kernel.tasks import KernelDead, TaskDied
from kobox.runner import run_module

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "prebuilt"
GREETING = (
    "{0}: loading out-of-tree module taints kernel.",
    "{0}: module verification failed: signature and/or required key missing - tainting kernel",
)
OOT_UNSIGNED, DIED = 1 << 12 | 1 << 13, 1 << 7


@pytest.fixture
def kernel() -> Iterator[BareKernel]:
    with kobox.boot(image="bare") as booted:
        yield booted


def said(kernel: BareKernel) -> list[str]:
    """The log without what every out-of-tree module begins with."""
    return [r.text for r in kernel.dmesg() if "taints kernel" not in r.text and "tainting kernel" not in r.text]


def example(name: str) -> Path:
    return EXAMPLES / f"{name}.ko"


# -- one life ---------------------------------------------------------------------------------------------------------


def test_hello_greets_with_its_parameters_and_leaves_as_on_a_real_kernel(kernel: BareKernel) -> None:
    hello = kernel.insmod(example("hello"), my_param=7, whom="Ada", numbers=[1, 2, 3], loud=True)
    assert [record.text for record in kernel.dmesg()] == [
        *(line.format("hello") for line in GREETING),
        "hello: hello, Ada!",
        "hello: my_param is 7, 3 numbers add up to 6",
    ]
    assert [record.level for record in kernel.dmesg()] == [4, 5, 6, 6]
    assert dict(hello.parameters) == {"my_param": "7", "whom": "Ada", "loud": "Y", "numbers": "1,2,3"}
    hello.parameters["my_param"] = 9
    kernel.rmmod("hello")
    assert said(kernel)[-1] == "hello: goodbye, my_param is 9"
    assert kernel.modules == []
    assert kernel.tainted == OOT_UNSIGNED


def test_a_loaded_module_shows_itself_in_proc_and_sys(kernel: BareKernel) -> None:
    hello = kernel.insmod(example("hello"))
    record = hello.record
    assert (record.name, record.state, record.refcount, record.taint) == ("hello", "live", 0, "OE")
    assert record.size == hello.size > 0
    assert (hello.state, hello.refcount, hello.taint, hello.holders, hello.loaded) == ("live", 0, "OE", [], True)
    assert kernel.read("/sys/module/hello/version") == b"1.0\n"
    assert kernel.read("/sys/module/hello/initsize") == b"0\n"
    assert hello.sections[".exit.text"] == kernel.guest.modules.loaded[0].exit
    assert {entry.name for entry in kernel.ls("/sys/module/hello")} >= {"parameters", "sections", "holders", "refcnt"}
    assert f"{kernel.guest.modules.loaded[0].exit:016x} t hello_exit\t[hello]" in kernel.read("/proc/kallsyms").decode()
    assert kernel.files.status("/sys/module/hello/parameters/my_param").mode & 0o777 == 0o644


def test_the_second_module_is_loaded_and_refused_as_the_kernel_does(kernel: BareKernel) -> None:
    kernel.insmod(example("hello"))
    with pytest.raises(Errno) as refused:
        kernel.insmod(example("hello"))
    assert refused.value.number == errno.EEXIST
    assert [module.name for module in kernel.modules] == ["hello"]


def test_the_memory_of_init_is_gone_once_the_module_lives(kernel: BareKernel) -> None:
    kernel.insmod(example("hello"))
    init = kernel.guest.modules.loaded[0].init
    with pytest.raises(TaskDied):
        kernel.call(init)


# -- the examples -----------------------------------------------------------------------------------------------------


def test_list_builds_walks_and_frees_a_list(kernel: BareKernel) -> None:
    kernel.insmod(example("list"), count=3)
    kernel.rmmod("list")
    assert said(kernel) == [
        "list: an animal with 2 legs",
        "list: an animal with 4 legs",
        "list: an animal with 6 legs",
        "list: 3 animals, 12 legs",
        "list: empty again: yes",
    ]
    assert kernel.leaks() == ()
    assert kernel.memory_reports() == ()


def test_slab_takes_constructed_objects_from_its_own_cache(kernel: BareKernel) -> None:
    kernel.insmod(example("slab"), objects=10)
    kernel.rmmod("slab")
    assert said(kernel) == [
        "slab: 10 objects of 32 bytes, numbers add up to 45",
        "slab: constructed before use: yes",
        "slab: cache destroyed",
    ]
    assert kernel.leaks() == ()


def test_user_calls_what_exporter_exports_and_keeps_it_from_leaving(kernel: BareKernel) -> None:
    exporter = kernel.insmod(example("exporter"))
    kernel.insmod(example("user"))
    assert (exporter.refcount, exporter.holders) == (1, ["user"])
    with pytest.raises(Errno) as refused:
        kernel.rmmod("exporter")
    assert refused.value.number == errno.EAGAIN
    kernel.rmmod("user")
    assert kernel.call("exporter_add", 20, 22) == 42
    kernel.rmmod("exporter")
    assert said(kernel) == [
        "exporter: ready",
        "user: 2 + 3 = 5, 6 * 7 = 42",
        "user: one symbol at a time, after 2 calls",
        "user: done",
        "exporter: was called 4 times",
    ]


def test_timer_ticks_at_the_jiffies_of_the_real_wheel(kernel: BareKernel) -> None:
    kernel.insmod(example("timer"))
    kernel.sleep(1)
    kernel.rmmod("timer")
    assert said(kernel) == [
        "timer: started",
        "timer: tick 1 after 104 ms",
        "timer: tick 2 after 208 ms",
        "timer: tick 3 after 312 ms",
        "timer: stopped after 3 ticks, none was due",
    ]


def test_a_timer_that_is_still_due_is_taken_off_at_unload(kernel: BareKernel) -> None:
    kernel.insmod(example("timer"), period_ms=500, ticks=40)
    kernel.sleep(1.1)
    kernel.rmmod("timer")
    kernel.sleep(1)
    assert said(kernel)[-1] == "timer: stopped after 2 ticks, one more was due"


def test_work_runs_once_however_often_it_is_queued(kernel: BareKernel) -> None:
    kernel.insmod(example("work"))
    kernel.rmmod("work")
    assert said(kernel) == [
        "work: queued: 1, queued again: 0",
        "work: wash runs for the 1. time",
        "work: dry runs for the 1. time",
        "work: after the flush, wash has run 1 times",
        "work: wash ran 1 times, dry 1 times",
    ]


def _ioctl(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("k") << 8 | number


def test_misc_keeps_a_note_between_opens(kernel: BareKernel) -> None:
    misc = kernel.insmod(example("misc"))
    assert [(entry.name, entry.kind) for entry in kernel.ls("/dev")] == [("kobox_note", "char")]
    assert kernel.files.status("/dev/kobox_note").mode == 0o020666
    kernel.write("/dev/kobox_note", b"milk\n")
    assert kernel.read("/dev/kobox_note") == b"milk\n"
    assert said(kernel) == ["misc: /dev/kobox_note is there", *["misc: opened", "misc: closed"] * 2]
    descriptor = kernel.files.open("/dev/kobox_note", 2)
    assert misc.refcount == 1
    with pytest.raises(Errno) as busy:
        kernel.rmmod("misc")
    assert busy.value.number == errno.EAGAIN
    with pytest.raises(Errno) as too_long:
        kernel.files.write_to(descriptor, b"x" * 129)
    assert too_long.value.number == errno.ENOSPC
    kernel.files.close(descriptor)
    kernel.rmmod("misc")
    assert kernel.ls("/dev") == []
    with pytest.raises(Errno) as gone:
        kernel.read("/dev/kobox_note")
    assert gone.value.number == errno.ENOENT


def test_misc_answers_ioctl_through_user_memory(kernel: BareKernel) -> None:
    kernel.insmod(example("misc"))
    kernel.write("/dev/kobox_note", b"milk")
    descriptor = kernel.files.open("/dev/kobox_note", 2)
    length = _ioctl(2, NOTE_LENGTH, 4)
    assert kernel.files.ioctl(descriptor, length, bytes(4)) == (0, struct.pack("<I", 4))
    with pytest.raises(Errno) as bad_pointer:
        kernel.files.ioctl(descriptor, length, 0x1000)
    assert bad_pointer.value.number == errno.EFAULT
    with pytest.raises(Errno) as unknown:
        kernel.files.ioctl(descriptor, _ioctl(0, 99, 0), 0)
    assert unknown.value.number == errno.ENOTTY


NOTE_LENGTH = 1


def test_leak_is_told_with_the_trace_that_allocated(kernel: BareKernel) -> None:
    kernel.insmod(example("leak"))
    assert kernel.leaks() == ()
    kernel.rmmod("leak")
    leaks = kernel.leaks()
    assert [(leak["module"], leak["size"]) for leak in leaks] == [("leak", 100), ("leak", 200)]
    assert [frame["symbol"].partition("+")[0] for frame in leaks[0]["trace"]] == ["leak_init", "kobox_call"]


# -- a crash ----------------------------------------------------------------------------------------------------------


def test_a_null_pointer_kills_the_task_and_leaves_the_module_as_the_kernel_would(kernel: BareKernel) -> None:
    with pytest.raises(TaskDied):
        kernel.insmod(example("walk_oops"))
    lines = said(kernel)
    assert lines[:5] == [
        "walk_oops:     1 init",
        "walk_oops:     2 kthreadd",
        "walk_oops:     7 kworker/0:0",
        "walk_oops:   100 insmod",
        "walk_oops: 4 processes",
    ]
    assert lines[5] == "BUG: kernel NULL pointer dereference, address: 0000000000000028"
    assert "Oops: 0000 [#1] PREEMPT SMP NOPTI" in lines
    assert "RIP: 0010:read_on+0x5/0xe [walk_oops]" in lines
    assert lines[lines.index(" <TASK>") + 1].startswith(" walk_init+0x70/")
    assert "Modules linked in: walk_oops(OE+)" in lines
    assert kernel.tainted == OOT_UNSIGNED | DIED
    assert (kernel.module("walk_oops").record.state, kernel.module("walk_oops").refcount) == ("loading", 1)
    with pytest.raises(Errno) as busy:
        kernel.rmmod("walk_oops")
    assert busy.value.number == errno.EBUSY


def test_the_kernel_lives_on_after_an_oops(kernel: BareKernel) -> None:
    with pytest.raises(TaskDied):
        kernel.insmod(example("walk_oops"))
    kernel.insmod(example("hello"), my_param=3)
    assert said(kernel)[-1] == "hello: my_param is 3, 0 numbers add up to 0"
    kernel.rmmod("hello")


def test_a_warning_is_logged_and_the_task_goes_on(kernel: BareKernel) -> None:
    kernel.insmod(example("hostile/warn"))
    assert any("WARNING: CPU: 0 PID: 100 at" in line for line in said(kernel))
    assert kernel.tainted & 1 << 9


def test_a_bug_names_its_source_line(kernel: BareKernel) -> None:
    with pytest.raises(TaskDied):
        kernel.insmod(example("hostile/bug"))
    assert any(line.startswith("kernel BUG at examples/hostile/bug.c:") for line in said(kernel))


def test_a_division_by_zero_is_a_divide_error(kernel: BareKernel) -> None:
    with pytest.raises(TaskDied):
        kernel.insmod(example("hostile/divide"))
    assert "divide error: 0000 [#1] PREEMPT SMP NOPTI" in said(kernel)


def test_data_is_not_executable(kernel: BareKernel) -> None:
    with pytest.raises(TaskDied):
        kernel.insmod(example("hostile/jump"), data=True)
    assert "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)" in said(kernel)


def test_a_stack_that_overflows_hits_its_guard_page(kernel: BareKernel) -> None:
    with pytest.raises(TaskDied):
        kernel.insmod(example("hostile/recurse"))
    assert any("stack guard page was hit" in line for line in said(kernel))


def test_waiting_for_oneself_is_told_instead_of_waiting(kernel: BareKernel) -> None:
    with pytest.raises(GuestError, match="lock that is held"):
        kernel.insmod(example("hostile/deadlock"))


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_byte_too_many_is_found_when_the_object_is_freed(kernel: BareKernel) -> None:
    kernel.insmod(example("hostile/overrun"), size=33)
    (report,) = kernel.memory_reports()
    assert (report["kind"], report["size"], report["module"]) == ("overrun", 33, "overrun")


def test_freeing_twice_is_found(kernel: BareKernel) -> None:
    kernel.insmod(example("hostile/double_free"))
    assert [report["kind"] for report in kernel.memory_reports()] == ["double-free"]


def test_an_init_that_fails_is_undone(kernel: BareKernel) -> None:
    with pytest.raises(Errno) as failed:
        kernel.insmod(example("hostile/fail_init"))
    assert failed.value.number == errno.ENODEV
    assert kernel.modules == []
    assert kernel.leaks() == ()
    with pytest.raises(Errno):
        kernel.insmod(example("hostile/fail_init"), tidy=False)
    assert [leak["size"] for leak in kernel.leaks()] == [256]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_every_function_that_is_missing_is_named(kernel: BareKernel) -> None:
    with pytest.raises(Errno) as refused:
        kernel.insmod(example("kthread"))
    assert refused.value.number == errno.ENOENT
    missing = kernel.explain_last_load().partition(": ")[2].split(", ")
    assert {"kthread_create_on_node", "wake_up_process", "kthread_stop"} <= set(missing)
    assert "kthread: Unknown symbol kthread_stop (err -2)" in said(kernel)
    assert kernel.modules == []


def test_another_kernels_module_is_refused_in_the_kernels_words(kernel: BareKernel) -> None:
    data = example("hello").read_bytes()
    kernel_magic = b"vermagic=6.1.0-56-amd64 SMP preempt mod_unload modversions "
    other = data.replace(kernel_magic, kernel_magic.replace(b"SMP preempt", b"UPx preempt"))
    with pytest.raises(Errno) as refused:
        kernel.insmod(other)
    assert refused.value.number == errno.ENOEXEC
    assert said(kernel) == [
        "hello: version magic '6.1.0-56-amd64 UPx preempt mod_unload modversions ' "
        "should be '6.1.0-56-amd64 SMP preempt mod_unload modversions '"
    ]
    kernel.insmod(other, flags=2)
    assert kernel.module("hello").taint == "FOE"


def test_parameters_are_refused_in_the_kernels_words(kernel: BareKernel) -> None:
    with pytest.raises(Errno) as refused:
        kernel.insmod(example("hello"), my_param="seven", unknown=1)
    assert refused.value.number == errno.EINVAL
    assert said(kernel) == [
        "hello: `seven' invalid for parameter `my_param'",
        "hello: unknown parameter 'unknown' ignored",
    ]
    assert kernel.modules == []


def test_the_user_without_the_exporter_is_refused(kernel: BareKernel) -> None:
    with pytest.raises(Errno) as refused:
        kernel.insmod(example("user"))
    assert refused.value.number == errno.ENOENT
    assert "user: Unknown symbol exporter_add (err -2)" in said(kernel)


def test_bytes_that_are_no_module_are_refused(kernel: BareKernel) -> None:
    with pytest.raises(Errno) as refused:
        kernel.init_module(b"\x7fELF" + bytes(100))
    assert refused.value.number == errno.ENOEXEC


# -- the kernel itself ------------------------------------------------------------------------------------------------


def test_reset_starts_anew(kernel: BareKernel) -> None:
    kernel.insmod(example("hello"))
    kernel.reset()
    assert kernel.modules == []
    assert kernel.dmesg() == []
    assert kernel.tainted == 0
    kernel.insmod(example("hello"))


def test_a_module_can_come_and_go_a_hundred_times(kernel: BareKernel) -> None:
    for number in range(100):
        kernel.insmod(example("hello"), my_param=number)
        kernel.rmmod("hello")
    assert said(kernel)[-1] == "hello: goodbye, my_param is 99"


def test_what_the_bare_kernel_has_not_is_said(kernel: BareKernel) -> None:
    with pytest.raises(UsageError):
        kobox.boot(image="bare", loader="kernel")
    with pytest.raises(UsageError, match="no symbol"):
        kernel.call("no_such_function")
    with pytest.raises(Errno):
        kernel.read("/proc/meminfo")


def test_an_oops_in_a_timer_is_the_end_of_the_kernel(kernel: BareKernel) -> None:
    kernel.insmod(example("timer"))
    module = kernel.guest.modules.loaded[0]
    timer = next(iter(kernel.guest.clock.timers))
    kernel.guest.view("timer_list", timer)["function"] = module.address
    with pytest.raises(KernelDead):
        kernel.sleep(1)
    assert "Kernel panic - not syncing: Fatal exception in interrupt" in said(kernel)
    with pytest.raises(KernelDead):
        kernel.sleep(1)


def test_run_reports_a_life_on_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_module(example("user"), image="bare")
    assert report.ok
    assert report.dependencies == ("exporter",)
    assert report.as_data()["tainted"] == OOT_UNSIGNED
    assert [name for name, _ in report.steps][:4] == ["signature", "check", "allocate", "name"]


def test_run_takes_bare_when_no_image_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))
    report = run_module(example("hello"), ["my_param=7"])
    assert report.ok
    assert report.image.startswith("bare")
    assert "no image" in report.why_image


def test_a_crash_is_part_of_the_report() -> None:
    report = run_module(example("walk_oops"), image="bare")
    assert not report.ok
    assert report.oops is not None
    assert report.oops["title"] == "BUG: kernel NULL pointer dereference, address: 0000000000000028"


def test_a_sleep_beyond_the_time_limit_is_ended(kernel: BareKernel) -> None:
    kernel.set_timeout(1)
    with pytest.raises(TaskDied, match="virtual time"):
        kernel.insmod(example("hostile/sleep_init"), ms=5000)
    kernel.insmod(example("hello"))


def test_a_sleeping_init_sees_time_pass(kernel: BareKernel) -> None:
    before = kernel.now
    kernel.insmod(example("hostile/sleep_init"))
    assert kernel.now - before >= 1
    assert said(kernel)[-1] == "sleep_init: slept long enough: 1"


def test_hlt_waits_for_the_next_tick(kernel: BareKernel) -> None:
    kernel.insmod(example("hostile/halt"))
    assert said(kernel) == ["halt: good night", "halt: good morning"]
    kernel.reset()
    with pytest.raises(TaskDied, match="interrupts off"):
        kernel.insmod(example("hostile/halt"), irqs_off=True)


def test_sysfs_has_notes_sections_and_attributes_with_the_kernel_s_modes(kernel: BareKernel) -> None:
    kernel.insmod(example("exporter"))
    kernel.insmod(example("user"))
    base = "/sys/module/exporter"
    modes = {
        name: kernel.files.status(f"{base}/{name}").mode & 0o7777 for name in ("refcnt", "uevent", "sections/.text")
    }
    assert modes == {"refcnt": 0o444, "uevent": 0o200, "sections/.text": 0o400}
    assert kernel.read(f"{base}/notes/.note.gnu.build-id")[12:16] == b"GNU\0"
    assert kernel.files.readlink(f"{base}/holders/user") == "../../user"


def test_an_open_attribute_of_an_unloaded_module_is_no_device_any_more(kernel: BareKernel) -> None:
    kernel.insmod(example("hello"))
    descriptor = kernel.files.open("/sys/module/hello/refcnt")
    kernel.rmmod("hello")
    with pytest.raises(Errno) as refused:
        kernel.files.read_from(descriptor, 10)
    assert refused.value.number == errno.ENODEV


def test_udev_would_hear_of_modules_that_come_and_go(kernel: BareKernel) -> None:
    kernel.insmod(example("hello"))
    kernel.rmmod("hello")
    assert [event[0] for event in kernel.guest.uevents] == ["add@/module/hello", "remove@/module/hello"]


@pytest.mark.parametrize(("flags", "number"), [(8, errno.EINVAL), (4, errno.EOPNOTSUPP)])
def test_flags_that_the_kernel_does_not_know_are_refused_first(kernel: BareKernel, flags: int, number: int) -> None:
    with pytest.raises(Errno) as refused:
        kernel.init_module(b"no module", flags=flags)
    assert refused.value.number == number


def test_the_first_forced_taint_ends_the_debugging_of_locks_once(kernel: BareKernel) -> None:
    kernel.init_module(example("hello").read_bytes(), flags=1)
    kernel.rmmod("hello")
    kernel.init_module(example("hello").read_bytes(), flags=1)
    assert said(kernel).count("Disabling lock debugging due to kernel taint") == 1
