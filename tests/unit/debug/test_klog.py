"""The kernel's own text of a crash, line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kobox.abi.traps import SIGKILL, SIGSEGV, Trap
from kobox.debug import fault
from kobox.debug.klog import Style, kernel_text
from kobox.debug.records import Banner, LinkedIn, Oops, Registers, SourceLine
from unit.debug.worlds import END, STACK, World, call

WHO = Banner(
    cpu=0,
    pid=99,
    comm="kload",
    taint=12288,
    release="6.1.0-56-amd64",
    version="#1  Debian 6.1.192-2",
    hardware="QEMU PC",
)
ZERO_DUMP = [
    "RDX: 0000000000000000 RSI: 0000000000000000 RDI: 0000000000000000",
    "RBP: 0000000000000000 R08: 0000000000000000 R09: 0000000000000000",
    "R10: 0000000000000000 R11: 0000000000000000 R12: 0000000000000000",
    "R13: 0000000000000000 R14: 0000000000000000 R15: 0000000000000000",
    "FS:  0000000000000000(0000) GS:0000000000000000(0000) knlGS:0000000000000000",
    "CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033",
    "CR2: 0000000000000000 CR3: 0000000000000000 CR4: 0000000000000000",
]


class Crash:
    """A module's init function that faults 0x18 bytes in, called from do_one_initcall."""

    def __init__(self, code: bytes = b"\xc7\x04\x25") -> None:
        self.world = World()
        init = self.world.function("i", call(8), module="oops_null", size=0x1000)
        caller = self.world.function("do_one_initcall", END, size=0x220)
        self.sp = STACK.begin + 0x3000
        self.world.write(self.sp, caller + 0x59)
        self.world.memory[init] = bytes(0x18) + code + bytes(0x40)
        self.regs = Registers(ip=init + 0x18, sp=self.sp, flags=0x246, ax=0x16)
        self.scene = fault.Scene(
            self.world,
            self.world.symbolize,
            WHO,
            modules=(LinkedIn("oops_null", "OE+"),),
            die_flags="PREEMPT SMP NOPTI",
        )


def texts(oops: Oops, style: Style | None = None) -> list[str]:
    return [line.text for line in kernel_text(oops, style)]


def test_a_null_pointer_write_reads_as_the_kernel_prints_it():
    crash = Crash()
    oops = fault.page_fault(crash.scene, crash.regs, 0, 2, walked=(("PGD", 0x1000), ("P4D", 0)))
    lines = kernel_text(oops)
    dump = [
        "RIP: 0010:i+0x18/0x1000 [oops_null]",
        "Code: Unable to access opcode bytes at 0xffffffffbfffffee.",
        f"RSP: 0018:{crash.sp:016x} EFLAGS: 00000246",
        "RAX: 0000000000000016 RBX: 0000000000000000 RCX: 0000000000000000",
        *ZERO_DUMP,
    ]
    assert [line.text for line in lines] == [
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0002) - not-present page",
        "PGD 1000 P4D 0 ",
        "Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "CPU: 0 PID: 99 Comm: kload Tainted: G           OE      6.1.0-56-amd64 #1  Debian 6.1.192-2",
        "Hardware name: QEMU PC",
        *dump,
        "Call Trace:",
        " <TASK>",
        " do_one_initcall+0x59/0x220",
        " </TASK>",
        "Modules linked in: oops_null(OE+)",
        "CR2: 0000000000000000",
        "---[ end trace 0000000000000000 ]---",
        *dump,
    ]
    assert [line.level for line in lines[:6]] == [1, 1, 1, 6, 4, 4]
    assert fault.signal_of(oops) == SIGKILL


def test_an_address_beyond_the_first_page_is_no_null_pointer():
    crash = Crash()
    shown = texts(fault.page_fault(crash.scene, crash.regs, 0x4004D0B9, 0))
    assert shown[0] == "BUG: unable to handle page fault for address: 000000004004d0b9"
    assert shown[1] == "#PF: supervisor read access in kernel mode"


