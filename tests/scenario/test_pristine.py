"""A kernel goes back to its pristine state: memory, code, tasks, time and log; again and again."""

from __future__ import annotations

import pytest

from kobox.box import Kernel
from kobox.errors import Errno, UsageError
from paths import EXAMPLES

pytestmark = pytest.mark.image


def test_a_static_key_flipped_after_the_snapshot_is_off_again_after_a_reset(kernel: Kernel) -> None:
    key = kernel.guest.symbol("sched_schedstats")
    enable = kernel.guest.symbol("static_key_slow_inc")
    branch = kernel.guest.symbol("schedule")  # runs in every test, so that its code is translated before the flip
    assert branch
    kernel.sleep(0.01)
    kernel.call(enable, key)
    assert kernel.guest.read_uint(key, 4) == 1
    kernel.sleep(0.01)
    kernel.reset()
    assert kernel.guest.read_uint(key, 4) == 0
    kernel.sleep(0.01)
    # the entry of the jump table must agree with the key, or the kernel warns when it is flipped anew
    kernel.call(enable, key)
    assert not [record for record in kernel.dmesg() if record.level <= 4]


def test_a_module_of_its_own_flips_a_key_in_each_of_many_lives(kernel: Kernel) -> None:
    path = EXAMPLES / "hostile" / "flip_key.ko"
    first = None
    for _ in range(4):
        kernel.insmod(path)
        kernel.rmmod("flip_key")
        text = [record.text for record in kernel.dmesg()]
        first = first or text
        assert text == first
        kernel.reset()


def test_a_module_at_the_address_of_another_runs_its_own_code_after_a_reset(kernel: Kernel) -> None:
    said = {}
    addresses = set()
    for _ in range(2):
        for name in ("hello", "list", "slab", "work"):
            module = kernel.insmod(EXAMPLES / f"{name}.ko")
            addresses.add(module.record.address)
            kernel.rmmod(name)
            text = [record.text for record in kernel.dmesg() if record.text.startswith(f"{name}:")]
            assert text == said.setdefault(name, text)
            kernel.reset()
    assert len(addresses) == 1, "all of them lay at the same place, or this test shows nothing"


def test_a_module_at_the_address_of_one_unloaded_before_runs_its_own_code(kernel: Kernel) -> None:
    for _ in range(3):
        for name in ("hello", "list"):
            kernel.insmod(EXAMPLES / f"{name}.ko")
            kernel.rmmod(name)
    assert not [record for record in kernel.dmesg() if record.level <= 3]


def test_a_reset_forgets_modules_files_log_taint_and_time(kernel: Kernel) -> None:
    before = (kernel.now, kernel.tainted, len(kernel.dmesg(boot=True)))
    kernel.insmod(EXAMPLES / "hello.ko")
    kernel.write("/proc/sys/kernel/hostname", b"elsewhere\n")
    kernel.sleep(3)
    kernel.reset()
    assert (kernel.now, kernel.tainted, len(kernel.dmesg(boot=True))) == before
    assert kernel.modules == []
    assert kernel.read("/proc/sys/kernel/hostname") != b"elsewhere\n"
    with pytest.raises(Errno, match="ENOENT"):
        kernel.read("/sys/module/hello/refcnt")


def test_a_reset_works_while_a_task_sleeps_inside_a_load(kernel: Kernel) -> None:
    operation = kernel.start_load((EXAMPLES / "hostile" / "sleep_init.ko").read_bytes())
    kernel.modules_room.run_until_blocked(operation)
    assert not operation.done
    assert kernel.module("sleep_init").record.state == "loading"
    kernel.reset()
    assert kernel.modules == []
    kernel.sleep(2)
    assert kernel.call("strlen", kernel.guest.symbol("linux_banner")) == len(
        kernel.guest.read_cstr(kernel.guest.symbol("linux_banner"))
    )


def test_an_oops_is_undone_by_a_reset(kernel: Kernel) -> None:
    from kobox.kernel.tasks import TaskDied

    with pytest.raises(TaskDied):
        kernel.insmod(EXAMPLES / "walk_oops.ko")
    assert kernel.tainted & 128
    kernel.reset()
    assert kernel.tainted == 0
    kernel.insmod(EXAMPLES / "hello.ko")


def test_a_checkpoint_becomes_what_reset_goes_back_to(kernel: Kernel) -> None:
    kernel.insmod(EXAMPLES / "hello.ko", my_param=5)
    kernel.checkpoint()
    kernel.module("hello").parameters["my_param"] = 6
    kernel.reset()
    assert kernel.module("hello").parameters["my_param"] == "5"


def test_reset_without_a_remembered_state_says_what_to_do(debian_root: object) -> None:
    import kobox

    with kobox.boot(str(debian_root)) as kernel, pytest.raises(UsageError, match="mark_pristine"):
        kernel.reset()


def test_states_pushed_on_one_another_are_gone_back_to_in_turn(kernel: Kernel) -> None:
    stack = ("hello", "list", "slab")
    for name in stack:
        kernel.insmod(EXAMPLES / f"{name}.ko")
        kernel.push()
    for depth in (3, 2, 1):
        loaded = [record.name for record in kernel.modules]
        assert loaded == list(reversed(stack[:depth]))
        kernel.insmod(EXAMPLES / "work.ko")
        kernel.sleep(0.05)
        kernel.rmmod("work")
        kernel.rmmod(stack[depth - 1])
        kernel.reset()
        assert [record.name for record in kernel.modules] == loaded
        assert kernel.dmesg() == [], "the log begins where the state was pushed"
        kernel.pop()
    assert kernel.modules == []
    with pytest.raises(UsageError, match="push"):
        kernel.pop()


def test_modules_that_lie_where_those_of_a_pushed_state_lay_run_their_own_code(kernel: Kernel) -> None:
    said = {}
    for names in (("hello", "list"), ("slab", "work"), ("list", "hello"), ("work", "slab")):
        kernel.insmod(EXAMPLES / f"{names[0]}.ko")
        kernel.push()
        for _ in range(2):
            kernel.insmod(EXAMPLES / f"{names[1]}.ko")
            kernel.rmmod(names[1])
            kernel.rmmod(names[0])
            text = [record.text for record in kernel.dmesg()]
            assert text == said.setdefault(names, text)
            kernel.reset()
        kernel.pop()
    assert len({tuple(text) for text in said.values()}) == len(said)


@pytest.mark.parametrize("keep", ["push", "checkpoint"])
def test_code_that_ran_before_a_state_was_kept_may_be_replaced_after_it(kernel: Kernel, keep: str) -> None:
    returns = {number: bytes([0xB8, number, 0, 0, 0, 0xC3]) for number in (1, 2)}  # mov eax, number; ret
    place = kernel.call("module_alloc", 4096)
    kernel.call("set_memory_x", place, 1)
    kernel.guest.write(place, returns[1])
    assert kernel.call(place) == 1
    getattr(kernel, keep)()
    for _ in range(2):
        kernel.guest.write(place, returns[2])
        assert kernel.call(place) == 2
        kernel.reset()
        assert kernel.call(place) == 1


def test_code_that_was_read_before_it_ran_is_forgotten_by_a_reset(kernel: Kernel) -> None:
    places = set()
    for number in (1, 2, 3):
        place = kernel.call("module_alloc", 4096)
        places.add(place)
        kernel.call("set_memory_x", place, 1)
        kernel.guest.write(place, bytes([0xB8, number, 0, 0, 0, 0xC3]))  # mov eax, number; ret
        kernel.call("strlen", place)
        assert kernel.call(place) == number
        kernel.reset()
    assert len(places) == 1, "or this test shows nothing"
