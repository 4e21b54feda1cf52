"""Parameters: what the kernel is told about them, and what people are."""

from __future__ import annotations

import pytest

from builders import ABS, LOCAL, X86_64_64, KoBuilder
from kobox.errors import BadFile
from kobox.ko import Param, parse_module


def params_of(builder: KoBuilder) -> tuple[Param, ...]:
    return parse_module(builder.build(), "x.ko").params


def test_a_parameter_has_everything_the_file_says_about_it() -> None:
    (param,) = params_of(KoBuilder().param("num", "int", "how many", perm=0o644))
    assert param == Param(
        name="num",
        type="int",
        description="how many",
        perm=0o644,
        ops="param_ops_int",
        level=-1,
        flags=0,
        arg="num",
    )


def test_they_come_in_the_order_of_the_kernels_table() -> None:
    assert [param.name for param in params_of(KoBuilder().param("b").param("a"))] == ["b", "a"]


def test_a_parameter_may_have_no_description() -> None:
    (param,) = params_of(KoBuilder().param("quiet", "bool"))
    assert (param.type, param.description, param.ops) == ("bool", None, "param_ops_bool")


def test_one_that_is_only_described_comes_last_and_has_no_operations() -> None:
    described = KoBuilder().modinfo(parm="ghost:not really there", parmtype="ghost:int").param("real")
    assert [(param.name, param.ops, param.perm) for param in params_of(described)] == [
        ("real", "param_ops_int", 0o644),
        ("ghost", None, None),
    ]


def test_a_description_may_contain_colons_and_the_first_one_counts() -> None:
    builder = KoBuilder().param("mode", "int", "0: off, 1: on").modinfo(parm="mode:later")
    assert params_of(builder)[0].description == "0: off, 1: on"


@pytest.mark.parametrize(
    ("flags", "names", "unsafe"),
    [(0, (), False), (1, ("unsafe",), True), (2, ("hwparam",), False), (0x83, ("unsafe", "hwparam", "0x80"), True)],
)
def test_flags_are_named(flags: int, names: tuple[str, ...], unsafe: bool) -> None:
    (param,) = params_of(KoBuilder().param("p", flags=flags))
    assert (param.flag_names, param.is_unsafe) == (names, unsafe)


def test_operations_of_the_module_itself_are_found_behind_a_section_symbol() -> None:
    builder = KoBuilder().rodata(bytes(64), ".rodata.ops").symbol("my_ops", ".rodata.ops", 32, bind=LOCAL)
    builder.rodata(b"p\0", ".rodata.str").section("__param", bytes(24) + b"\xa4\1\xff\0" + bytes(12), align=8)
    builder.reloc("__param", 0, X86_64_64, ".rodata.str").reloc("__param", 16, X86_64_64, ".rodata.ops", 32)
    (param,) = params_of(builder.reloc("__param", 32, X86_64_64, ".rodata.ops", 8))
    assert (param.name, param.ops, param.arg, param.perm) == ("p", "my_ops", ".rodata.ops+0x8", 0o644)


def test_operations_that_are_missing_are_none() -> None:
    builder = (
        KoBuilder().rodata(b"p\0").section("__param", bytes(40), align=8).reloc("__param", 0, X86_64_64, ".rodata")
    )
    (param,) = params_of(builder)
    assert (param.ops, param.arg, param.perm) == (None, None, 0)


@pytest.mark.parametrize(("bits", "order", "machine"), [(64, ">", 22), (32, "<", 3), (32, ">", 8)])
def test_other_machines_are_read_too(bits: int, order: str, machine: int) -> None:
    here = params_of(KoBuilder().param("a", "int", "x", perm=0o600).param("b", "charp", flags=1))
    builder = KoBuilder(bits=bits, order=order, machine=machine).param("a", "int", "x", perm=0o600)
    assert params_of(builder.param("b", "charp", flags=1)) == here


def test_a_parameter_without_a_name_is_refused() -> None:
    builder = KoBuilder().section("__param", bytes(40), align=8)
    with pytest.raises(BadFile, match=r"x\.ko: __param\+0x0: the name of a parameter has no relocation"):
        params_of(builder)


def test_a_name_that_points_nowhere_is_refused() -> None:
    builder = KoBuilder().section("__param", bytes(40), align=8).symbol("nowhere", ABS, 5)
    with pytest.raises(BadFile, match="a string is expected at 0x5 of section 65521, where the file has no bytes"):
        params_of(builder.reloc("__param", 0, X86_64_64, "nowhere"))


def test_a_part_of_an_entry_at_the_end_is_not_read() -> None:
    assert len(params_of(KoBuilder().param("a").section("__param", bytes(39)))) == 1
