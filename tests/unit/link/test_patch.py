"""Code fitted to a CPU: each kind of site before and after, in both shapes of the alternatives table."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from builders import ALLOC, KoBuilder
from kobox.link.code import Code
from kobox.link.patch import (
    Cpu,
    apply_alternatives,
    apply_ibt_endbr,
    apply_paravirt,
    apply_retpolines,
    apply_returns,
    apply_smp_unlock,
    finalize,
    old_nops,
    one_nop,
    optimize_nop_runs,
    optimize_single_nops,
)
from kobox.link.rules import default_rules
from linking import CORE, INIT, chain

TEXT, TABLE, SPARE = 0x100000, 0x200000, 0x100800
THUNKS, RETURN_THUNK, OTHER_THUNK = 0x180000, 0x190000, 0x1A0000
OLD = default_rules()
NEW = OLD._replace(memories=True, sizes={**OLD.sizes, "alt_instr": 14})
EVERY = {THUNKS + 32 * register: register for register in range(16)}


class Bench:
    """A text region with ``before`` at its start, and a table region."""

    def __init__(self, before: bytes, table: bytes = b"") -> None:
        self.text, self.table = bytearray(b"\xcc" * 0x1000), bytearray(table)
        self.text[: len(before)] = before
        self.size = len(before)
        self.code = Code({"text": self.text, "table": self.table}, {"text": TEXT, "table": TABLE})

    @property
    def after(self) -> str:
        return bytes(self.text[: self.size]).hex()

    def sites(self, *addresses: int) -> tuple[Code, int, int]:
        self.table += b"".join(
            struct.pack("<i", address - TABLE - 4 * number) for number, address in enumerate(addresses)
        )
        self.code.memory = {"text": self.text, "table": self.table}
        return self.code, TABLE, len(self.table)


def jump(opcode: int, at: int, target: int) -> bytes:
    return bytes([opcode]) + struct.pack("<i", target - at - 5)


# Returns.


def test_a_return_site_becomes_a_plain_return() -> None:
    bench = Bench(jump(0xE9, TEXT, RETURN_THUNK))
    apply_returns(*bench.sites(TEXT), Cpu(return_thunk=RETURN_THUNK))
    assert bench.after == "c3cccccccc"


def test_a_return_site_goes_to_the_thunk_of_the_mitigation() -> None:
    bench = Bench(jump(0xE9, TEXT, RETURN_THUNK))
    apply_returns(*bench.sites(TEXT), Cpu(rethunk=True, return_thunk=RETURN_THUNK, returns_to=OTHER_THUNK))
    assert bench.after == jump(0xE9, TEXT, OTHER_THUNK).hex()


@pytest.mark.parametrize(("at", "keeps_thunk"), [(0, True), (0x20, False)])
def test_an_its_return_thunk_is_only_needed_in_the_lower_half_of_a_cache_line(at: int, keeps_thunk: bool) -> None:
    bench = Bench(b"\x90" * at + jump(0xE9, TEXT + at, RETURN_THUNK))
    cpu = Cpu(rethunk=True, its_return=True, return_thunk=RETURN_THUNK, returns_to=RETURN_THUNK)
    apply_returns(*bench.sites(TEXT + at), cpu)
    assert (bench.text[at] == 0xE9) is keeps_thunk


def test_a_jump_elsewhere_is_no_return_site() -> None:
    bench = Bench(jump(0xE9, TEXT, 0x123456))
    apply_returns(*bench.sites(TEXT), Cpu(return_thunk=RETURN_THUNK))
    assert bench.after == jump(0xE9, TEXT, 0x123456).hex()
    assert bench.code.patches == []


def test_a_static_call_trampoline_that_returns_is_brought_into_line() -> None:
    bench = Bench(b"\xc3\xcc\xcc\xcc\xcc\x0f\xb9\xcc")
    apply_returns(*bench.sites(TEXT), Cpu(rethunk=True, return_thunk=RETURN_THUNK, returns_to=OTHER_THUNK))
    assert bench.after == jump(0xE9, TEXT, OTHER_THUNK).hex() + "0fb9cc"


# Retpolines.


@pytest.mark.parametrize(
    ("prefix", "opcode", "register", "after"),
    [
        ("", 0xE8, 0, "ffd00f1f00"),
        ("2e", 0xE8, 0, "ffd00f1f4000"),
        ("2e", 0xE8, 11, "41ffd30f1f00"),
        ("", 0xE9, 2, "ffe2cc6690"),
        ("2e", 0xE9, 15, "41ffe7cc6690"),
    ],
)
def test_a_branch_to_a_retpoline_becomes_indirect(prefix: str, opcode: int, register: int, after: str) -> None:
    start = bytes.fromhex(prefix)
    bench = Bench(start + jump(opcode, TEXT + len(start), THUNKS + 32 * register))
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY))
    assert bench.after == after


def test_with_lfence_the_fence_comes_first() -> None:
    bench = Bench(b"\x2e" + jump(0xE8, TEXT + 1, THUNKS))
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY, retpoline=True, retpoline_lfence=True))
    assert bench.after == "0faee8ffd090"


def test_a_conditional_tail_call_jumps_over_an_indirect_jump() -> None:
    bench = Bench(b"\x0f\x84" + struct.pack("<i", THUNKS + 32 * 11 - TEXT - 6))
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY))
    assert bench.after == "750441ffe3cc"


def test_what_would_not_fit_stays() -> None:
    before = jump(0xE8, TEXT, THUNKS + 32 * 8)
    bench = Bench(before)
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY, retpoline_lfence=True))
    assert bench.after == before.hex()


def test_retpolines_stay_where_they_are_the_mitigation() -> None:
    before = jump(0xE8, TEXT, THUNKS)
    bench = Bench(before)
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY, retpoline=True))
    assert bench.after == before.hex()


@pytest.mark.parametrize("retpoline", [True, False])
@pytest.mark.parametrize("code", ["0000000000000000", "e800000000", "90e900000000"])
def test_a_site_without_a_branch_to_a_thunk_is_doubted_whatever_the_mitigation(code: str, retpoline: bool) -> None:
    bench = Bench(bytes.fromhex(code))
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY, retpoline=retpoline))
    assert bench.after == code
    assert len(bench.code.doubts) == 1


@pytest.mark.parametrize("retpoline", [True, False])
def test_a_branch_to_a_thunk_is_not_doubted(retpoline: bool) -> None:
    bench = Bench(jump(0xE8, TEXT, THUNKS))
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY, retpoline=retpoline))
    assert bench.code.doubts == []


def test_an_unsafe_indirect_branch_goes_through_a_thunk_of_its_own() -> None:
    bench = Bench(b"\x2e" + jump(0xE8, TEXT + 1, THUNKS + 32 * 3))
    apply_retpolines(*bench.sites(TEXT), Cpu(thunks=EVERY, its_thunk=lambda register: OTHER_THUNK + register))
    assert bench.after == "2e" + jump(0xE8, TEXT + 1, OTHER_THUNK + 3).hex()


# Alternatives.


def alternatives(
    bench: Bench, *entries: tuple[int, bytes, int], flag: int = 0, rules: object = OLD, cpu: Cpu | None = None
) -> str:
    """Apply entries (offset of the site, replacement, feature) of the site's whole length; the text afterwards."""
    table, at = b"", SPARE
    size = OLD.sizes["alt_instr"] if rules is OLD else NEW.sizes["alt_instr"]
    for number, (site, replacement, feature) in enumerate(entries):
        bench.text[at - TEXT : at - TEXT + len(replacement)] = replacement
        here = TABLE + number * size
        head = struct.pack("<ii", TEXT + site - here, at - here - 4)
        kind = struct.pack("<H", feature | flag << 15) if rules is OLD else struct.pack("<HH", feature, flag)
        table += head + kind + bytes([bench.size - site, len(replacement)])
        at += 0x40
    bench.table += table
    cpu = cpu or Cpu(has=lambda feature: feature == 5)
    apply_alternatives(bench.code, TABLE, len(table), rules, cpu)  # type: ignore[arg-type]
    return bench.after


