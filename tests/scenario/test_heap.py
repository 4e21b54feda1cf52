"""What modules do wrong with memory is found on a real kernel, and what they do right is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from kernel_headers import make_modules

import kobox
import kobox.ko
from example_files import example_file
from headers import kernel_headers
from kobox.box import Kernel
from kobox.errors import Errno
from kobox.kernel.heapcheck import bucket, room
from kobox.kernel.modules import Module
from kobox.runner import Finder
from needs import lacking

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def linux_root(debian_root: Path) -> Path:
    """The release that the modules are compiled for."""
    return debian_root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, debian_image: Any) -> Path:
    """A folder with ``heap_story.ko`` and ``leak.ko``, compiled with debug data for the image's own release."""
    headers = kernel_headers(debian_image.release)
    if headers.release != debian_image.release:
        lacking(f"headers of {debian_image.release}")
    folder = tmp_path_factory.mktemp("story")
    shutil.copy(ROOT / "tests/data/heap_story.c", folder)
    shutil.copy(ROOT / "examples/leak.c", folder)
    (folder / "Kbuild").write_text("obj-m += heap_story.o leak.o\n")
    make_modules(headers, folder, flags=["-g"])
    return folder


def prebuilt(kernel: Kernel, name: str, **parameters: object) -> Module:
    return kernel.insmod(example_file(kernel.release, name), **parameters)


def told(kernel: Kernel, built: Path, story: str) -> tuple[dict[str, Any], ...]:
    kernel.insmod(built / "heap_story.ko", story=story)
    kernel.rmmod("heap_story")
    return kernel.memory_reports()


def kinds(reports: tuple[dict[str, Any], ...]) -> list[str]:
    return [report["kind"] for report in reports]


def own_log(kernel: Kernel) -> list[str]:
    return [record.text for record in kernel.dmesg() if record.text.startswith("kobox: ") and record.level == 3]


def lines_of(trace: list[dict[str, Any]], source: Path) -> list[str]:
    """The source texts of a trace's frames in that file."""
    texts = source.read_text().splitlines()
    places = [
        frame["source"] for frame in trace if frame["source"] and frame["source"].split(":")[0].endswith(source.name)
    ]
    return [texts[int(place.rpartition(":")[2]) - 1].strip() for place in places]


# -- leaks ------------------------------------------------------------------------------------------------------------


def test_a_leak_is_told_with_the_line_that_allocated_it(linux: Kernel, built: Path) -> None:
    linux.insmod(built / "leak.ko", blocks=3)
    assert linux.leaks() == ()
    linux.rmmod("leak")
    leaks = linux.leaks()
    assert [leak["size"] for leak in leaks] == [100, 200, 300]
    assert {leak["module"] for leak in leaks} == {"leak"}
    assert lines_of(leaks[0]["trace"], ROOT / "examples/leak.c") == ["lost = kzalloc(100 * (i + 1), GFP_KERNEL);"]
    assert leaks[0]["trace"][0]["symbol"].startswith("leak_init+")
    assert leaks[0]["trace"][1]["symbol"].startswith("do_one_initcall+")
    assert [line.partition(" at ")[0] for line in own_log(linux)] == [
        f"kobox: leak: {size} bytes" for size in (100, 200, 300)
    ]


def test_a_failed_init_that_frees_nothing_leaks(linux: Kernel, built: Path) -> None:
    with pytest.raises(Errno):
        linux.insmod(built / "heap_story.ko", story="failing")
    assert [leak["size"] for leak in linux.leaks()] == [10]


def test_vmalloc_leaks_too(linux: Kernel, built: Path) -> None:
    assert kinds(told(linux, built, "vmalloc_leak")) == ["leak"]
    assert [leak["pool"] for leak in linux.leaks()] == ["vmalloc"]


# -- what modules do right --------------------------------------------------------------------------------------------


def test_every_kind_of_allocation_can_be_used_to_its_last_byte(linux: Kernel, built: Path) -> None:
    assert told(linux, built, "clean") == ()
    assert "heap_story: 0 wrong" in [record.text for record in linux.dmesg()]
    assert linux.leaks() == ()
    assert own_log(linux) == []


