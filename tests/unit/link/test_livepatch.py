"""Relocations of livepatch modules, whose symbols nobody exports."""

from __future__ import annotations

import struct

import pytest

from builders import KoBuilder
from kobox.link.findings import Refusal
from kobox.link.livepatch import Lookup, object_of
from kobox.link.relocate import relocate
from linking import Chain, chain

LIVEPATCH, KLP_FLAG, ABS64 = 0xFF20, 0x00100000, 1
KALLSYMS = {("vmlinux", "one"): [0x1000], ("vmlinux", "two"): [0x2000, 0x3000]}


def patched(symbol: str, *, owner: str = "vmlinux", shndx: int = LIVEPATCH, lookup: Lookup | None = None) -> Chain:
    """A livepatch module with one relocation of ``.data`` against ``symbol``, relocated."""
    module = KoBuilder("patch").module(livepatch="Y").data(bytes(8)).symbol(symbol, shndx)
    number = 1 + sum(name in module._symbols for name in ("init_module", "cleanup_module"))
    row = struct.pack("<QIIq", 0, ABS64, number, 4)
    name = f".klp.rela.{owner}..data"
    module.section(name, row, type=4, flags=KLP_FLAG, info=module.index_of(".data"))
    done = chain(module)
    windows = done.layout.windows(done.view, done.memory)
    find = lookup or (lambda where, what: KALLSYMS.get((where, what), []))
    relocate(done.view, done.layout, done.addresses, windows, done.symbols, livepatch=find)
    return done


@pytest.mark.parametrize(
    ("symbol", "value"),
    [
        (".klp.sym.vmlinux.one,0", 0x1004),
        (".klp.sym.vmlinux.one,1", 0x1004),
        (".klp.sym.vmlinux.two,1", 0x2004),
        (".klp.sym.vmlinux.two,2", 0x3004),
    ],
)
def test_a_symbol_is_found_by_object_name_and_position(symbol: str, value: int) -> None:
    assert patched(symbol).bytes_of(".data") == struct.pack("<Q", value)


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        (".klp.sym.vmlinux.none,0", "symbol 'none' not found in symbol table"),
        (".klp.sym.vmlinux.two,0", "unresolvable ambiguity for symbol 'two' in object '(null)'"),
        (".klp.sym.vmlinux.two,3", "symbol position 3 for symbol 'two' in object 'vmlinux' not found"),
        (".klp.sym.vmlinux.one", "symbol .klp.sym.vmlinux.one has an incorrectly formatted name"),
        ("one", "symbol one has an incorrectly formatted name"),
    ],
)
def test_a_symbol_that_is_not_one_is_refused(symbol: str, text: str) -> None:
    with pytest.raises(Refusal) as caught:
        patched(symbol)
    assert caught.value.name == "EINVAL"
    assert [line.text for line in caught.value.log] == [f"livepatch: {text}"]


def test_a_symbol_must_be_marked() -> None:
    with pytest.raises(Refusal, match="symbol one is not marked as a livepatch symbol"):
        patched("one", shndx=0xFFF1)


def test_sections_for_modules_wait_for_them() -> None:
    assert patched(".klp.sym.ext4.one,0", owner="ext4").bytes_of(".data") == bytes(8)


@pytest.mark.parametrize("name", [".rela.data", ".klp.rela.", ".klp.rela..data"])
def test_a_section_must_name_its_object(name: str) -> None:
    with pytest.raises(Refusal, match="incorrectly formatted name"):
        object_of(name)
    assert object_of(".klp.rela.ext4.text") == "ext4"
