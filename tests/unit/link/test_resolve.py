"""Every kind of symbol gets its address, and every failure is told."""

from __future__ import annotations

import errno

import pytest

from builders import ALLOC, COMMON, WRITE, KoBuilder
from kobox.link.findings import LogLine
from kobox.link.resolve import MISSING, Resolution, symbol_name, symbol_table, undefined
from linking import PERCPU, Chain, chain

U64 = (1 << 64) - 1


def hello() -> KoBuilder:
    return KoBuilder("hello").module().text(bytes(16))


def address(done: Chain, name: str) -> int:
    table = symbol_table(done.view)
    number = next(n for n in range(len(table)) if symbol_name(done.view, table, n) == name)
    return done.symbols.address(number)


def test_a_symbol_of_a_section_moves_with_it() -> None:
    done = chain(hello().symbol("here", ".text", 4).symbol("there", ".init.text", 2))
    assert address(done, "here") == done.address_of(".text") + 4
    assert address(done, "there") == done.address_of(".init.text") + 2


def test_absolute_and_livepatch_symbols_keep_their_value() -> None:
    done = chain(hello().symbol("absolute", 0xFFF1, 77).symbol(".klp.sym.vmlinux.x,0", 0xFF20, 5))
    assert (address(done, "absolute"), address(done, ".klp.sym.vmlinux.x,0")) == (77, 5)
    assert done.symbols.error == 0


def test_per_cpu_symbols_count_from_the_per_cpu_base() -> None:
    module = hello().section(".data..percpu", bytes(16), flags=ALLOC | WRITE).symbol("mine", ".data..percpu", 8)
    assert address(chain(module), "mine") == PERCPU + 8


def test_undefined_symbols_are_asked_for_in_order_and_bound() -> None:
    module = hello().undefined("second").undefined("first")
    done = chain(module, {"first": 0xFFFFFFFF81000000, "second": 16})
    assert undefined(done.view) == ["second", "first"]
    assert address(done, "first") == 0xFFFFFFFF81000000
    assert done.symbols.bound["second"] == Resolution(True, 16, "kernel")


def test_every_missing_symbol_is_told() -> None:
    done = chain(hello().undefined("a").undefined("b").undefined("c"), {"b": 1})
    assert done.symbols.error == errno.ENOENT
    assert done.symbols.unresolved == ("a", "c")
    assert done.symbols.findings == (
        LogLine(4, "hello: Unknown symbol a (err -2)"),
        LogLine(4, "hello: Unknown symbol c (err -2)"),
    )


@pytest.mark.parametrize("name", ["weak", "_GLOBAL_OFFSET_TABLE_"])
def test_a_weak_symbol_may_be_missing_and_so_may_the_offset_table(name: str) -> None:
    done = chain(hello().undefined(name, weak=name == "weak"))
    assert (done.symbols.error, address(done, name)) == (0, 0)


def test_a_weak_symbol_that_is_there_but_refused_is_a_failure() -> None:
    refused = Resolution(True, 0, "kernel", errno.EINVAL)
    done = chain(hello().undefined("weak", weak=True), resolve=lambda name: refused)
    assert [line.text for line in done.symbols.findings if isinstance(line, LogLine)] == [
        "hello: Unknown symbol weak (err -22)"
    ]


def test_the_last_failure_is_the_answer() -> None:
    answers = {"a": Resolution(True, 0, "kernel", errno.EINVAL), "b": MISSING}
    assert chain(hello().undefined("a").undefined("b"), resolve=answers.__getitem__).symbols.error == errno.ENOENT
    assert chain(hello().undefined("b").undefined("a"), resolve=answers.__getitem__).symbols.error == errno.EINVAL


def test_what_the_resolver_says_comes_before_the_complaint() -> None:
    said = LogLine(3, "reason")
    done = chain(hello().undefined("a"), resolve=lambda name: Resolution(True, 0, "x", errno.EINVAL, (said,)))
    assert done.symbols.findings[0] == said


def test_common_symbols_are_refused_except_those_of_link_time_optimisation() -> None:
    done = chain(hello().symbol("shared", COMMON, 8))
    assert done.symbols.error == errno.ENOEXEC
    assert done.symbols.findings == (LogLine(4, "hello: please compile with -fno-common"),)
    assert chain(hello().symbol("__gnu_lto_v1", COMMON, 1)).symbols.error == 0


def test_a_section_number_that_does_not_exist_is_refused() -> None:
    module = hello().symbol("lost", 2000)
    done = chain(module)
    last = done.view.header.e_shnum - 1
    assert done.symbols.findings == (LogLine(3, f"hello: Symbol lost has an invalid section index 2000 (max {last})"),)


def test_values_wrap_around_64_bits() -> None:
    assert address(chain(hello().symbol("huge", ".text", U64)), "huge") == chain(hello()).address_of(".text") - 1
