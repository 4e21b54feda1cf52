"""Without debug data: the parameter behind a register, and the member behind an offset, by BTF."""

from __future__ import annotations

import pytest

from image_builders import BtfBuilder
from kobox.debug.arguments import argument_in, member_path
from kobox.image.btf import Btf


@pytest.fixture(scope="module")
def types() -> Btf:
    """``int take(struct page *page, int count)`` and the structs it needs."""
    build = BtfBuilder()
    number = build.int("int", 4, signed=True)
    pair = build.struct("pair", 8, [("low", number, 0), ("high", number, 32)])
    anonymous = build.struct("", 8, [("whole", pair, 0), ("first", number, 0)], union=True)
    page = build.struct("page", 40, [("flags", number, 0), ("", anonymous, 64), ("slots", build.array(pair, 3), 128)])
    build.func("take", build.proto(number, [("page", build.ptr(page)), ("count", number)]))
    build.func("six", build.proto(number, [(name, number) for name in "abcdef"]))
    return Btf(build.build())


MOV_RBX_RDI, MOV_EDI_1, XOR_RBX, CALL = "4889fb", "bf01000000", "4831db", "e800000000"


@pytest.mark.parametrize(
    ("register", "code", "index"),
    [
        ("rdi", "", 0),
        ("rsi", "", 1),
        ("rbx", MOV_RBX_RDI, 0),
        ("rdi", CALL, 0),  # the call at the start is ftrace's pad
        ("rbx", MOV_RBX_RDI + CALL, 0),
        ("rdi", "90" + CALL, None),
        ("rdi", MOV_EDI_1, None),
        ("rbx", MOV_RBX_RDI + XOR_RBX, None),
        ("r12", "", None),
        ("rdx", "", None),  # the function has two parameters
    ],
)
def test_a_register_is_followed_from_the_functions_start(types: Btf, register: str, code: str, index: int | None):
    found = argument_in(register, bytes.fromhex(code), types.func("take"))
    assert (found.index if found else None) == index


def test_the_argument_has_its_name_and_what_it_points_to(types: Btf):
    found = argument_in("rdi", b"", types.func("take"))
    assert (found.name, found.type.declare(), found.pointee.name) == ("page", "struct page *", "page")


def test_a_number_points_to_nothing(types: Btf):
    assert argument_in("rsi", b"", types.func("take")).pointee is None


@pytest.mark.parametrize(
    ("offset", "path"),
    [(0, "flags"), (8, "whole.low"), (12, "whole.high"), (28, "slots[1].high"), (6, None), (99, None)],
)
def test_the_member_at_an_offset_is_found_through_what_it_is_nested_in(types: Btf, offset: int, path: str | None):
    found = member_path(types.struct("page"), offset)
    assert (found[0] if found else None) == path


@pytest.mark.parametrize(
    ("register", "code"),
    [
        ("rdi", "bf01000000"),  # mov $1, %edi
        ("rdi", "66bf0100"),  # mov $1, %di
        ("rdi", "40b701"),  # mov $1, %dil
        ("rdx", "b201"),  # mov $1, %dl
        ("rdx", "b601"),  # mov $1, %dh
        ("r8", "41b801000000"),  # mov $1, %r8d
        ("r8", "6641b80100"),  # mov $1, %r8w
        ("r8", "41b001"),  # mov $1, %r8b
    ],
)
def test_writing_a_part_of_a_register_ends_what_it_held(types: Btf, register: str, code: str):
    assert argument_in(register, b"", types.func("six")) is not None
    assert argument_in(register, bytes.fromhex(code), types.func("six")) is None
