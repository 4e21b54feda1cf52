"""Module code that misbehaves on purpose: it is stopped, reported, and reaches nothing outside the guest.

The misbehaviour that has an example of its own (writes to text, runaway, endless recursion, division by zero …) is held
to a real kernel's answer in ``tests/examples``; here is what only kobox has: stubs, its own pages, limits.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from kobox.box import Kernel
from kobox.errors import GuestError
from kobox.kernel.tasks import KernelDead, TaskDied
from kobox.machine.memory import PAGE_SIZE
from paths import EXAMPLES

pytestmark = pytest.mark.image


def alive(kernel: Kernel) -> bool:
    banner = kernel.guest.symbol("linux_banner")
    return kernel.call("strlen", banner) == len(kernel.guest.read_cstr(banner))


def oops_of(kernel: Kernel) -> list[str]:
    return [record.text for record in kernel.dmesg() if "RIP: 0010:" in record.text or "Oops" in record.text]


def test_a_jump_into_the_middle_of_a_trap_stub_is_a_fault_of_the_guest(kernel: Kernel) -> None:
    area = kernel.guest.machine.area
    for behind, trap in sorted(area.traps.items()):
        if trap.name in kernel.booted.dispatcher.adopted:
            hlt = behind - 1
            break
    with pytest.raises(TaskDied):
        kernel.call(hlt)
    assert any("general protection fault" in record.text for record in kernel.dmesg())
    assert alive(kernel)


def test_jumps_to_the_stubs_of_the_task_room_do_no_harm(kernel: Kernel) -> None:
    tasks = kernel.guest.tasks
    tasks.virtual_limit_ns = 1_000_000_000
    for stub in (tasks._resume, tasks._born, tasks._returned, tasks._frame.return_address):
        with contextlib.suppress(TaskDied):
            kernel.call(stub)
        assert alive(kernel)
        kernel.reset()


def test_guest_page_tables_cannot_name_the_pages_of_kobox(kernel: Kernel) -> None:
    machine = kernel.guest.machine
    pages = machine.pages
    victim = kernel.call("vmalloc", PAGE_SIZE)
    found = pages.walk(victim)
    assert found is not None
    # find the last-level entry of the page, and point it at the first page behind the guest's memory
    table = pages.root
    for shift in (39, 30, 21):
        table = machine.memory.words[(table >> 3) + (victim >> shift & 511)] & 0x000F_FFFF_FFFF_F000
    entry = (table >> 3) + (victim >> 12 & 511)
    machine.memory.words[entry] = machine.memory.words[entry] & ~0x000F_FFFF_FFFF_F000 | machine.ram_size
    machine.cpu.forget_pages()
    found = pages.walk(victim)
    assert found is not None
    assert found[0] == pages.open_bus  # where nothing answers, as on any address without memory
    before = machine.memory.read(machine.ram_size, PAGE_SIZE)
    kernel.call("memset", victim, 0xAA, 8)
    assert kernel.call("memchr_inv", victim, 0xFF, 8) == 0
    assert machine.memory.read(machine.ram_size, PAGE_SIZE) == before
    assert alive(kernel)


def test_a_module_cannot_write_to_the_stubs(kernel: Kernel) -> None:
    area = kernel.guest.machine.area
    stub = area.mailbox_addr + PAGE_SIZE + 64
    before = kernel.guest.read(stub, 64)
    with pytest.raises(TaskDied):
        kernel.call("memset", stub, 0x90, 64)
    assert kernel.guest.read(stub, 64) == before
    assert alive(kernel)


def test_a_halt_with_interrupts_off_ends_the_task_not_the_session(kernel: Kernel) -> None:
    code = kernel.guest.machine.area.code(b"\xfa\xf4\xeb\xfd")  # cli; hlt; jmp back
    kernel.guest.tasks.real_limit = 2
    with pytest.raises(GuestError):
        kernel.call(code)
    kernel.reset()
    assert alive(kernel)


def test_a_thread_that_spins_in_the_kernel_with_interrupts_off_is_stopped_though_no_call_waits_for_it(
    kernel: Kernel,
) -> None:
    code = kernel.guest.machine.area.code(b"\xfa\xeb\xfe")  # cli; jmp to itself
    kernel.guest.tasks.real_limit = 0.5
    name = kernel.guest.machine.area.code(b"deaf\0")
    thread = kernel.call("kthread_create_on_node", code, 0, (1 << 64) - 1, name)
    kernel.call("wake_up_process", thread)
    kernel.sleep(0.1)
    assert [hex(killed.rip) for killed in kernel.guest.tasks.killed] == [hex(code + 1)]
    assert any("invalid opcode" in record.text for record in kernel.dmesg())
    assert alive(kernel)


def test_a_loop_without_end_is_reported_by_the_kernels_own_detector_and_then_stopped(kernel: Kernel) -> None:
    kernel.guest.tasks.real_limit = 3
    with pytest.raises(TaskDied):
        kernel.insmod(EXAMPLES / "hostile" / "spin.ko")
    assert any("soft lockup" in record.text for record in kernel.dmesg())
    assert [kernel.guest.in_kernel_text(killed.rip) for killed in kernel.guest.tasks.killed] == [False]
    assert alive(kernel)


def test_endless_recursion_hits_the_guard_page_and_panics_as_a_real_kernel_does(kernel: Kernel) -> None:
    with pytest.raises(KernelDead):
        kernel.insmod(EXAMPLES / "hostile" / "recurse.ko")
    assert any("stack guard page was hit" in record.text for record in kernel.dmesg())
    with pytest.raises(KernelDead, match="reset"):
        kernel.read("/proc/modules")
    kernel.reset()
    assert alive(kernel)


@pytest.fixture
def heard_sigint() -> Iterator[None]:
    """SIGINT as a terminal's process has it: what a shell starts in the background ignores it from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_sigint")
def test_ctrl_c_ends_a_running_guest_and_leaves_the_kernel_resettable(kernel: Kernel) -> None:
    kernel.guest.tasks.real_limit = 60
    timer = threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        kernel.insmod(EXAMPLES / "hostile" / "spin.ko")
    assert time.monotonic() - start < 30
    kernel.reset()
    assert alive(kernel)
