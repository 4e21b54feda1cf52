"""Stacks of the tasks that work for Python end as those of programs do: unwinders rely on it."""

from __future__ import annotations

from pathlib import Path

import pytest

import kobox
from example_files import example_file
from kobox.kernel.tasks import TaskDied


def sleeper_stack(root: Path) -> list[str]:
    with kobox.boot(root) as kernel:
        kernel.read("/proc/version")
        return kernel.read("/proc/1/stack").decode().splitlines()


def test_a_stack_ends_at_the_entry_of_system_calls(debian_root: Path) -> None:
    assert [line.split()[1].split("+")[0] for line in sleeper_stack(debian_root)] == ["entry_SYSCALL_64_after_hwframe"]


def test_it_does_so_on_the_next_kernel_too(trixie_root: Path) -> None:
    assert sleeper_stack(trixie_root)[-1].split()[1].startswith("entry_SYSCALL_64_after_hwframe+")


def test_an_oops_shows_who_called_and_the_registers_of_a_program(debian_root: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        with pytest.raises(TaskDied):
            kernel.insmod(example_file(kernel.release, "walk_oops"))
        texts = [record.text for record in kernel.dmesg()]
        start = texts.index(" <TASK>")
        trace = texts[start + 1 : texts.index(" </TASK>")]
        kept = [line.strip() for line in trace if not line.startswith(" ?")]
        assert [line.split("+")[0] for line in kept[:3]] == [
            "walk_init", "do_one_initcall", "entry_SYSCALL_64_after_hwframe",
        ]  # fmt: skip
        assert kept[3].startswith("RIP: 0033:")


def test_a_livepatch_is_complete_when_it_is_loaded_since_every_stack_is_reliable(debian_root: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        kernel.insmod(example_file(kernel.release, "exporter"))
        kernel.insmod(example_file(kernel.release, "livepatch"))
        assert kernel.read("/sys/kernel/livepatch/livepatch/transition") == b"0\n"
        assert kernel.call("exporter_add", 2, 3) == 5
        assert "as everybody knows" in kernel.dmesg()[-1].text
        kernel.write("/sys/kernel/livepatch/livepatch/enabled", "0\n")
        kernel.sleep(3)
        assert kernel.call("exporter_add", 2, 3) == 5
        assert "unpatching complete" in kernel.dmesg()[-1].text
