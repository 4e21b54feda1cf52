"""Relocations: every type, every edge of its range, and the kernel's refusals."""

from __future__ import annotations

import struct

import pytest

from builders import KoBuilder
from kobox.elf.constants import R_X86_64
from kobox.link.findings import Refusal
from kobox.link.relocate import RECIPES, RelocationRefused
from kobox.link.rules import default_rules
from linking import chain

U64 = (1 << 64) - 1
KERNEL = 0xFFFFFFFF81000000


def hello(code: bytes = bytes(64)) -> KoBuilder:
    return KoBuilder("hello").module().text(code)


def relocated(kind: int, value: int, addend: int = 0, *, offset: int = 3, width: int = 4) -> tuple[bytes, int]:
    """The bytes at the target of one relocation in ``.text``, and the target's address."""
    done = chain(hello().reloc(".text", offset, kind, "target", addend), {"target": value})
    done.relocate()
    return done.bytes_of(".text")[offset : offset + width], done.address_of(".text") + offset


@pytest.mark.parametrize("value", [0, 1, KERNEL, U64, 1 << 63, (1 << 63) - 1])
def test_a_64_bit_absolute_value_is_stored_whole(value: int) -> None:
    assert relocated(R_X86_64.ABS64, value, width=8)[0] == struct.pack("<Q", value)


def test_an_addend_wraps_around_64_bits() -> None:
    assert relocated(R_X86_64.ABS64, U64, 2, width=8)[0] == struct.pack("<Q", 1)
    assert relocated(R_X86_64.ABS64, 0, -1, width=8)[0] == struct.pack("<Q", U64)


@pytest.mark.parametrize("value", [0, (1 << 31) - 1, U64 - (1 << 31) + 1, KERNEL, U64])
def test_a_sign_extended_value_fits_up_to_its_edges(value: int) -> None:
    assert relocated(R_X86_64.ABS32S, value)[0] == struct.pack("<I", value & 0xFFFFFFFF)


@pytest.mark.parametrize("value", [1 << 31, U64 - (1 << 31), 1 << 63])
def test_a_sign_extended_value_past_its_edges_is_an_overflow(value: int) -> None:
    with pytest.raises(RelocationRefused) as caught:
        relocated(R_X86_64.ABS32S, value)
    assert caught.value.name == "ENOEXEC"
    assert [line.text for line in caught.value.log] == [
        f"module: overflow in relocation type 11 val {value:x}",
        "module: `hello' likely not compiled with -mcmodel=kernel",
    ]


@pytest.mark.parametrize("value", [0, 1 << 31, (1 << 32) - 1])
def test_a_zero_extended_value_fits_up_to_its_edges(value: int) -> None:
    assert relocated(R_X86_64.ABS32, value)[0] == struct.pack("<I", value)


@pytest.mark.parametrize("value", [1 << 32, U64])
def test_a_zero_extended_value_past_its_edges_is_an_overflow(value: int) -> None:
    with pytest.raises(RelocationRefused, match=r"R_X86_64_32 at \.text"):
        relocated(R_X86_64.ABS32, value)


@pytest.mark.parametrize("kind", [R_X86_64.PC32, R_X86_64.PLT32])
@pytest.mark.parametrize("distance", [0, -4, (1 << 31) - 1, -(1 << 31)])
def test_a_relative_value_is_the_distance_from_its_place(kind: int, distance: int) -> None:
    _, place = relocated(kind, KERNEL)
    assert relocated(kind, place + distance & U64)[0] == struct.pack("<i", distance)


@pytest.mark.parametrize("distance", [1 << 31, -(1 << 31) - 1, 1 << 40])
def test_a_relative_value_out_of_range_is_cut_off_without_a_word(distance: int) -> None:
    _, place = relocated(R_X86_64.PC32, KERNEL)
    assert relocated(R_X86_64.PC32, place + distance & U64)[0] == struct.pack("<I", distance & 0xFFFFFFFF)


def test_a_64_bit_relative_value_reaches_anywhere() -> None:
    stored, place = relocated(R_X86_64.PC64, 16, width=8)
    assert stored == struct.pack("<Q", 16 - place & U64)


def test_none_writes_nothing_even_over_a_nonzero_target() -> None:
    done = chain(hello(b"\x90" * 16).reloc(".text", 2, R_X86_64.NONE, "target"), {"target": KERNEL})
    done.relocate()
    assert done.bytes_of(".text") == b"\x90" * 16


def test_a_nonzero_target_is_refused_in_the_kernels_words() -> None:
    done = chain(hello(b"\x90" * 16).reloc(".text", 2, R_X86_64.ABS64, "target"), {"target": KERNEL})
    with pytest.raises(RelocationRefused) as caught:
        done.relocate()
    assert [(line.level, line.text) for line in caught.value.log] == [
        (
            3,
            "module: x86/modules: Skipping invalid relocation target, existing value is nonzero for type 1, "
            "loc (____ptrval____), val ffffffff81000000",
        )
    ]
    detail = caught.value.detail
    assert detail is not None
    assert (detail.section, detail.offset, detail.symbol) == (".text", 2, "target")


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_the_second_of_two_overlapping_relocations_is_refused(distance: int) -> None:
    module = hello().reloc(".text", 8, R_X86_64.ABS32S, "a").reloc(".text", 8 + distance, R_X86_64.ABS32S, "b")
    with pytest.raises(RelocationRefused, match=r"existing value|target|b"):
        chain(module, {"a": KERNEL + 0x11111111, "b": KERNEL}).relocate()


