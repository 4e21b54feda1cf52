"""A running guest seen from outside: our walk and our text against what the guest's own code prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kobox
from kobox.abi.traps import Trap
from kobox.debug import fault
from kobox.debug.klog import Style, call_trace, kernel_text
from kobox.debug.live import LiveGuest, build_text, style_of
from kobox.debug.parse import parse_log
from kobox.debug.records import Kind, Oops
from kobox.kernel.tasks import TaskDied

WALK_OOPS = Path(__file__).parents[3] / "examples/prebuilt/walk_oops.ko"


@pytest.fixture(scope="module")
def crashed(debian_root: Path) -> Iterator[tuple[list[str], Oops, LiveGuest]]:
    """The log of a crash in a module, what was seen of it from outside, and the kernel after it."""
    with kobox.boot(debian_root) as kernel:
        seen: list[Oops] = []

        def look(vector: int, code: int, address: int) -> bool:
            live = LiveGuest(kernel.guest)
            registers = live.registers()
            where = live.symbolize(registers.ip)
            if vector == Trap.PF and where and where.module and not seen:
                scene = live.scene(die_flags="PREEMPT SMP NOPTI", fault_address=address)
                seen.append(fault.page_fault(scene, registers, address, code))
            return False

        kernel.guest.machine.on_fault = look
        with pytest.raises(TaskDied):
            kernel.insmod(WALK_OOPS)
        yield [record.text for record in kernel.dmesg()], seen[0], LiveGuest(kernel.guest)


@pytest.mark.image
def test_the_trace_is_the_one_the_guest_prints(crashed):
    log, oops, _ = crashed
    start = log.index("Call Trace:")
    assert [line.text for line in call_trace(oops.trace)] == log[start : log.index(" </TASK>", start) + 1]


@pytest.mark.image
def test_the_text_is_the_one_the_guest_prints(crashed):
    log, oops, _ = crashed
    start = next(number for number, text in enumerate(log) if text.startswith("BUG: "))
    ours = [line.text for line in kernel_text(oops)]
    theirs = log[start : start + len(ours)]
    differing = [text.split(":")[0] for text, other in zip(ours, theirs, strict=True) if text != other]
    assert set(differing) <= {"CR2", "FS"}, differing


@pytest.mark.image
def test_the_log_of_the_guest_reads_back_as_the_same_crash(crashed):
    log, oops, _ = crashed
    (read,) = [found for found in parse_log(log) if found.kind is Kind.NULL_DEREFERENCE]
    assert (read.symbol, read.modules, read.banner.taint) == (oops.symbol, oops.modules, oops.banner.taint)


@pytest.mark.image
def test_symbols_of_kernel_and_module_are_found_by_address(crashed):
    _, oops, live = crashed
    assert str(oops.symbol) == "read_on+0x5/0xe [walk_oops]"
    (module,) = live.modules
    assert (module.name, module.flags) == ("walk_oops", "OE+")
    caller = next(frame for frame in oops.frames if frame.symbol and frame.symbol.name == "do_one_initcall")
    assert live.symbolize(caller.address) == caller.symbol
    assert live.symbolize(0x1000) is None


@pytest.mark.image
def test_the_wording_of_the_kernel_is_told_by_its_own_strings(debian_image):
    assert style_of(debian_image) == Style(taint_flags=19)


def test_the_build_text_is_number_and_package():
    banner = (
        "Linux version 6.1.0 (x@y) (gcc (Debian 12.2.0-14) 12.2.0) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"
    )
    assert build_text(banner) == "#1  Debian 6.1.192-2"
    assert build_text("Linux version 6.9.0-test (test@test) #7 SMP") == "#7"
