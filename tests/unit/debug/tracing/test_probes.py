"""Probes: what is written to ``kprobe_events`` for a prototype in BTF."""

from __future__ import annotations

import pytest

from image_builders import BtfBuilder
from kobox.debug.tracing.probes import Probe
from kobox.debug.tracing.records import Options
from kobox.errors import UsageError
from kobox.image.btf import Btf


def lines(types: BtfBuilder, probe: str = "f") -> tuple[str, str]:
    return Probe.parse(probe).lines(Btf(types.build()).func("f"))


def test_arguments_have_their_names_registers_and_widths() -> None:
    types = BtfBuilder()
    number, byte = types.int("int", 4, signed=True), types.int("unsigned char", 1)
    pointer = types.ptr(types.struct("file", 8, []))
    flavour = types.enum("flavour", {"SWEET": 0})
    types.func("f", types.proto(number, [("file", pointer), ("count", number), ("mask", byte), ("kind", flavour)]))
    entry, leave = lines(types)
    assert entry == "p:kobox/f f file=%di:x64 count=%si:s32 mask=%dx:u8 kind=%cx:u32"
    assert leave == "r:kobox/f_ret f ret=$retval:s32"


def test_constant_text_is_read_as_text_and_a_buffer_is_not() -> None:
    types = BtfBuilder()
    char = types.int("char", 1, signed=True)
    text, buffer = types.ptr(types.refer(10, char)), types.ptr(char)
    types.func("f", types.proto(text, [("name", text), ("into", buffer)]))
    entry, leave = lines(types)
    assert entry == "p:kobox/f f name=+0(%di):string into=%si:x64"
    assert leave == "r:kobox/f_ret f ret=+0($retval):string"


def test_the_seventh_argument_is_on_the_stack() -> None:
    types = BtfBuilder()
    number = types.int("long", 8, signed=True)
    types.func("f", types.proto(0, [(f"a{index}", number) for index in range(8)]))
    entry, leave = lines(types)
    assert entry.endswith("a5=%r9:s64 a6=$stack1:s64 a7=$stack2:s64")
    assert leave == "r:kobox/f_ret f", "void"


def test_arguments_behind_a_structure_by_value_cannot_be_told() -> None:
    types = BtfBuilder()
    number = types.int("int", 4, signed=True)
    pair = types.struct("pair", 16, [("a", number, 0), ("b", number, 64)])
    types.func("f", types.proto(0, [("first", number), ("both", pair), ("last", number)]))
    assert lines(types)[0] == "p:kobox/f f first=%di:s32"


def test_without_a_prototype_the_six_registers_are_shown() -> None:
    entry, leave = Probe.parse("demo:f.isra.0").lines(None)
    assert entry.startswith("p:kobox/f_isra_0 demo:f.isra.0 arg1=%di:x64")
    assert entry.endswith("arg6=%r9:x64")
    assert leave == "r:kobox/f_isra_0_ret demo:f.isra.0 ret=$retval:x64"


@pytest.mark.parametrize("text", ["", "a b", "mod:", "f;rm", "a/b:f"])
def test_what_is_no_function_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no function can be called"):
        Probe.parse(text)


@pytest.mark.parametrize("event", ["sched", "a:b:c", "../x:y"])
def test_what_is_no_event_is_refused(event: str) -> None:
    with pytest.raises(UsageError, match="no event can be called"):
        Options(events=(event,))
