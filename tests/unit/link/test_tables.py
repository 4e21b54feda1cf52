"""A module's tables by field of ``struct module``, and the one that is sorted."""

from __future__ import annotations

import struct

import pytest

from builders import ALLOC, WRITE, KoBuilder
from kobox.link.findings import LogLine, Refusal
from kobox.link.rules import Rules, default_rules
from kobox.link.tables import FIELDS, check_tables, find_tables, sort_extable
from linking import chain

RULES = default_rules()


def test_a_table_has_address_and_count_from_the_kernels_sizes() -> None:
    module = KoBuilder("hello").module().param("one").param("two").export("three", crc=3)
    done = chain(module)
    tables = find_tables(done.view, done.addresses, RULES)
    assert (tables["kp"].address, tables["kp"].entries, tables["kp"].count_field) == (
        done.address_of("__param"),
        2,
        "num_kp",
    )
    assert (tables["syms"].entries, tables["crcs"].count_field) == (1, "")
    assert "gpl_syms" not in tables


def test_a_cut_off_last_entry_does_not_count() -> None:
    done = chain(KoBuilder("hello").module().section("__param", bytes(99), align=8))
    assert find_tables(done.view, done.addresses, RULES)["kp"].entries == 2


def test_a_table_whose_entries_the_kernel_does_not_know_has_no_count() -> None:
    done = chain(KoBuilder("hello").module().section("__dyndbg", bytes(56), align=8))
    assert find_tables(done.view, done.addresses, Rules())["dyndbg_info.descs"].entries is None


def test_a_section_that_is_not_loaded_is_no_table_except_where_the_kernel_does_not_ask() -> None:
    module = KoBuilder("hello").module().section("__param", bytes(40), flags=0).section(".BTF", b"btf", flags=0)
    done = chain(module)
    tables = find_tables(done.view, done.addresses, RULES)
    assert "kp" not in tables
    assert (tables["btf_data"].address, tables["btf_data"].entries) == (0, 3)


def test_only_the_section_of_traced_functions_counts_not_the_compiler_s_list_of_patchable_ones() -> None:
    for name, count in (("__mcount_loc", 2), ("__patchable_function_entries", 0)):
        done = chain(KoBuilder("hello").module().section(name, bytes(16), flags=ALLOC | WRITE, align=8))
        found = find_tables(done.view, done.addresses, RULES).get("ftrace_callsites")
        assert (found.entries if found else 0) == count


def test_two_kinds_of_constructors_are_one_too_many_where_there_are_constructors() -> None:
    both = chain(KoBuilder("hello").module().section(".ctors", bytes(8)).section(".init_array", bytes(8))).view
    with pytest.raises(Refusal, match=r"EINVAL: hello: has both \.ctors and \.init_array\."):
        check_tables(both, constructors=True)
    assert check_tables(both) == ()


def test_parameters_of_long_ago_are_ignored_with_a_word() -> None:
    view = chain(KoBuilder("hello").module().section("__obsparm", bytes(8))).view
    assert check_tables(view) == (LogLine(4, "hello: Ignoring obsolete parameters"),)


def test_no_field_is_listed_twice() -> None:
    pointers = [field.pointer for field in FIELDS]
    assert len(pointers) == len(set(pointers))


def test_the_exception_table_is_sorted_and_still_points_to_the_same_places() -> None:
    wanted = [(0x500, 0x900, 3), (0x100, 0x910, 2), (0x300, 0x920, 1)]
    table = bytearray()
    for insn, fixup, kind in wanted:
        at = len(table)
        table += struct.pack("<iii", insn - at, fixup - at - 4, kind)
    sort_extable(memoryview(table), RULES)
    entries = [
        (insn + 12 * number, fixup + 12 * number + 4, kind)
        for number, (insn, fixup, kind) in enumerate(struct.iter_unpack("<iii", table))
    ]
    assert entries == sorted(wanted)


def test_a_sorted_exception_table_is_not_touched() -> None:
    table = memoryview(struct.pack("<iiiiii", 0, 8, 1, 0, 8, 2))
    sort_extable(table, RULES)  # read-only memory: writing would raise
    assert table.readonly