def test_relocations_side_by_side_do_not_disturb_each_other() -> None:
    module = hello()
    for number in range(16):
        module.reloc(".text", 4 * number, R_X86_64.ABS32S, "a", number)
    done = chain(module, {"a": 0x1000})
    done.relocate()
    assert struct.unpack("<16I", done.bytes_of(".text")) == tuple(range(0x1000, 0x1010))


def test_mixed_types_in_any_order_come_out_as_each_alone() -> None:
    kinds = [R_X86_64.ABS64, R_X86_64.PC32, R_X86_64.ABS32S, R_X86_64.PLT32, R_X86_64.NONE, R_X86_64.PC64]
    module = hello(bytes(256))
    places = [(16 * number, kind) for number, kind in enumerate(kinds * 2)]
    for offset, kind in reversed(places):
        module.reloc(".text", offset, kind, "target", 7)
    done = chain(module, {"target": KERNEL})
    assert done.relocate().by_type == dict.fromkeys(kinds, 2) | {R_X86_64.ABS64: 4}  # two are this_module's
    text, base = done.bytes_of(".text"), done.address_of(".text")
    for offset, kind in places:
        recipe = RECIPES.get(kind)
        value = KERNEL + 7 - (base + offset if recipe and recipe.relative else 0)
        expected = struct.pack("<Q", value & U64)[: recipe.width if recipe else 0]
        assert text[offset : offset + 16] == expected.ljust(16, b"\0")


def test_an_unknown_type_is_refused_by_its_number() -> None:
    with pytest.raises(RelocationRefused) as caught:
        chain(hello().reloc(".text", 0, 99, "target"), {"target": 0}).relocate()
    assert [line.text for line in caught.value.log] == ["module: hello: Unknown rela relocation: 99"]


def test_a_type_that_only_looks_known_in_its_low_byte_is_unknown() -> None:
    with pytest.raises(RelocationRefused, match="0x101"):
        chain(hello().reloc(".text", 0, 257, "target"), {"target": 0}).relocate()


def test_sections_without_addends_are_not_supported() -> None:
    module = hello().section(".rel.text", bytes(16), type=9, flags=0, info=4)
    module.section(".rel.text2", type=9, flags=0, info=module.index_of(".text"))
    with pytest.raises(RelocationRefused) as caught:
        chain(module).relocate()
    assert [line.text for line in caught.value.log] == ["module hello: REL relocation unsupported"]


def test_relocations_of_sections_that_are_not_loaded_are_left_alone() -> None:
    module = hello().section(".debug_info", bytes(8), flags=0).reloc(".debug_info", 0, 99, "target")
    assert chain(module, {"target": 0}).relocate().sections == 1  # this_module's


def test_a_target_outside_its_section_is_written_where_it_lies_in_the_module() -> None:
    module = hello(bytes(16)).text(bytes(16), ".text.second").reloc(".text", 20, R_X86_64.ABS32S, "a", 5)
    done = chain(module, {"a": 0})
    done.relocate()
    assert done.bytes_of(".text.second")[4:8] == struct.pack("<I", 5)


def test_a_target_outside_the_module_is_a_crash_not_a_write() -> None:
    with pytest.raises(Refusal) as caught:
        chain(hello().reloc(".text", 1 << 40, R_X86_64.ABS32S, "a"), {"a": 0}).relocate()
    assert caught.value.crash


NEWER = default_rules()._replace(memories=True)


def test_newer_kernels_say_it_a_little_differently() -> None:
    done = chain(hello(b"\x90" * 16).reloc(".text", 2, R_X86_64.PC32, "target"), {"target": KERNEL}, rules=NEWER)
    with pytest.raises(RelocationRefused) as caught:
        done.relocate()
    distance = KERNEL - done.address_of(".text") - 2 & U64
    assert [line.text for line in caught.value.log] == [
        "module: x86/modules: Invalid relocation target, existing value is nonzero for type 2, "
        f"loc (____ptrval____), val {distance:x}"
    ]


def test_newer_kernels_see_the_overflow_before_the_nonzero_target() -> None:
    module = hello(b"\x90" * 16).reloc(".text", 2, R_X86_64.ABS32S, "target")
    with pytest.raises(RelocationRefused) as caught:
        chain(module, {"target": 1 << 40}, rules=NEWER).relocate()
    assert caught.value.log[0].text == f"module: overflow in relocation type 11 val {1 << 40:x}"


def test_this_module_points_to_init() -> None:
    done = chain(hello())
    done.relocate()
    pointer = int.from_bytes(done.bytes_of(".gnu.linkonce.this_module")[312:320], "little")
    assert pointer == done.address_of(".init.text")


def test_a_target_in_the_symbol_table_is_not_free_once_symbols_have_addresses() -> None:
    module = hello().symbol("here", ".text", 4).rodata(bytes(8))
    done = chain(module)
    symtab = done.addresses[done.view.index.sym]
    number = next(n for n, value in enumerate(done.symbols.values) if value & U64 == done.address_of(".text") + 4)
    far = symtab + number * 24 + 8 - done.address_of(".rodata")
    with pytest.raises(RelocationRefused) as caught:
        chain(
            hello().symbol("here", ".text", 4).rodata(bytes(8)).reloc(".rodata", far, R_X86_64.ABS64, "here")
        ).relocate()
    assert "existing value is nonzero for type 1" in caught.value.log[0].text