@pytest.mark.parametrize(
    ("code", "access", "why"),
    [
        (0x00, "supervisor read access", "not-present page"),
        (0x03, "supervisor write access", "permissions violation"),
        (0x10, "supervisor instruction fetch", "not-present page"),
        (0x09, "supervisor read access", "reserved bit violation"),
        (0x21, "supervisor read access", "protection keys violation"),
        (0x04, "user read access", "not-present page"),
    ],
)
def test_the_error_code_is_put_into_words(code: int, access: str, why: str):
    crash = Crash()
    shown = texts(fault.page_fault(crash.scene, crash.regs, 0x1000, code))
    assert shown[1:3] == [f"#PF: {access} in kernel mode", f"#PF: error_code(0x{code:04x}) - {why}"]


def test_running_data_is_called_an_exploit_attempt_first():
    crash = Crash()
    shown = kernel_text(fault.page_fault(crash.scene, crash.regs, 0xFFFF888000001000, 0x11, nx_page=True))
    assert shown[0] == (2, "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)")


def test_a_jump_to_null_shows_the_bare_address():
    crash = Crash()
    shown = texts(fault.page_fault(crash.scene, replace(crash.regs, ip=0), 0, 0x10))
    assert "RIP: 0010:0x0" in shown
    assert "Code: Unable to access opcode bytes at 0xffffffffffffffd6." in shown