@pytest.mark.parametrize("rules", [OLD, NEW])
def test_a_replacement_is_taken_when_the_cpu_has_the_feature(rules: object) -> None:
    assert alternatives(Bench(b"\xcc" * 3), (0, b"\x0f\x01\xca", 5), rules=rules) == "0f01ca"


@pytest.mark.parametrize("rules", [OLD, NEW])
def test_without_the_feature_only_the_nops_are_made_long(rules: object) -> None:
    assert alternatives(Bench(b"\x31\xc0\x90\x90\x90"), (0, b"\x0f\x01\xca", 6), rules=rules) == "31c00f1f00"


@pytest.mark.parametrize("rules", [OLD, NEW])
@pytest.mark.parametrize(("feature", "taken"), [(5, False), (6, True)])
def test_a_negated_entry_is_taken_when_the_feature_is_missing(rules: object, feature: int, taken: bool) -> None:
    after = alternatives(Bench(b"\x31\xc0"), (0, b"\x31\xdb", feature), flag=1, rules=rules)
    assert after == ("31db" if taken else "31c0")


@pytest.mark.parametrize("rules", [OLD, NEW])
def test_a_short_replacement_is_filled_with_long_nops(rules: object) -> None:
    assert alternatives(Bench(b"\xcc" * 8), (0, b"\x31\xc0", 5), rules=rules) == "31c0" + "660f1f440000"


