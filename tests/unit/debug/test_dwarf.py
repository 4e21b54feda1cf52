"""Addresses to source, in objects that gcc built a moment ago: several sections, inlined calls, all DWARF versions."""

from __future__ import annotations

import subprocess

import pytest

from builders import KoBuilder
from kobox.debug.dwarf import ModuleDebug, Place
from kobox.debug.dwarf.lines import FileEntry, LineTable, Row
from kobox.debug.records import Symbol
from kobox.elf import parse
from kobox.errors import BadFile
from needs import need_program

SOURCE = """\
struct inner { int pad; int wanted; };
struct node { char title[40]; struct inner slots[3]; union { struct node *next; long number; }; };
int sink;

static inline __attribute__((always_inline)) int helper(struct node *node)
{
    sink = node->slots[1].pad;
    return node->slots[2].wanted * sink;
}

__attribute__((noinline)) int follow(struct node *node)
{
    sink++;
    return helper(node);
}

__attribute__((section(".init.text"), noinline)) int start(int x)
{
    sink += x;
    return follow(0) + 1;
}
static __attribute__((noinline)) int twin(int x) { sink -= x; return x * 5; }
int call_twin(int x) { return twin(x) + 1; }
"""

OTHER = """\
int volatile v;
static __attribute__((noinline)) int twin(int x) { v += x; v *= x; v -= x; v ^= 5; return v / x; }
int lone(int x)
{
    return v / x + twin(x);
}
"""


@pytest.fixture(scope="module", params=["-gdwarf-5", "-gdwarf-4", "-gdwarf-3", "-gz=zlib"])
def debug(request, tmp_path_factory) -> ModuleDebug:
    need_program("gcc")
    folder = tmp_path_factory.mktemp("dwarf")
    (folder / "module.c").write_text(SOURCE)
    (folder / "other.c").write_text(OTHER)
    flags = ["-O2", "-g", "-ffreestanding", "-fno-pie", "-mcmodel=kernel", "-fcf-protection=none", request.param]
    for name in ("module", "other"):
        subprocess.run(["gcc", *flags, "-w", "-c", f"{name}.c"], cwd=folder, check=True)
    subprocess.run(["ld", "-r", "module.o", "other.o", "-o", "whole.ko"], cwd=folder, check=True)
    return ModuleDebug(parse((folder / "whole.ko").read_bytes(), "whole.ko"), "whole")


def lines(debug: ModuleDebug, name: str) -> set[tuple[str, int]]:
    """Every line that some byte of a function comes from."""
    (place,) = debug.places(Symbol(name, 0))
    size = debug.function_at(place).size
    chains = [debug.locate(Place(place.section_idx, place.offset + at)) for at in range(size)]
    return {(one.file, one.line) for chain in chains for one in chain}


def test_a_function_in_text_has_its_own_lines(debug: ModuleDebug):
    assert ("module.c", 14) in lines(debug, "follow")


def test_a_function_in_init_text_is_not_mistaken_for_the_one_at_the_same_offset_of_text(debug: ModuleDebug):
    assert {line for _, line in lines(debug, "start")} <= {17, 18, 19, 20, 21}


def test_the_second_file_of_a_module_is_found(debug: ModuleDebug):
    assert ("other.c", 5) in lines(debug, "lone")


def test_an_inlined_function_comes_first_then_the_one_it_was_inlined_into(debug: ModuleDebug):
    (place,) = debug.places(Symbol("follow", 0))
    chains = [debug.locate(Place(place.section_idx, place.offset + at)) for at in range(40)]
    told = {tuple((one.function, one.line) for one in chain) for chain in chains if len(chain) == 2}
    assert (("helper", 7), ("follow", 14)) in told


def test_a_return_address_means_the_call_before_it(debug: ModuleDebug):
    (start,) = debug.places(Symbol("start", 0))
    size = debug.function_at(start).size
    places = [Place(start.section_idx, start.offset + at) for at in range(1, size)]
    assert all(
        debug.locate(place, after_call=True) == debug.locate(place._replace(offset=place.offset - 1))
        for place in places
    )


def test_the_variable_in_a_register_and_the_member_at_an_offset_are_named(debug: ModuleDebug):
    (place,) = debug.places(Symbol("follow", 0))
    variable = debug.variable_in(place, "rdi")
    assert (variable.name, variable.type_name) == ("node", "struct node *")
    assert debug.member_at(variable.pointee, 40 + 2 * 8 + 4)[:2] == ("slots[2].wanted", "int")
    assert debug.member_at(variable.pointee, 64).path in ("next", "number")
    assert debug.member_at(variable.pointee, 6)[:2] == ("title[6]", "char")
    assert debug.member_at(variable.pointee, 4096) is None