def test_a_bug_is_cut_here_and_an_invalid_opcode():
    crash = Crash(b"\x0f\x0b")
    oops = fault.bug(crash.scene, crash.regs, SourceLine("/build/bug.c", 4))
    lines = kernel_text(oops)
    assert lines[:3] == [
        (4, "------------[ cut here ]------------"),
        (2, "kernel BUG at /build/bug.c:4!"),
        (4, "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
    ]
    assert not any(line.text.startswith("CR2: 0000000000000000\n") for line in lines)
    assert fault.signal_of(oops) == SIGSEGV


def test_a_warning_has_its_modules_before_the_registers_and_no_summary():
    crash = Crash(b"\x0f\x0b")
    shown = texts(fault.warning(crash.scene, crash.regs, SourceLine("/build/warn.c", 4)))
    assert shown[:4] == [
        "------------[ cut here ]------------",
        "WARNING: CPU: 0 PID: 99 at /build/warn.c:4 i+0x18/0x1000 [oops_null]",
        "Modules linked in: oops_null(OE+)",
        "CPU: 0 PID: 99 Comm: kload Tainted: G           OE      6.1.0-56-amd64 #1  Debian 6.1.192-2",
    ]
    assert shown[-1] == "---[ end trace 0000000000000000 ]---"


def test_a_warning_that_panics_has_no_end_marker():
    crash = Crash(b"\x0f\x0b")
    oops = replace(fault.warning(crash.scene, crash.regs, None), panic="kernel: panic_on_warn set ...")
    assert texts(oops)[-1] == "Kernel panic - not syncing: kernel: panic_on_warn set ..."


def test_a_warning_whose_text_the_guest_printed_is_not_cut_twice():
    crash = Crash(b"\x0f\x0b")
    assert texts(fault.warning(crash.scene, crash.regs, None, cut_here=False))[0] == (
        "WARNING: CPU: 0 PID: 99 at i+0x18/0x1000 [oops_null]"
    )


def test_a_division_by_zero_begins_with_its_name():
    crash = Crash()
    assert texts(fault.trap(crash.scene, crash.regs, Trap.DE))[0] == "divide error: 0000 [#1] PREEMPT SMP NOPTI"


def test_a_protection_fault_works_out_the_non_canonical_address():
    crash = Crash(bytes.fromhex("488b4708"))  # mov 8(%rdi), %rax
    regs = replace(crash.regs, di=0xDEAD000000000100)
    assert texts(fault.trap(crash.scene, regs, Trap.GP))[0] == (
        "general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] PREEMPT SMP NOPTI"
    )


def test_a_protection_fault_at_a_good_address_only_says_maybe():
    crash = Crash(bytes.fromhex("0f2907"))  # movaps %xmm0, (%rdi): misaligned
    regs = replace(crash.regs, di=0xFFFF888000000001)
    assert "maybe for address 0xffff888000000001: 0000" in texts(fault.trap(crash.scene, regs, Trap.GP))[0]


def test_a_protection_fault_with_an_error_code_is_about_a_segment():
    crash = Crash()
    shown = texts(fault.trap(crash.scene, crash.regs, Trap.GP, 0x20))
    assert shown[0] == "segment-related general protection fault: 0020 [#1] PREEMPT SMP NOPTI"


def test_a_stack_overflow_names_the_stack_and_has_no_page_fault_lines():
    crash = Crash()
    oops = fault.page_fault(crash.scene, crash.regs, STACK.begin - 8, 2, guard_of=STACK)
    shown = texts(oops)
    assert shown[0].startswith("BUG: TASK stack guard page was hit at ffffc9000000fff8 (stack is ffffc90000010000..")
    assert shown[1] == "stack guard page: 0000 [#1] PREEMPT SMP NOPTI"
    assert fault.signal_of(oops) == SIGSEGV


def test_a_soft_lockup_names_cpu_task_and_seconds():
    crash = Crash()
    oops = fault.soft_lockup(crash.scene, crash.regs, 26)
    assert texts(oops)[:2] == [
        "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [kload:99]",
        "Modules linked in: oops_null(OE+)",
    ]
    assert fault.signal_of(oops) == 0


def test_the_summary_of_a_later_oops_shows_the_registers_of_the_first():
    crash = Crash()
    first = fault.trap(crash.scene, replace(crash.regs, ax=1), Trap.DE)
    second = fault.trap(replace(crash.scene, number=2), replace(crash.regs, ax=2), Trap.DE)
    shown = [line.text for line in kernel_text(second, None, first)]
    assert [text[:21] for text in shown if text.startswith("RAX")] == ["RAX: 0000000000000002", "RAX: 0000000000000001"]
    assert "[#2]" in shown[0]


def test_readable_code_marks_the_byte_at_rip():
    crash = Crash()
    crash.world.memory[crash.regs.ip - 42] = bytes(range(42)) + b"\xcc" + bytes(30)
    (line,) = {text for text in texts(fault.trap(crash.scene, crash.regs, Trap.DE)) if text.startswith("Code:")}
    assert line.split()[43] == "<cc>"
    assert len(line.split()) == 65


def test_newer_kernels_print_uid_verbose_taint_and_a_prefix():
    has = {b"PID: %d Comm:", b" UID: %u PID: %d Comm:", b"OOT_MODULE\0", b"Oops: %s: %04lx"}
    style = Style.probe(lambda text: text in has, taint_flags=20)
    crash = Crash()
    shown = texts(fault.trap(crash.scene, crash.regs, Trap.DE), style)
    assert shown[:3] == [
        "Oops: divide error: 0000 [#1] PREEMPT SMP NOPTI",
        "CPU: 0 UID: 0 PID: 99 Comm: kload Tainted: G           OE       6.1.0-56-amd64 #1  Debian 6.1.192-2",
        "Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE",
    ]


def test_an_older_kernel_has_none_of_that():
    assert Style.probe(lambda text: text == b"PID: %d Comm:") == Style()


def test_an_untainted_kernel_says_so():
    crash = Crash()
    scene = replace(crash.scene, banner=replace(WHO, taint=0))
    assert "CPU: 0 PID: 99 Comm: kload Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2" in texts(
        fault.trap(scene, crash.regs, Trap.DE)
    )