@pytest.mark.parametrize("rules", [OLD, NEW])
def test_a_call_in_a_replacement_still_calls_the_same(rules: object) -> None:
    after = alternatives(Bench(b"\xcc" * 5), (0, jump(0xE8, SPARE, OTHER_THUNK), 5), rules=rules)
    assert after == jump(0xE8, TEXT, OTHER_THUNK).hex()


def test_a_jump_forward_and_near_becomes_short() -> None:
    after = alternatives(Bench(b"\xcc" * 5), (0, jump(0xE9, SPARE, TEXT + 100), 5))
    assert after == "eb620f1f00"
    after = alternatives(Bench(b"\xcc" * 5), (0, jump(0xE9, SPARE, TEXT + 100), 5), rules=NEW)
    assert after == "eb62cccccc"


@pytest.mark.parametrize(
    ("target", "short"), [(TEXT + 129, True), (TEXT + 130, False), (TEXT, True), (TEXT - 1, False)]
)
def test_the_older_kernels_range_of_short_jumps(target: int, short: bool) -> None:
    after = alternatives(Bench(b"\xcc" * 5), (0, jump(0xE9, SPARE, target), 5))
    assert after.startswith("eb") is short


@pytest.mark.parametrize(
    ("target", "short"), [(TEXT + 129, True), (TEXT + 130, False), (TEXT - 126, True), (TEXT - 127, False)]
)
def test_the_newer_kernels_range_of_short_jumps(target: int, short: bool) -> None:
    after = alternatives(Bench(b"\xcc" * 5), (0, jump(0xE9, SPARE, target), 5), rules=NEW)
    assert after.startswith("eb") is short


def test_newer_kernels_move_every_distance_that_leads_out() -> None:
    replacement = b"\x48\x8b\x05" + struct.pack("<i", OTHER_THUNK - SPARE - 7) + b"\x74\x00" + b"\x31\xc0"
    after = alternatives(Bench(b"\xcc" * 11), (0, replacement, 5), rules=NEW)
    assert after == "488b05" + struct.pack("<i", OTHER_THUNK - TEXT - 7).hex() + "740031c0"


def test_a_later_entry_for_the_same_site_wins() -> None:
    has_both: Callable[[int], bool] = lambda feature: feature in (5, 6)  # noqa: E731
    after = alternatives(Bench(b"\xcc\xcc"), (0, b"\x31\xc0", 5), (0, b"\x31\xdb", 6), cpu=Cpu(has=has_both))
    assert after == "31db"


def test_a_direct_call_replaces_the_indirect_one_it_stands_for() -> None:
    bench = Bench(b"\xff\x15" + struct.pack("<i", 0x3000 - TEXT - 6))
    cpu = Cpu(has=lambda feature: True, bug_func=0x7000, pointer_at={0x3000: OTHER_THUNK}.__getitem__)
    after = alternatives(bench, (0, jump(0xE8, SPARE, 0x7000), 5), flag=2, rules=NEW, cpu=cpu)
    assert after == jump(0xE8, TEXT, OTHER_THUNK).hex() + "90"


# NOPs.


@pytest.mark.parametrize("length", range(1, 40))
def test_nops_have_the_length_asked_for(length: int) -> None:
    assert len(old_nops(length)) == len(one_nop(length)) == length


def test_a_very_long_nop_is_a_jump() -> None:
    assert one_nop(12).hex() == "eb0a" + "cc" * 10
    assert one_nop(200)[:5].hex() == "e9c3000000"


def test_a_nop_alone_is_left_and_one_inside_an_immediate_too() -> None:
    code = bytes.fromhex("90b8909090909090")
    assert optimize_single_nops(code, 8).hex() == "90b8909090906690"


