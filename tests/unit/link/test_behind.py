"""Sections that are not loaded and still pointed to: the kernel's copy of the file has them for as long as it loads."""

from __future__ import annotations

import pytest

from builders import KoBuilder
from kobox.elf.constants import R_X86_64
from kobox.link.behind import left_behind
from linking import Chain, chain

UNLOADED = 0


def odd(name: str = ".odd") -> KoBuilder:
    """A module with a section that is never loaded, and a symbol in it."""
    return KoBuilder("odd").module().text(bytes(16)).section(name, bytes(8), flags=UNLOADED).symbol("lost", name)


def behind(module: KoBuilder) -> list[str]:
    done: Chain = chain(module)
    return [done.view.sections[number].name for number in left_behind(done.view, done.layout)]


def test_an_ordinary_module_leaves_nothing_behind() -> None:
    assert behind(KoBuilder("plain").module().text(bytes(16)).reloc(".text", 0, R_X86_64.ABS64, ".text")) == []


def test_a_symbol_that_no_relocation_takes_needs_no_copy() -> None:
    assert behind(odd()) == []


@pytest.mark.parametrize("name", [".odd", ".comment", ".debug_info"])
def test_a_relocation_of_loaded_memory_needs_the_section_whatever_its_name(name: str) -> None:
    assert behind(odd(name).reloc(".text", 0, R_X86_64.ABS64, "lost")) == [name]


def test_a_relocation_of_a_section_that_is_not_loaded_needs_nothing() -> None:
    module = odd().section(".debug_line", bytes(8), flags=UNLOADED).reloc(".debug_line", 0, R_X86_64.ABS64, "lost")
    assert behind(module) == []


def test_a_table_that_is_found_by_name_is_needed_unless_it_is_empty() -> None:
    table = KoBuilder("odd").module().text(bytes(16))
    assert behind(table.section(".return_sites", bytes(4), flags=UNLOADED)) == [".return_sites"]
    empty = KoBuilder("odd").module().text(bytes(16))
    assert behind(empty.section(".return_sites", b"", flags=UNLOADED)) == []


def test_a_livepatch_keeps_all_its_symbols() -> None:
    module = KoBuilder("patch").module(livepatch="Y").text(bytes(16)).section(".odd", bytes(8), flags=UNLOADED)
    assert ".odd" in behind(module)
