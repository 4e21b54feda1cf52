"""Reports in plain words: the sentence must name what the numbers give away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kobox.abi.traps import Trap
from kobox.debug import fault
from kobox.debug.disasm import with_instructions
from kobox.debug.explain import culprit, explain
from kobox.debug.records import Frame, Kind, Oops, Symbol
from unit.debug.test_klog import Crash
from unit.debug.worlds import STACK

LOAD_8_RDI = bytes.fromhex("488b4708")  # mov 8(%rdi), %rax


def fault_through(pointer: int, code: int = 0) -> Oops:
    """``mov 8(%rdi), %rax`` with a bad pointer in rdi."""
    crash = Crash(LOAD_8_RDI)
    crash.world.memory[crash.regs.ip - 42] = bytes(42) + LOAD_8_RDI + bytes(18)
    regs = replace(crash.regs, di=pointer)
    return with_instructions(fault.page_fault(crash.scene, regs, (pointer + 8) & (1 << 64) - 1, code))


def test_a_null_pointer_names_the_offset():
    assert "read access at offset 0x8 from a NULL pointer" in explain(fault_through(0)).what


@pytest.mark.parametrize(
    ("pointer", "words"),
    [
        ((1 << 64) - 22, "ERR_PTR(-EINVAL)"),
        ((1 << 64) - 517, "ERR_PTR(-EPROBE_DEFER)"),
        (0x6B6B6B6B6B6B6B6B, "already freed"),
        (0x5A5A5A5A5A5A5A5A, "never written"),
        (0xDEAD000000000100, "LIST_POISON1"),
        (0xDEAD000000000122, "LIST_POISON2"),
        (0xCCCCCCCCCCCCCCCC, "freed init memory"),
        (int.from_bytes(b"password", "little"), "'password'"),
    ],
)
def test_a_telling_pointer_value_is_recognised(pointer: int, words: str):
    assert words in explain(fault_through(pointer)).what


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        (0x00007F0012345678, 0, "user-space address"),
        (0xFFFFFFFFC0800000, 0, "module that was unloaded"),
        (0xFFFFC90000500000, 0, "kernel address that is not mapped"),
        (0xFFFFFFFF82000000, 3, "read-only"),
    ],
)
def test_the_region_of_an_address_suggests_a_cause(address: int, code: int, words: str):
    crash = Crash()
    assert words in " ".join(explain(fault.page_fault(crash.scene, crash.regs, address, code)).why)


def test_a_call_through_null_names_the_caller():
    crash = Crash()
    oops = fault.page_fault(crash.scene, replace(crash.regs, ip=0), 0, 0x10)
    assert explain(oops).what == "a function pointer that is NULL was called; the call is in do_one_initcall"


def test_recursion_is_seen_in_the_trace():
    frames = tuple(Frame(None, Symbol("dig", 5, 9, "hello"), reliable=False) for _ in range(40))
    crash = Crash()
    oops = replace(fault.page_fault(crash.scene, crash.regs, STACK.begin - 8, 2, guard_of=STACK), trace=frames)
    assert explain(oops).why == ("recursion: dig (40 times in the trace)",)


def test_a_known_warning_text_is_explained():
    crash = Crash()
    oops = replace(fault.warning(crash.scene, crash.regs, None), message="refcount_t: underflow; use-after-free.")
    assert explain(oops).why == ("an object's reference was dropped once too often",)


def test_a_division_shows_its_instruction():
    crash = Crash()
    crash.world.memory[crash.regs.ip - 42] = bytes(42) + b"\xf7\xf9" + bytes(20)
    assert "idivl" in explain(with_instructions(fault.trap(crash.scene, crash.regs, Trap.DE))).what


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("BUG: KASAN: slab-use-after-free in f+0x1/0x2 [hello]", "used after it had been freed, found by KASAN"),
        (
            "BUG: KFENCE: out-of-bounds read in f+0x1/0x2 [hello]",
            "outside an object or array was reached, found by KFENCE",
        ),
        (
            "UBSAN: array-index-out-of-bounds in /src/hello.c:12:3",
            "outside an object or array was reached, found by UBSAN",
        ),
        ("UBSAN: signed-integer-overflow in /src/hello.c:12:3", "an integer calculation overflowed, found by UBSAN"),
    ],
)
def test_what_a_sanitizer_found_is_said_in_words(title: str, words: str):
    assert words in explain(Oops(Kind.SANITIZER, title)).what


def test_a_panic_says_what_made_it_one():
    oops = Oops(
        Kind.PANIC, "Kernel panic - not syncing: x", message="VFS: Unable to mount root fs on unknown-block(0,0)"
    )
    assert explain(oops).why == ("the root device, its driver or its file system is missing: look at the initramfs",)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_every_kind_has_an_explanation_even_without_any_detail(kind: Kind):
    assert isinstance(explain(Oops(kind, "title")).what, str)


def test_the_culprit_is_where_it_happened_else_the_nearest_module():
    inside = Oops(Kind.BUG, "t", symbol=Symbol("f", 0, 1, "hello"))
    below = Oops(
        Kind.BUG,
        "t",
        symbol=Symbol("kfree", 0),
        trace=(Frame(None, Symbol("stale", 0, 1, "innocent"), False), Frame(None, Symbol("f", 0, 1, "hello"))),
    )
    assert (culprit(inside), culprit(below), culprit(Oops(Kind.BUG, "t"))) == ("hello", "hello", None)