@pytest.mark.parametrize("name", ["list", "slab", "kthread", "rcu_list", "completion", "netdev"])
def test_examples_without_mistakes_are_not_reported(linux: Kernel, name: str) -> None:
    module = prebuilt(linux, name)
    linux.sleep(0.1)
    linux.rmmod(module.name)
    assert linux.memory_reports() == ()
    assert linux.leaks() == ()


@pytest.mark.parametrize("name", ["ext4", "squashfs", "bonding", "loop", "zram"])
def test_modules_of_the_distribution_are_not_reported(linux: Kernel, name: str) -> None:
    assert linux.modules_folder is not None
    finder = Finder(linux.modules_folder, [], linux.modules_folder)
    path = finder.find(name)
    loaded = [linux.insmod(file).name for file in [*finder.in_order(kobox.ko.read_module(path)), path]]
    linux.sleep(0.05)
    for module in reversed(loaded):
        linux.rmmod(module)
    assert linux.memory_reports() == ()
    assert linux.leaks() == ()


def test_an_allocation_in_place_of_a_return_is_the_modules(linux: Kernel, built: Path) -> None:
    linux.insmod(built / "heap_story.ko", story="many")
    assert linux.call("heap_story_make")  # ends in a jump to the allocator: that returns to whoever called
    linux.rmmod("heap_story")
    assert [(leak["size"], leak["module"]) for leak in linux.leaks()] == [(77, "heap_story")]


def test_what_kfree_rcu_will_free_is_no_leak(linux: Kernel, built: Path) -> None:
    assert told(linux, built, "rcu") == ()
    assert linux.leaks() == ()
    (object_,) = linux.heap.state.objects.values()
    linux.sleep(15)  # the kernel gathers what it frees so, and does it later
    assert object_.address not in linux.heap.state.objects


def test_a_cache_with_readers_under_rcu_keeps_the_content_of_free_objects(linux: Kernel, built: Path) -> None:
    assert told(linux, built, "typesafe") == ()
    assert "heap_story: still 11" in [record.text for record in linux.dmesg()]


# -- what modules do wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 33, 64, 100, 4096])
def test_one_byte_too_many_is_found_when_the_object_is_freed(linux: Kernel, size: int) -> None:
    prebuilt(linux, "hostile/overrun", size=size)
    (report,) = linux.memory_reports()
    assert (report["kind"], report["size"], report["offset"], report["count"]) == ("overrun", size, size, 1)
    assert report["allocated"][0]["symbol"].startswith("overrun_init+")
    assert report["found"][0]["symbol"].startswith("overrun_init+")
    (line,) = own_log(linux)
    assert f"1 byte written at offset {size} of {size} bytes" in line


def test_freeing_twice_is_told_with_all_three_places(linux: Kernel) -> None:
    prebuilt(linux, "hostile/double_free")
    (report,) = linux.memory_reports()
    assert report["kind"] == "double-free"
    assert all(report[what][0]["symbol"].startswith("double_free_init+") for what in ("allocated", "freed", "found"))
    assert linux.modules[0].state == "live"


def test_freeing_the_middle_of_an_object_is_refused(linux: Kernel) -> None:
    prebuilt(linux, "hostile/double_free", what="middle")
    (report,) = linux.memory_reports()
    assert (report["kind"], report["size"], report["offset"]) == ("invalid-free", 64, 8)


def test_reading_after_freeing_gives_poison(linux: Kernel) -> None:
    prebuilt(linux, "hostile/use_after_free")
    assert f"use_after_free: {0x6B6B6B6B6B6B6B6B} nights" in [record.text for record in linux.dmesg()]


def test_writing_after_freeing_is_found_at_the_latest_at_unload(linux: Kernel) -> None:
    prebuilt(linux, "hostile/use_after_free", writing=1)
    linux.rmmod("use_after_free")
    (report,) = linux.memory_reports()
    assert (report["kind"], report["offset"], report["count"]) == ("write-after-free", 8, 8)
    assert report["freed"]


def test_objects_that_the_kernel_freed_are_kept_poisoned_too(linux: Kernel) -> None:
    prebuilt(linux, "hostile/use_after_rcu")
    assert "use_after_rcu: long after it: 0x6b6b6b6b6b6b6b6b" in [record.text for record in linux.dmesg()]