def test_a_register_that_holds_no_variable_names_none(debug: ModuleDebug):
    (place,) = debug.places(Symbol("follow", 0))
    assert debug.variable_in(place, "r15") is None
    assert debug.variable_in(place, "xmm0") is None


def test_a_place_outside_all_code_has_no_source(debug: ModuleDebug):
    (place,) = debug.places(Symbol("follow", 0))
    assert debug.locate(Place(place.section_idx, 0x100000)) == ()


def test_a_name_that_is_not_there_has_no_place(debug: ModuleDebug):
    assert debug.places(Symbol("nobody", 4)) == ()


def test_the_compilers_folder_is_told(debug: ModuleDebug, tmp_path_factory):
    assert any("dwarf" in folder for folder in debug.compilation_directories)


def twins(debug: ModuleDebug) -> list[tuple[int, int]]:
    """(offset, size) of the two static functions called twin."""
    symbols = debug.elf.symbols
    return sorted((one.value, one.size) for one in symbols if one.name == "twin")


def test_of_two_functions_with_one_name_the_size_decides(debug: ModuleDebug):
    for value, size in twins(debug):
        assert [place.offset for place in debug.places(Symbol("twin", 4, size))] == [value + 4]


def test_the_distance_to_the_next_symbol_is_a_size_too(debug: ModuleDebug):
    (first, size), _ = twins(debug)
    section_idx = debug.places(Symbol("twin", 0, size))[0].section_idx
    after = min(one.value for one in debug.elf.symbols if one.shndx == section_idx and one.value > first)
    assert after - first != size
    assert [place.offset for place in debug.places(Symbol("twin", 4, after - first))] == [first + 4]


def test_without_a_size_all_that_can_be_are_told(debug: ModuleDebug):
    (small, size), (large, _) = sorted(twins(debug), key=lambda row: row[1])
    assert {place.offset for place in debug.places(Symbol("twin", 1))} == {small + 1, large + 1}
    assert [place.offset for place in debug.places(Symbol("twin", size + 1))] == [large + size + 1]


def test_a_module_without_debug_data_says_so_and_locates_nothing():
    debug = ModuleDebug(parse(KoBuilder("plain").module().text(bytes(16)).build(), "plain.ko"), "plain")
    assert not debug.has_lines
    assert debug.locate(Place(1, 0)) == ()


def test_split_debug_data_still_gives_lines(tmp_path):
    need_program("gcc")
    (tmp_path / "a.c").write_text("int f(int x)\n{\n    return x + 1;\n}\n")
    subprocess.run(["gcc", "-g", "-gsplit-dwarf", "-O1", "-c", "a.c"], cwd=tmp_path, check=True)
    debug = ModuleDebug(parse((tmp_path / "a.o").read_bytes(), "a.o"), "a")
    (place,) = debug.places(Symbol("f", 0))
    assert [(line.file, line.line) for line in debug.locate(place)] == [("a.c", 3)]


def test_a_line_number_of_zero_falls_back_to_the_line_before():
    rows = (Row(0x10, 1, 7, 0), Row(0x14, 1, 0, 0), Row(0x18, 1, 9, 0))
    table = LineTable(("",), (FileEntry("?", 0), FileEntry("a.c", 0)), ((0x10, 0x20, rows),))
    assert [table.row_at(at).line for at in (0x10, 0x16, 0x18)] == [7, 7, 9]
    assert table.row_at(0x20) is None


def test_damaged_debug_data_is_one_clear_error(tmp_path):
    need_program("gcc")
    (tmp_path / "a.c").write_text("int f(int x) { return x + 1; }\n")
    subprocess.run(["gcc", "-g", "-c", "a.c"], cwd=tmp_path, check=True)
    whole = bytearray((tmp_path / "a.o").read_bytes())
    section = parse(bytes(whole), "a.o").section(".debug_abbrev")
    whole[section.offset : section.offset + section.size] = b"\xff" * section.size
    debug = ModuleDebug(parse(bytes(whole), "a.o"), "a")
    (place,) = debug.places(Symbol("f", 0))
    with pytest.raises(BadFile, match=r"a\.o"):
        debug.locate(place)