def test_runs_of_any_nops_join() -> None:
    assert optimize_nop_runs(bytes.fromhex("31c09066900f1f0031db")).hex() == "31c0660f1f44000031db"


def test_a_single_nop_at_the_end_counts_as_done() -> None:
    assert optimize_nop_runs(bytes.fromhex("31c090")).hex() == "31c090"


def test_a_pause_is_no_nop() -> None:
    assert optimize_nop_runs(bytes.fromhex("f3909090")).hex() == "f3906690"


# The rest.


def test_paravirt_calls_become_direct() -> None:
    table = struct.pack("<QBB6x", TEXT, 7, 7) + struct.pack("<QBB6x", TEXT + 7, 8, 7)
    bench = Bench(b"\xff\x14\x25\0\0\0\0" * 2, table)
    functions: dict[int, int | None] = {7: OTHER_THUNK, 8: None}
    apply_paravirt(bench.code, TABLE, len(table), functions.__getitem__)
    assert bench.after == jump(0xE8, TEXT, OTHER_THUNK).hex() + "6690" + "0f1f8000000000"


def test_sealed_functions_lose_their_landing_mark() -> None:
    bench = Bench(b"\xf3\x0f\x1e\xfa\x55\x48\x89\xe5")
    apply_ibt_endbr(*bench.sites(TEXT, TEXT + 4))
    assert bench.after == "660f1f00554889e5"


def test_on_one_cpu_lock_prefixes_go_but_only_in_the_text() -> None:
    bench = Bench(b"\xf0\x48\x0f\xb1\x11\xf0\x90\xf0")
    code, start, size = bench.sites(TEXT, TEXT + 5, TEXT + 6, TEXT + 7)
    apply_smp_unlock(code, start, size, TEXT, TEXT + 7)
    assert bench.after == "3e480fb1113e90f0"
    assert [patch.why for patch in bench.code.patches] == ["lock", "lock"]


def test_a_module_is_patched_through_its_sections() -> None:
    module = KoBuilder("patched").module().text(b"\xe9" + bytes(4), ".text.fn")
    module.section(".return_sites", bytes(4), flags=ALLOC, align=4)
    module.reloc(".text.fn", 1, 4, "__x86_return_thunk", -4).reloc(".return_sites", 0, 2, ".text.fn")
    done = chain(module, {"__x86_return_thunk": 0xFFFFFFFF82000000})
    done.relocate()
    bases = {"core": CORE, "init": INIT}
    cpu = Cpu(return_thunk=0xFFFFFFFF82000000)
    patches = finalize(done.view, done.addresses, done.memory, bases, default_rules(), cpu)
    assert [(patch.address, patch.code.hex(), patch.why) for patch in patches] == [
        (done.address_of(".text.fn"), "c3cccccccc", "return")
    ]
    assert done.bytes_of(".text.fn").hex() == "c3cccccccc"


def test_a_table_that_is_not_loaded_is_doubted() -> None:
    done = chain(KoBuilder("odd").module().text(bytes(8)).section(".return_sites", bytes(4), flags=0))
    doubts: list[str] = []
    bases = {"core": CORE, "init": INIT}
    assert finalize(done.view, done.addresses, done.memory, bases, default_rules(), Cpu(), doubts) == []
    assert doubts == [".return_sites is not loaded"]


@pytest.mark.parametrize(("memories", "everywhere"), [(False, False), (True, True)])
def test_newer_kernels_take_lock_prefixes_out_of_all_code(memories: bool, everywhere: bool) -> None:
    rules = default_rules()._replace(memories=memories)
    module = KoBuilder("patched").module().text(b"\xf0\x90").text(b"\xf0\x90", ".text.unlikely")
    module.section(".smp_locks", bytes(8), flags=ALLOC, align=4)
    module.reloc(".smp_locks", 0, 2, ".text").reloc(".smp_locks", 4, 2, ".text.unlikely")
    done = chain(module, rules=rules)
    done.relocate()
    bases = {
        place.region: address - place.offset
        for place, address in zip(done.layout.places, done.addresses, strict=True)
        if place is not None
    }
    finalize(
        done.view, done.addresses, {name: done.memory[name] for name in bases}, bases, rules, Cpu(uniprocessor=True)
    )
    assert done.bytes_of(".text") == b"\x3e\x90"
    assert (done.bytes_of(".text.unlikely") == b"\x3e\x90") is everywhere
