"""BTF: types by name, members through everything C can nest, C declarations, and split BTF of modules."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_builders import BtfBuilder
from kobox.errors import BadFile, NotModelled
from kobox.image.btf import Btf, Kind, module_btf


def _numbers() -> tuple[BtfBuilder, int]:
    types = BtfBuilder()
    return types, types.int("int", 4, signed=True)


def test_a_member_has_offset_size_and_type() -> None:
    types, number = _numbers()
    types.struct("pair", 8, [("first", number, 0), ("second", number, 32)])
    member = Btf(types.build()).struct("pair").member("second")
    assert (member.offset, member.size, member.bit_size, member.type.name) == (4, 4, 0, "int")


def test_a_dotted_path_adds_offsets() -> None:
    types, number = _numbers()
    inner = types.struct("inner", 8, [("a", number, 0), ("b", number, 32)])
    types.struct("outer", 16, [("head", inner, 0), ("tail", inner, 64)])
    assert Btf(types.build()).struct("outer").offset_of("tail.b") == 12


def test_members_of_anonymous_structs_and_unions_are_the_outer_ones() -> None:
    types, number = _numbers()
    deep = types.struct("", 8, [("left", number, 0), ("right", number, 32)])
    union = types.struct("", 8, [("whole", number, 0), ("", deep, 0)], union=True)
    types.struct("outer", 16, [("first", number, 0), ("", union, 64)])
    outer = Btf(types.build()).struct("outer")
    assert (outer.offset_of("whole"), outer.offset_of("left"), outer.offset_of("right")) == (8, 8, 12)
    assert [member.name for member in outer.members] == ["first", ""]


def test_array_elements_are_steps_of_a_path() -> None:
    types, number = _numbers()
    inner = types.struct("inner", 8, [("a", number, 0), ("b", number, 32)])
    matrix = types.array(types.array(number, 3), 2)
    types.struct("outer", 100, [("list", types.array(inner, 4), 0), ("matrix", matrix, 512)])
    outer = Btf(types.build()).struct("outer")
    assert outer.offset_of("list[2].b") == 20
    assert outer.offset_of("matrix[1][2]") == 64 + 12 + 8
    assert (outer.member("list").type.count, outer.member("list").size) == (4, 32)
    assert outer.find("list.b") is None
    assert outer.find("list[0][1]") is None


def test_a_bit_field_has_its_first_bit_and_width() -> None:
    types, number = _numbers()
    types.struct("flags", 4, [("on", number, 0, 1), ("mode", number, 1, 3), ("high", number, 17, 5)])
    flags = Btf(types.build()).struct("flags")
    assert [(member.bit_offset, member.bit_size) for member in flags.members] == [(0, 1), (1, 3), (17, 5)]
    assert flags.member("high").offset == 2


def test_a_bit_field_of_the_old_form_is_told_by_its_integer() -> None:
    types = BtfBuilder()
    narrow = types.int("unsigned int", 4, bits=3)
    types.struct("old", 4, [("mode", narrow, 5)], old=True)
    member = Btf(types.build()).struct("old").member("mode")
    assert (member.bit_offset, member.bit_size) == (5, 3)


def test_a_missing_member_names_struct_and_path() -> None:
    types, number = _numbers()
    types.struct("pair", 8, [("first", number, 0)])
    pair = Btf(types.build()).struct("pair")
    assert pair.find("third") is None
    with pytest.raises(NotModelled, match=r"struct pair has no member 'third\.x'"):
        pair.member("third.x")


def test_a_missing_struct_is_not_modelled() -> None:
    types, _ = _numbers()
    btf = Btf(types.build(), name="BTF of 6.9")
    assert btf.find_struct("nothing") is None
    with pytest.raises(NotModelled, match=r"BTF of 6\.9: this kernel has no struct or union 'nothing'"):
        btf.struct("nothing")


def test_typedefs_and_qualifiers_are_stripped() -> None:
    types, number = _numbers()
    types.refer(8, types.refer(10, types.refer(9, number)), "odd_t")
    odd = Btf(types.build()).typedef("odd_t")
    assert odd.strip().name == "int"
    assert odd.size == 4


def test_a_member_of_a_typedef_is_found_through_it() -> None:
    types, number = _numbers()
    plain = types.struct("", 8, [("value", number, 32)])
    types.struct("outer", 8, [("box", types.refer(8, plain, "box_t"), 0)])
    assert Btf(types.build()).struct("outer").offset_of("box.value") == 4


def test_enumerators_have_signed_and_wide_values() -> None:
    types = BtfBuilder()
    types.enum("small", {"MINUS": -1, "TWO": 2}, signed=True)
    types.enum("plain", {"BIG": 0xFFFFFFFF})
    types.enum64("wide", {"HUGE": 1 << 40})
    types.enum64("wide_signed", {"LOW": -(1 << 40)}, signed=True)
    btf = Btf(types.build())
    assert btf.enum("small") == {"MINUS": -1, "TWO": 2}
    assert btf.enum("plain") == {"BIG": 0xFFFFFFFF}
    assert btf.enum("wide") == {"HUGE": 1 << 40}
    assert btf.enum("wide_signed") == {"LOW": -(1 << 40)}


def test_a_constant_is_found_in_anonymous_enums_too() -> None:
    types = BtfBuilder()
    types.enum("", {"HIDDEN": 7, "OTHER": 8})
    btf = Btf(types.build())
    assert btf.constant("HIDDEN") == 7
    assert btf.constant("MISSING") is None


def test_one_name_may_be_a_struct_and_a_typedef() -> None:
    types, number = _numbers()
    types.refer(8, number, "thing")
    types.struct("thing", 4, [("x", number, 0)])
    btf = Btf(types.build())
    assert btf.struct("thing").kind is Kind.STRUCT
    assert btf.typedef("thing").kind is Kind.TYPEDEF
    assert len(list(btf.all("thing"))) == 2


def _declarations() -> list[tuple[str, str]]:
    """What is built, by the C text it must give; the name declared is ``x``."""
    return [
        ("int x", "int"),
        ("const int x", "const"),
        ("int *x", "ptr"),
        ("const int *x", "ptr const"),
        ("int *const x", "const ptr"),
        ("const int *const x", "const ptr const"),
        ("int x[3]", "array"),
        ("int *x[3]", "array ptr"),
        ("int (*x)[3]", "ptr array"),
        ("int x[3][3]", "array array"),
        ("int *(*x)(int a, ...)", "ptr proto ptr"),
        ("int (*x)(int a, ...)", "ptr proto"),
        ("int (**x)(int a, ...)", "ptr ptr proto"),
        ("int (*(*x)(int a, ...))(int a, ...)", "ptr proto ptr proto"),
        ("int (*x[3])(int a, ...)", "array ptr proto"),
        ("volatile int *x", "ptr volatile"),
        ("int *restrict x", "restrict ptr"),
        ("int *x", "ptr tag"),
    ]


@pytest.mark.parametrize(("text", "wrapping"), _declarations())
def test_types_are_written_as_c(text: str, wrapping: str) -> None:
    types, number = _numbers()
    made = number
    makers = {
        "int": lambda inner: inner,
        "ptr": types.ptr,
        "array": lambda inner: types.array(inner, 3),
        "proto": lambda inner: types.proto(inner, [("a", number), ("", 0)]),
        "const": lambda inner: types.refer(10, inner),
        "volatile": lambda inner: types.refer(9, inner),
        "restrict": lambda inner: types.refer(11, inner),
        "tag": lambda inner: types.refer(18, inner, "user"),
    }
    for word in reversed(wrapping.split()):
        made = makers[word](made)
    assert Btf(types.build()).type(made).declare("x") == text


def test_a_function_is_its_prototype() -> None:
    types, number = _numbers()
    file = types.ptr(types.forward("file"))
    types.func("read", types.proto(number, [("file", file), ("count", number)]))
    types.func("stop", types.proto(0, []))
    types.func("print", types.proto(number, [("format", types.ptr(types.refer(10, number))), ("", 0)]))
    btf = Btf(types.build())
    read, stop, printer = btf.func("read"), btf.func("stop"), btf.func("print")
    assert read is not None
    assert [param.name for param in read.params] == ["file", "count"]
    assert read.declare() == "int read(struct file *file, int count)"
    assert stop is not None
    assert stop.declare() == "void stop(void)"
    assert printer is not None
    assert printer.is_variadic
    assert printer.declare() == "int print(const int *format, ...)"


def test_a_data_section_lists_its_variables() -> None:
    types, number = _numbers()
    variable = types.var("counter", number)
    types.datasec(".data..percpu", [(variable, 0x40, 4)])
    section = Btf(types.build()).find(".data..percpu", Kind.DATASEC)
    assert section is not None
    assert [(one.name, one.offset, one.size, one.type.name) for one in section.variables] == [
        ("counter", 0x40, 4, "int")
    ]


def test_integers_tell_sign_width_and_bool() -> None:
    types = BtfBuilder()
    numbers = [types.int("long", 8, signed=True), types.int("u8", 1), types.int("_Bool", 1, boolean=True)]
    found = [Btf(types.build()).type(number) for number in numbers]
    assert [(one.size, one.bits, one.is_signed, one.is_bool) for one in found] == [
        (8, 64, True, False),
        (1, 8, False, False),
        (1, 8, False, True),
    ]


def test_a_modules_types_go_on_after_the_kernels() -> None:
    kernel, number = _numbers()
    task = kernel.struct("task", 8, [("pid", number, 0)])
    module = BtfBuilder(kernel)
    module.struct("mine", 16, [("task", module.ptr(task), 0), ("count", number, 64)])
    base = Btf(kernel.build())
    split = Btf(module.build(), base=base, name="hello.ko")
    mine = split.struct("mine")
    assert mine.offset_of("count") == 8
    assert mine.member("task").type.declare("t") == "struct task *t"
    assert mine.member("task").type.target is base.struct("task")
    assert split.find_struct("task") is base.find_struct("task")
    assert base.find_struct("mine") is None
    assert [one.name for one in split] == ["", "mine"]


def _kernel_and_distilled() -> tuple[Btf, BtfBuilder]:
    """A kernel, and what a module built elsewhere says of the types it uses: names and sizes, other numbers."""
    kernel, number = _numbers()
    kernel.struct("unrelated", 4, [("x", number, 0)])
    kernel.struct("task", 4, [("wrong", number, 0)])
    kernel.struct("task", 8, [("pid", number, 0), ("tgid", number, 32)])
    kernel.struct("file", 4, [("mode", number, 0)])
    kernel.enum("state", {"ON": 0, "OFF": 1})
    distilled = BtfBuilder()
    distilled.struct("task", 8, [])
    distilled.forward("file")
    distilled.int("int", 4, signed=True)
    distilled.struct("gone", 16, [])
    return Btf(kernel.build()), distilled


def test_a_distilled_base_is_answered_by_the_kernels_types() -> None:
    kernel, distilled = _kernel_and_distilled()
    module = BtfBuilder(distilled)
    module.struct("mine", 32, [("task", 1, 0), ("file", module.ptr(2), 64), ("count", 3, 128), ("old", 4, 192)])
    found = module_btf(module.build(), kernel, distilled=distilled.build(), name="hello.ko")
    mine = found.struct("mine")
    assert mine.offset_of("task.tgid") == 4
    assert mine.member("file").type.target.offset_of("mode") == 0
    assert mine.member("count").type is kernel.find("int", Kind.INT)
    assert mine.member("old").size == 16
    assert found.constant("OFF") == 1
    assert found.struct("unrelated") is kernel.struct("unrelated")


def test_without_a_distilled_base_the_kernel_is_the_base() -> None:
    kernel, number = _numbers()
    module = BtfBuilder(kernel)
    module.struct("mine", 4, [("x", number, 0)])
    assert module_btf(module.build(), Btf(kernel.build())).struct("mine").size == 4


def test_two_asks_for_one_type_give_one_object() -> None:
    types, number = _numbers()
    btf = Btf(types.build())
    assert btf.type(number) is btf.type(number)


def test_tables_of_one_serve_another() -> None:
    types, number = _numbers()
    types.struct("pair", 8, [("first", number, 0)])
    data = types.build()
    again = Btf(b"junk" + data, 4, len(data), tables=Btf(data).tables)
    assert again.struct("pair").size == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:10], "too short"),
        (lambda data: b"\0\0" + data[2:], "magic"),
        (lambda data: data[:-4], "reaches behind the end"),
        (lambda data: data[:28] + struct.pack("<I", 31 << 24) + data[32:], "unknown kind"),
        (lambda data: data[:28] + struct.pack("<I", 4 << 24 | 9) + data[32:], "ends inside a type"),
    ],
)
def test_damage_is_one_clear_error(change, message: str) -> None:
    types, _ = _numbers()
    with pytest.raises(BadFile, match=message):
        Btf(change(types.build()))


def test_a_type_number_outside_is_damage() -> None:
    types, _ = _numbers()
    types.ptr(99)
    with pytest.raises(BadFile, match="type number"):
        _ = Btf(types.build()).type(2).target


@pytest.mark.parametrize("kind", [Kind.PTR, Kind.TYPEDEF, Kind.CONST, Kind.TYPE_TAG])
def test_a_type_that_refers_to_itself_is_damage(kind: int) -> None:
    types = BtfBuilder()
    types.refer(kind, 1, "loop")
    one = Btf(types.build()).type(1)
    if kind != Kind.TYPEDEF:
        with pytest.raises(BadFile, match="refers to itself"):
            one.declare("x")
    if kind != Kind.PTR:
        with pytest.raises(BadFile, match="refers to itself"):
            one.strip()


def test_a_struct_inside_itself_is_damage() -> None:
    types = BtfBuilder()
    types.struct("loop", 4, [("", 1, 0)])
    with pytest.raises(BadFile, match="refers to itself"):
        Btf(types.build()).struct("loop").find("x")


@settings(max_examples=200)
@given(st.integers(0, 300), st.integers(0, 255))
def test_a_changed_byte_gives_an_answer_or_an_error_of_kobox(place: int, value: int) -> None:
    types, number = _numbers()
    types.struct("pair", 8, [("first", number, 0), ("second", types.array(number, 2), 32)])
    types.enum("state", {"ON": 0, "OFF": 1})
    data = bytearray(types.build())
    data[place % len(data)] = value
    try:
        btf = Btf(bytes(data))
        for one in btf:
            _ = one.name, one.members, one.enumerators, one.size, one.declare("x"), one.strip()
            one.find("first")
    except (BadFile, NotModelled):
        return
    assert len(btf) > 0
