"""Pasted logs become records: every kind of report, old and new wording, noise in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kobox.abi.traps import Trap
from kobox.debug import fault
from kobox.debug.klog import Style, kernel_text
from kobox.debug.parse import parse_log, parse_symbols
from kobox.debug.records import ControlRegisters, Kind, LinkedIn, Oops, RegsFrame, SourceLine, Symbol
from unit.debug.test_klog import WHO, Crash
from unit.debug.worlds import STACK


def pasted(oops: Oops, style: Style | None = None, prefix: str = "[   12.345678] ") -> str:
    return "\n".join(prefix + line.text for line in kernel_text(oops, style))


def only(text: str) -> Oops:
    (found,) = parse_log(text)
    return found


CRASHES = {
    Kind.NULL_DEREFERENCE: lambda c: fault.page_fault(c.scene, c.regs, 8, 0),
    Kind.PAGE_FAULT: lambda c: fault.page_fault(c.scene, c.regs, 0x4004D0B9, 2),
    Kind.BAD_EXECUTE: lambda c: fault.page_fault(c.scene, replace(c.regs, ip=0), 0, 0x10),
    Kind.GENERAL_PROTECTION: lambda c: fault.trap(c.scene, c.regs, Trap.GP),
    Kind.BUG: lambda c: fault.bug(c.scene, c.regs, SourceLine("/build/hello.c", 4)),
    Kind.WARNING: lambda c: fault.warning(c.scene, c.regs, SourceLine("/build/hello.c", 4)),
    Kind.INVALID_OPCODE: lambda c: fault.trap(c.scene, c.regs, Trap.UD),
    Kind.DIVIDE_ERROR: lambda c: fault.trap(c.scene, c.regs, Trap.DE),
    Kind.INT3: lambda c: fault.trap(c.scene, c.regs, Trap.BP),
    Kind.DOUBLE_FAULT: lambda c: fault.trap(c.scene, c.regs, Trap.DF),
    Kind.STACK_OVERFLOW: lambda c: fault.page_fault(c.scene, c.regs, STACK.begin - 8, 2, guard_of=STACK),
    Kind.SOFT_LOCKUP: lambda c: fault.soft_lockup(c.scene, c.regs, 26),
}
NEW = Style(shows_uid=True, verbose_taint=True, oops_prefix=True)


@pytest.mark.parametrize("style", [Style(), NEW], ids=["6.1", "6.12"])
@pytest.mark.parametrize("kind", CRASHES, ids=lambda kind: kind.value)
def test_what_the_kernel_prints_is_read_back(kind: Kind, style: Style):
    crash = Crash()
    made = CRASHES[kind](crash)
    read = only(pasted(made, style))
    assert read.kind is kind
    assert (read.symbol, read.description, read.number) == (made.symbol, made.description, made.number)
    assert (read.banner.comm, read.banner.pid, read.banner.taint) == ("kload", 99, 12288)
    assert (read.banner.release, read.banner.version) == (WHO.release, WHO.version)
    assert read.registers == replace(made.registers, ip=0)
    assert [frame.symbol for frame in read.frames] == [frame.symbol for frame in made.frames]
    assert read.modules == (LinkedIn("oops_null", "OE+"),)
    assert read.bug_at == made.bug_at


def test_addresses_and_error_codes_are_read():
    crash = Crash()
    read = only(pasted(fault.page_fault(crash.scene, crash.regs, 0x4004D0B9, 2, walked=(("PGD", 0x1067), ("P4D", 0)))))
    assert (read.fault.address, read.fault.error_code) == (0x4004D0B9, 2)
    assert read.fault.walk == (("PGD", 0x1067), ("P4D", 0))


def test_the_printed_text_survives_reading_and_printing_again():
    crash = Crash()
    made = replace(CRASHES[Kind.DIVIDE_ERROR](crash), control=ControlRegisters(fs=5, gs=6, kernel_gs=7, cr2=8, cr3=9))
    lines = [line.text for line in kernel_text(made)]
    again = [line.text for line in kernel_text(only("\n".join(lines)))]
    assert [text for text in again if "Code:" not in text] == [text for text in lines if "Code:" not in text]


def test_two_reports_in_a_log_stay_apart():
    crash = Crash()
    text = pasted(CRASHES[Kind.WARNING](crash)) + "\nnoise\n" + pasted(CRASHES[Kind.NULL_DEREFERENCE](crash))
    assert [found.kind for found in parse_log(text)] == [Kind.WARNING, Kind.NULL_DEREFERENCE]


def test_other_lines_in_between_do_no_harm():
    crash = Crash()
    lines = pasted(CRASHES[Kind.NULL_DEREFERENCE](crash)).splitlines()
    noisy = "\n".join(f"{line}\n[   12.4] usb 1-1: new device" for line in lines)
    assert only(noisy).registers == only("\n".join(lines)).registers


def test_the_text_of_a_warning_is_its_message():
    crash = Crash()
    made = replace(CRASHES[Kind.WARNING](crash), message="refcount_t: underflow; use-after-free.")
    assert only(pasted(made)).message == "refcount_t: underflow; use-after-free."


def test_a_doubtful_frame_stays_doubtful():
    read = only(
        " Call Trace:\n".join(["CPU: 0 PID: 1 Comm: x Not tainted 6.1.0\n", " ? old+0x1/0x2\n real+0x3/0x4 [m]\n"])
    )
    assert [(frame.symbol.name, frame.reliable) for frame in read.frames] == [("old", False), ("real", True)]
    assert read.frames[1].symbol == Symbol("real", 3, 4, "m")


def test_user_registers_at_the_end_of_a_trace_are_a_context_of_their_own():
    crash = Crash()
    lines = pasted(CRASHES[Kind.DIVIDE_ERROR](crash), prefix="").splitlines()
    at = lines.index(" </TASK>")
    user = [
        "RIP: 0033:0x43fa79",
        "Code: 00 00 <48> 3d",
        "RSP: 002b:00007ffc40000000 EFLAGS: 00000246 ORIG_RAX: 0000000000000139",
        *(line for line in lines if line.startswith(("RAX", "RDX", "RBP", "R10", "R13"))),
    ][:8]
    read = only("\n".join([*lines[:at], *user, *lines[at:]]))
    (context,) = [item for item in read.trace if isinstance(item, RegsFrame)]
    assert (context.registers.ip, context.registers.orig_ax, context.registers.cs) == (0x43FA79, 0x139, 0x33)
    assert read.registers.ax == 0x16
    assert read.symbol.name == "i"


def test_a_dump_with_registers_blacked_out_has_none_rather_than_zeros():
    crash = Crash()
    text = pasted(CRASHES[Kind.DIVIDE_ERROR](crash)).replace("RBP: 0000000000000000", "RBP: XXXX")
    assert only(text).registers is None


def test_an_address_that_was_blacked_out_leaves_the_kind():
    read = only("BUG: unable to handle page fault for address: ADDR\nOops: 0002 [#1] PREEMPT SMP\n")
    assert (read.kind, read.fault, read.error_code) == (Kind.PAGE_FAULT, None, 2)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("BUG: unable to handle kernel NULL pointer dereference at 0000000000000008", Kind.NULL_DEREFERENCE),
        ("BUG: unable to handle kernel paging request at ffffc90000400000", Kind.PAGE_FAULT),
        ("kernel tried to execute NX-protected page - exploit attempt? (uid: 0)", Kind.BAD_EXECUTE),
        ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 2", Kind.HARD_LOCKUP),
        ("INFO: task kworker/0:1:77 blocked for more than 120 seconds.", Kind.HUNG_TASK),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU", Kind.RCU_STALL),
        ("BUG: scheduling while atomic: insmod/77/0x00000002", Kind.SCHEDULING_WHILE_ATOMIC),
        ("BUG: sleeping function called from invalid context at mm/slab.h:10", Kind.SLEEPING_IN_ATOMIC),
        ("BUG: KASAN: slab-use-after-free in hello_init+0x20/0x40 [hello]", Kind.SANITIZER),
        ("UBSAN: array-index-out-of-bounds in /src/hello.c:12:3", Kind.SANITIZER),
        ("BUG kmalloc-64 (Tainted: G    OE    ): Poison overwritten", Kind.MEMORY_CORRUPTION),
        ("BUG: Bad page state in process insmod  pfn:12345", Kind.MEMORY_CORRUPTION),
        ("WARNING: possible circular locking dependency detected", Kind.LOCKDEP),
        (
            "BUG: stack guard page was hit at 00000000d2f5a3b1 (stack is 0000000012345678..0000000087654321)",
            Kind.STACK_OVERFLOW,
        ),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs", Kind.PANIC),
        ("WARNING: hello.c:12 at hello_init+0x10/0x20 [hello], CPU#1: insmod/77", Kind.WARNING),
    ],
)
def test_titles_are_recognised(line: str, kind: Kind):
    assert only(f"[    1.000000] {line}").kind is kind


def test_the_newest_wording_of_a_warning_tells_cpu_and_task():
    read = only("WARNING: hello.c:12 at hello_init+0x10/0x20 [hello], CPU#1: insmod/77")
    assert (read.banner.cpu, read.banner.comm, read.banner.pid) == (1, "insmod", 77)
    assert (str(read.bug_at), read.symbol.name) == ("hello.c:12", "hello_init")


def test_a_corrupted_list_is_the_message_of_the_bug_that_follows():
    read = only("list_del corruption. prev->next should be a, but was b\nkernel BUG at lib/list_debug.c:59!\n")
    assert read.kind is Kind.BUG
    assert read.message.startswith("list_del corruption")


def test_the_nx_line_belongs_to_the_fault_that_follows():
    read = only(
        "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)\n"
        "BUG: unable to handle page fault for address: ffff888003000000\n"
        "#PF: error_code(0x0011) - permissions violation\n"
        "Oops: 0011 [#1] SMP\n"
    )
    assert (read.kind, read.fault.nx_page, read.fault.address) == (Kind.BAD_EXECUTE, True, 0xFFFF888003000000)


def test_a_panic_after_an_oops_belongs_to_it():
    crash = Crash()
    made = replace(CRASHES[Kind.DIVIDE_ERROR](crash), panic="Fatal exception in interrupt")
    assert only(pasted(made)).panic == "Fatal exception in interrupt"


def test_a_stack_dump_takes_the_line_before_it_as_its_title():
    read = only("hello: something odd\nCPU: 0 PID: 7 Comm: insmod Not tainted 6.1.0 #1\nCall Trace:\n f+0x1/0x2\n")
    assert (read.kind, read.title) == (Kind.STACK_DUMP, "hello: something odd")


def test_a_frame_may_carry_a_build_id():
    read = only("CPU: 0 PID: 7 Comm: a Not tainted 6.1.0\nCall Trace:\n f+0x1/0x2 [hello 5ee0c3a4b5]\n")
    assert read.frames[0].symbol == Symbol("f", 1, 2, "hello")


def test_the_last_unloaded_module_is_no_module_linked_in():
    read = only("BUG: scheduling while atomic: a/1/0x2\nModules linked in: hello(OE+) ext4 [last unloaded: bye(OE)]\n")
    assert read.modules == (LinkedIn("hello", "OE+"), LinkedIn("ext4", ""))
    assert read.unloaded == "bye(OE)"


def test_code_bytes_keep_their_mark():
    read = only("divide error: 0000 [#1] SMP\nCode: 31 d2 <f7> f9 90\n")
    assert (read.code.data, read.code.ip_offset) == (bytes.fromhex("31d2f7f990"), 2)


def test_unreadable_code_bytes_are_none():
    assert only("divide error: 0000 [#1] SMP\nCode: Unable to access opcode bytes at 0xffff.\n").code.data is None


def test_text_without_any_report_gives_nothing():
    assert parse_log("hello: loading out-of-tree module taints kernel.\nusb 1-1: new device\n") == []


def test_bare_places_are_found_wherever_they_stand():
    (found,) = parse_symbols("see hello_init+0x18/0x40 [hello] and my_fn+0x4")
    assert [frame.symbol for frame in found.frames] == [Symbol("hello_init", 0x18, 0x40, "hello"), Symbol("my_fn", 4)]
    assert parse_symbols("nothing") == []
