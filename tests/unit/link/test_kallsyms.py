"""The symbol tables that stay in memory, read back from it."""

from __future__ import annotations

import struct

import pytest

from builders import ALLOC, LOCAL, NOTYPE, OBJECT, WEAK, WRITE, KoBuilder
from kobox.link.kallsyms import SymbolTables, add_kallsyms
from kobox.link.rules import Rules, default_rules
from linking import CORE, INIT, PERCPU, chain


def module() -> KoBuilder:
    built = KoBuilder("hello").module().text(b"\x90\xc3").symbol("code", value=1).data(bytes(8)).rodata(b"r")
    built.symbol("data", ".data", 4).symbol("constant", ".rodata", bind=LOCAL).bss(8).symbol("zero", ".bss")
    built.section(".data..percpu", bytes(8), flags=ALLOC | WRITE).symbol("percpu", ".data..percpu", 4)
    built.section(".debug_info", b"d", flags=0).symbol("debug", ".debug_info").symbol("absolute", 0xFFF1, 5)
    built.symbol("weak_code", bind=WEAK).symbol("weak_data", ".data", bind=WEAK, type=OBJECT)
    return built.undefined("printk").symbol("initial", ".init.text", type=NOTYPE)


def read(memory: bytearray, base: int, tables: SymbolTables) -> dict[str, tuple[str, int]]:
    """Name → (letter, address) as the kernel would find them."""
    found = {}
    for number in range(tables.num_symtab):
        at = tables.symtab - base + 24 * number
        name_at, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", memory, at)
        start = tables.strtab - base + name_at
        name = memory[start : memory.index(0, start)].decode()
        found[name] = (chr(memory[tables.typetab - base + number]), value)
    return found


@pytest.fixture
def tables() -> tuple[dict[str, tuple[str, int]], dict[str, tuple[str, int]], dict[str, int]]:
    done = chain(module(), {"printk": 0xFFFFFFFF81000010})
    bases = {"core": CORE, "init": INIT}
    kept = add_kallsyms(done.view, done.layout, done.memory, bases, done.symbols)
    where = {name: done.address_of(name) for name in (".text", ".data", ".rodata", ".bss", ".init.text")}
    assert kept.mod_kallsyms == INIT + done.layout.kallsyms.mod_kallsyms
    return read(done.memory["init"], INIT, kept.init), read(done.memory["core"], CORE, kept.core), where


def test_before_init_every_symbol_is_known_by_letter_and_address(
    tables: tuple[dict[str, tuple[str, int]], dict[str, tuple[str, int]], dict[str, int]],
) -> None:
    everything, _, where = tables
    assert everything["code"] == ("t", where[".text"] + 1)
    assert everything["data"] == ("d", where[".data"] + 4)
    assert everything["constant"] == ("r", where[".rodata"])
    assert everything["zero"] == ("b", where[".bss"])
    assert everything["percpu"] == ("a", PERCPU + 4)
    assert everything["absolute"] == ("a", 5)
    assert everything["debug"][0] == "n"
    assert everything["weak_code"][0] == "w"
    assert everything["weak_data"][0] == "v"
    assert everything["printk"] == ("U", 0xFFFFFFFF81000010)
    assert everything["initial"] == ("t", where[".init.text"])


def test_after_init_only_core_symbols_are_left_unchanged(
    tables: tuple[dict[str, tuple[str, int]], dict[str, tuple[str, int]], dict[str, int]],
) -> None:
    everything, core, _ = tables
    named = {"code", "data", "constant", "zero", "percpu", "weak_code", "weak_data", "cleanup_module"}
    assert set(core) == {"", *named}
    assert {name: everything[name] for name in core} == core


@pytest.mark.parametrize("memories", [False, True])
def test_the_tables_fit_the_room_that_was_planned(memories: bool) -> None:
    rules: Rules = default_rules()._replace(memories=memories)
    done = chain(module(), {"printk": 1}, rules=rules)
    sizes = {name: len(memory) for name, memory in done.memory.items()}
    bases = {name: 0x10000 * number for number, name in enumerate(done.memory)}
    kept = add_kallsyms(done.view, done.layout, done.memory, bases, done.symbols)
    assert {name: len(memory) for name, memory in done.memory.items()} == sizes
    plan = done.layout.kallsyms
    core = done.memory[plan.core_region]
    assert read(core, bases[plan.core_region], kept.core)["code"][0] == "t"