def test_freeing_what_kfree_rcu_has_freed_is_a_double_free(linux: Kernel, built: Path) -> None:
    (report,) = told(linux, built, "rcu_twice")
    assert report["kind"] == "double-free"
    assert lines_of(report["freed"], ROOT / "tests/data/heap_story.c") == ["kfree_rcu(leaf, rcu);"]


def test_an_overrun_in_a_slab_cache_is_found(linux: Kernel, built: Path) -> None:
    (report,) = told(linux, built, "cache_overrun")
    assert (report["kind"], report["size"], report["offset"]) == ("overrun", 40, 43)


def test_a_write_to_a_freed_object_of_a_cache_is_found_when_the_cache_is_destroyed(linux: Kernel, built: Path) -> None:
    (report,) = told(linux, built, "cache_use_after_free")
    assert (report["kind"], report["offset"]) == ("write-after-free", 5)


def test_the_old_place_of_a_reallocated_object_is_freed_memory(linux: Kernel, built: Path) -> None:
    (report,) = told(linux, built, "stale_after_krealloc")
    assert (report["kind"], report["size"], report["offset"]) == ("write-after-free", 24, 3)


def test_memory_that_a_timer_frees_is_checked_too(linux: Kernel, built: Path) -> None:
    (report,) = told(linux, built, "timer")
    assert (report["kind"], report["size"], report["offset"]) == ("write-after-free", 20, 7)
    assert report["freed"][0]["symbol"].startswith("give_up+")


def test_an_overrun_of_vmalloc_memory_is_found_inside_its_last_page(linux: Kernel, built: Path) -> None:
    (report,) = told(linux, built, "vmalloc_overrun")
    assert (report["kind"], report["offset"]) == ("overrun", 5000)


# -- the checker itself -----------------------------------------------------------------------------------------------


def test_quarantine_is_bounded_and_everything_goes_back_in_the_end(linux: Kernel, built: Path) -> None:
    assert told(linux, built, "many") == ()
    state = linux.heap.state
    assert not state.objects
    assert not any(state.quarantine.values())
    assert (state.held, state.pages) == (0, {})


def test_a_reset_forgets_everything_and_the_next_module_is_checked_again(linux: Kernel, built: Path) -> None:
    for _ in range(2):
        linux.insmod(built / "leak.ko", blocks=1)
        linux.rmmod("leak")
        assert len(linux.leaks()) == 1
        linux.reset()
        assert linux.leaks() == ()
        assert linux.memory_reports() == ()


def test_a_checkpoint_keeps_what_is_tracked(debian_root: Path, built: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        kernel.insmod(built / "leak.ko", blocks=2)
        kernel.checkpoint()
        for _ in range(2):
            kernel.rmmod("leak")
            assert [leak["size"] for leak in kernel.leaks()] == [100, 200]
            kernel.insmod(built / "heap_story.ko", story="many")
            kernel.reset()
            assert kernel.leaks() == ()
            assert len(kernel.heap.state.objects) == 3


def test_a_module_that_allocates_nothing_changes_nothing(linux: Kernel) -> None:
    entry = linux.guest.symbol("kfree")
    before = linux.guest.read(entry, 32)
    prebuilt(linux, "hello")
    assert linux.guest.read(entry, 32) == before
    prebuilt(linux, "list")
    assert linux.guest.read(entry, 32) != before


def test_without_the_checker_modules_get_the_kernels_own_functions(debian_root: Path) -> None:
    with kobox.boot(debian_root, check_memory=False) as kernel:
        before = kernel.guest.read(kernel.guest.symbol("kfree"), 32)
        prebuilt(kernel, "leak")
        kernel.rmmod("leak")
        assert kernel.leaks() == ()
        assert kernel.guest.read(kernel.guest.symbol("kfree"), 32) == before


@pytest.mark.parametrize("size", [1, 8, 96, 100, 192, 193, 2048, 8192, 8193, 20000, 70000])
def test_the_sizes_of_buckets_are_the_kernels(linux: Kernel, size: int) -> None:
    address = linux.call(linux.guest.first_symbol("__kmalloc", "__kmalloc_noprof"), size, 0xCC0)
    assert linux.call("ksize", address) == bucket(size)
    assert bucket(room(size)) - size >= 8
