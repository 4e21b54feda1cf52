"""Whatever somebody pastes or hands over: a report, nothing, or one clear error; never a traceback."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kobox.debug.dwarf import ModuleDebug, Place
from kobox.debug.parse import parse_log, parse_symbols
from kobox.debug.records import Registers
from kobox.debug.report import as_data, make_report, render
from kobox.debug.unwind import walk
from kobox.elf import parse
from kobox.errors import BadFile
from needs import need_program
from unit.debug.test_klog import Crash
from unit.debug.test_parse import CRASHES, pasted
from unit.debug.worlds import STACK, World, call, regs_entry

LINES = [line for make in CRASHES.values() for line in pasted(make(Crash())).splitlines()]


@given(st.lists(st.one_of(st.sampled_from(LINES), st.text(max_size=60)), max_size=60))
@settings(deadline=None, max_examples=40)
def test_lines_in_any_order_make_reports_that_can_be_shown(lines: list[str]):
    for oops in parse_log("\n".join(lines)):
        report = make_report(oops)
        assert render(report).endswith("\n")
        assert as_data(report)["kind"] == oops.kind.value


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_log_with_damaged_characters_makes_reports_that_can_be_shown(data):
    lines = list(LINES[:60])
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.integers(0, len(lines) - 1))
        cut = data.draw(st.integers(0, len(lines[at])))
        lines[at] = lines[at][:cut] + data.draw(st.text(max_size=6)) + lines[at][cut + 1 :]
    for oops in parse_log(lines):
        assert render(make_report(oops))


@given(st.text())
@settings(deadline=None)
def test_any_text_is_searched_for_places(text: str):
    assert all(frame.symbol for oops in parse_symbols(text) for frame in oops.frames)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> bytes:
    need_program("gcc")
    folder = tmp_path_factory.mktemp("robust")
    (folder / "a.c").write_text(
        "struct s { int a, b; } *v;\nstatic inline int in(struct s *p) { return p->b; }\n"
        "int f(struct s *p, int n) { for (int i = 0; i < n; i++) v += in(p); return v->a; }\n"
    )
    subprocess.run(["gcc", "-g", "-O2", "-c", "a.c"], cwd=folder, check=True)
    return (folder / "a.o").read_bytes()


@given(st.data())
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_debug_data_gives_lines_or_one_error(built: bytes, data):
    whole = bytearray(built)
    elf = parse(built, "a.o")
    sections = [one for one in elf.sections if one.name.startswith((".debug", ".rela.debug")) and one.size]
    for _ in range(data.draw(st.integers(1, 6))):
        section = data.draw(st.sampled_from(sections))
        whole[section.offset + data.draw(st.integers(0, section.size - 1))] = data.draw(st.integers(0, 255))
    debug = ModuleDebug(parse(bytes(whole), "a.o"), "a")
    text = elf.section(".text")
    try:
        for offset in range(0, text.size, 5):
            place = Place(text.index, offset)
            debug.locate(place)
            variable = debug.variable_in(place, "rdi")
            if variable is not None and variable.pointee is not None:
                debug.member_at(variable.pointee, 4)
    except BadFile as error:
        assert "a.o" in str(error)  # noqa: PT017  # not raising is right as well


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=40), st.integers(0, 0x4000 - 8))
@settings(deadline=None, max_examples=80)
def test_a_stack_of_garbage_is_walked_to_its_end(words: list[int], depth: int):
    world = World()
    start = world.function("start", call(16))
    saved = world.function("saved", regs_entry())
    partial = world.function("partial", regs_entry(partial=True))
    pool = [start + 1, saved + 1, partial + 1, STACK.begin + 8, STACK.end - 8]
    sp = STACK.begin + (depth & ~7)
    world.write(sp, *(pool[word % 5] if word & 1 else word for word in words))
    items = walk(world, Registers(ip=start, sp=sp, bp=sp), world.symbolize)
    assert len(items) < 0x4000
