"""Walking stacks: what the unwinder stands at is reliable, what only lies there gets a question mark."""

from __future__ import annotations

from kobox.abi.traps import PT_REGS
from kobox.debug.klog import call_trace
from kobox.debug.orc import OrcEntry, OrcReg, OrcType
from kobox.debug.records import Registers, RegsFrame
from kobox.debug.unwind import Stack, walk
from unit.debug.worlds import END, STACK, World, call, regs_entry


def texts(world: World, start: Registers, interrupted: bool = True) -> list[str]:
    return [line.text for line in call_trace(walk(world, start, world.symbolize, interrupted))]


def test_callers_of_a_fault_are_followed_to_the_end_of_the_stack():
    world = World()
    init = world.function("init", call(24), module="hello")
    middle = world.function("do_one_initcall", call(16))
    top = world.function("kthread", END)
    sp = STACK.begin + 0x3000
    world.write(sp, 1, 2, middle + 0x59, 3, top + 0x22)
    assert texts(world, Registers(ip=init + 0x18, sp=sp)) == [
        "Call Trace:",
        " <TASK>",
        " do_one_initcall+0x59/0x100",
        " kthread+0x22/0x100",
        " </TASK>",
    ]


def test_a_text_address_that_nobody_returns_to_is_marked():
    world = World()
    init = world.function("init", call(24), module="hello")
    stale = world.function("printk", call())
    caller = world.function("do_init_module", END)
    sp = STACK.begin + 0x3000
    world.write(sp, stale + 0x10, 0, caller + 0x4A)
    assert " ? printk+0x10/0x100" in texts(world, Registers(ip=init, sp=sp))


def test_a_call_at_the_very_end_of_a_function_names_the_caller_not_its_neighbour():
    world = World()
    init = world.function("init", call(8), module="hello")
    caller = world.function("ends_in_a_call", END, size=0x20, at=0xFFFFFFFF81100000)
    world.function("neighbour", END, at=0xFFFFFFFF81100020)
    sp = STACK.begin + 0x3000
    world.write(sp, caller + 0x20)
    assert " ends_in_a_call+0x20/0x20" in texts(world, Registers(ip=init, sp=sp))


def test_a_call_through_a_null_pointer_still_has_its_caller():
    world = World()
    caller = world.function("init", END, module="hello")
    sp = STACK.begin + 0x3000
    world.write(sp, caller + 0x21)
    assert " init+0x21/0x100 [hello]" in texts(world, Registers(ip=0, sp=sp))


def test_a_frame_pointer_is_restored_on_the_way_up():
    world = World()
    pushes_bp = OrcEntry(OrcReg.BP, 16, OrcReg.PREV_SP, -16, OrcType.CALL, False)
    inner = world.function("inner", pushes_bp)
    outer = world.function("outer", pushes_bp)
    last = world.function("last", END)
    sp = STACK.begin + 0x2000
    world.write(sp + 0x40, sp + 0x80, outer + 5)
    world.write(sp + 0x80, 0x1234, last + 5)
    assert texts(world, Registers(ip=inner + 1, sp=sp, bp=sp + 0x40))[2:-1] == [
        " outer+0x5/0x100",
        " last+0x5/0x100",
    ]


def test_saved_user_registers_end_the_trace_and_are_printed():
    world = World()
    init = world.function("init", call(8), module="hello")
    entry = world.function("entry_SYSCALL_64_after_hwframe", regs_entry())
    sp = STACK.begin + 0x3000
    world.write(sp, entry + 0x6E)
    world.write_regs(sp + 8, ip=0x43FA79, cs=0x33, sp=0x7FFC0000, ss=0x2B, flags=0x246, orig_ax=0x139, ax=7)
    items = walk(world, Registers(ip=init, sp=sp), world.symbolize)
    saved = [item for item in items if isinstance(item, RegsFrame)]
    assert [(one.registers.ip, one.registers.orig_ax, one.registers.ax) for one in saved] == [(0x43FA79, 0x139, 7)]
    shown = [line.text for line in call_trace(items)]
    assert "RIP: 0033:0x43fa79" in shown
    assert "RSP: 002b:000000007ffc0000 EFLAGS: 00000246 ORIG_RAX: 0000000000000139" in shown


