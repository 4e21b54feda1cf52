"""Symbols by name and by address from mapped tables."""

from __future__ import annotations

from array import array

import pytest

from kobox.image.kallsyms import Kallsyms
from kobox.image.symbols import Symbol, Symbols, symbol_tables

ROWS = [
    ("percpu", 0x40, "A"),
    ("_text", 0x1000, "T"),
    ("alias", 0x1000, "t"),
    ("twice", 0x1010, "t"),
    ("__start_a", 0x1030, "D"),
    ("twice", 0x1040, "t"),
    ("__start_b", 0x1048, "D"),
    ("_end", 0x2000, "B"),
]


@pytest.fixture(scope="module")
def symbols() -> Symbols:
    names, addresses, types = zip(*ROWS, strict=True)
    table = Kallsyms([name.encode() for name in names], "".join(types).encode(), array("Q", addresses))
    return Symbols({key: memoryview(value).cast("B") for key, value in symbol_tables(table).items()})


def test_a_name_gives_its_address(symbols: Symbols) -> None:
    assert symbols["_text"] == 0x1000
    assert symbols.get("missing") is None
    assert "alias" in symbols
    assert "alia" not in symbols


def test_an_unknown_name_is_a_key_error(symbols: Symbols) -> None:
    with pytest.raises(KeyError, match="missing"):
        symbols["missing"]


def test_a_name_of_several_symbols_gives_all_their_addresses(symbols: Symbols) -> None:
    assert symbols["twice"] == 0x1010
    assert symbols.all("twice") == (0x1010, 0x1040)
    assert symbols.all("missing") == ()


def test_an_address_is_located_as_the_kernel_prints_it(symbols: Symbols) -> None:
    assert str(symbols.at(0x1015)) == "twice+0x5/0x20"
    assert str(symbols.at(0x50)) == "percpu+0x10/0xfc0"


def test_of_several_symbols_at_an_address_the_first_is_named(symbols: Symbols) -> None:
    assert str(symbols.at(0x1000)) == "_text+0x0/0x10"
    assert symbols.exactly_at(0x1000) == ("_text", "alias")
    assert symbols.exactly_at(0x1001) == ()


def test_outside_the_kernel_nothing_is_located(symbols: Symbols) -> None:
    assert symbols.at(0x3F) is None
    assert symbols.at(0x2000) is None
    assert symbols.at(0xFFFFFFFFFFFFFFFF) is None


def test_iteration_is_in_address_order(symbols: Symbols) -> None:
    assert list(symbols) == [name for name, _, _ in ROWS]
    assert [(symbol.name, symbol.address, symbol.type) for symbol in symbols.records()] == ROWS
    assert len(symbols) == len(ROWS)


def test_a_record_has_type_and_size(symbols: Symbols) -> None:
    assert symbols.symbol("alias") == Symbol("alias", 0x1000, "t", 0x10)
    assert symbols.symbol("_end") == Symbol("_end", 0x2000, "B", 0)
    assert symbols.symbol("missing") is None


def test_names_are_found_by_their_beginning(symbols: Symbols) -> None:
    assert [symbol.name for symbol in symbols.prefixed("__start_")] == ["__start_a", "__start_b"]
    assert [symbol.name for symbol in symbols.prefixed("per")] == ["percpu"]