def test_an_interrupted_kernel_context_is_printed_and_followed():
    world = World()
    handler = world.function("handler", call(8))
    stub = world.function("asm_interrupt", regs_entry())
    worker = world.function("worker", call(16), module="hello")
    last = world.function("last", END)
    sp = STACK.begin + 0x1000
    interrupted_sp = sp + 0x400
    world.write(sp, stub + 5)
    world.write_regs(sp + 8, ip=worker + 0x30, cs=0x10, sp=interrupted_sp, ss=0x18)
    world.write(interrupted_sp, 0, last + 9)
    shown = texts(world, Registers(ip=handler, sp=sp))
    assert shown[2] == " asm_interrupt+0x5/0x100"
    assert "RIP: 0010:worker+0x30/0x100 [hello]" in shown
    assert shown[-2] == " last+0x9/0x100"


def test_a_partial_frame_shows_only_what_the_cpu_pushed():
    world = World()
    stub = world.function("early_entry", regs_entry(partial=True))
    worker = world.function("worker", END)
    sp = STACK.begin + 0x1000
    world.write(sp, worker + 4, 0x10, 0x246, sp + 0x100, 0x18)
    items = walk(world, Registers(ip=stub, sp=sp), world.symbolize)
    (saved,) = [item for item in items if isinstance(item, RegsFrame)]
    assert saved.partial
    assert saved.registers.sp == sp + 0x100
    assert not any("RAX" in line.text for line in call_trace([saved]))


def test_code_without_a_table_is_guessed_by_frame_pointer_and_scanned():
    world = World()
    generated = world.function("bpf_prog", None)
    caller = world.function("caller", END)
    sp = STACK.begin + 0x1000
    world.write(sp + 0x10, 0, caller + 7)
    assert texts(world, Registers(ip=generated, sp=sp, bp=sp + 0x10))[2] == " caller+0x7/0x100"


def test_tables_that_lead_back_down_the_stack_do_not_loop():
    world = World()
    crooked = OrcEntry(OrcReg.SP, 0, OrcReg.UNDEFINED, 0, OrcType.CALL, False)
    bad = world.function("crooked", crooked)
    sp = STACK.begin + 0x1000
    world.write(sp - 8, bad)
    world.write(sp, bad + 1)
    assert texts(world, Registers(ip=bad, sp=sp))[2:-1] == [" ? crooked+0x1/0x100"]


def test_a_stack_pointer_in_the_guard_page_scans_the_stack_above_it():
    world = World()
    deep = world.function("deep", call(16), module="hello")
    sp = STACK.begin - 0x10
    world.write(STACK.begin + 0x20, deep + 5)
    assert texts(world, Registers(ip=deep, sp=sp))[2] == " ? deep+0x5/0x100 [hello]"


def test_an_interrupt_stack_goes_on_at_the_task_stack():
    irq = Stack("IRQ", 0xFFFFC90000100000, 0xFFFFC90000104000, next_sp=STACK.begin + 0x2000)
    world = World(stacks=[irq, STACK])
    handler = world.function("handler", OrcEntry(OrcReg.SP_INDIRECT, 8, OrcReg.UNDEFINED, 0, OrcType.CALL, False))
    task = world.function("task", END)
    world.write(irq.begin + 0x100, STACK.begin + 0x2000)
    world.write(STACK.begin + 0x2000, task + 3)
    shown = texts(world, Registers(ip=handler, sp=irq.begin + 0x100))
    assert shown == ["Call Trace:", " <IRQ>", " </IRQ>", " <TASK>", " task+0x3/0x100", " </TASK>"]


def test_a_sleeping_task_begins_with_its_own_return_address():
    world = World()
    schedule = world.function("schedule", call(8))
    kthread = world.function("kthread", END)
    sp = STACK.begin + 0x2000
    world.write(sp - 8, schedule + 0x10, kthread + 0x20)
    shown = texts(world, Registers(ip=schedule + 0x10, sp=sp), interrupted=False)
    assert shown[2:-1] == [" schedule+0x10/0x100", " kthread+0x20/0x100"]


def test_the_register_words_are_those_of_pt_regs():
    assert (PT_REGS.r15, PT_REGS.orig_ax, PT_REGS.ip, PT_REGS.ss) == (0, 15, 16, 20)
