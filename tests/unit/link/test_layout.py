"""Where sections go, in both shapes of module memory, and sizes a real kernel has shown."""

from __future__ import annotations

import pytest

from builders import ALLOC, EXEC, WRITE, KoBuilder
from kobox.link.layout import Layout, Place, Region, lay_out
from kobox.link.rules import default_rules
from kobox.link.validity import LoadView, load_view
from linking import chain

RULES = default_rules()
MEMORIES = RULES._replace(memories=True)


def planned(module: KoBuilder, rules: object = RULES) -> tuple[LoadView, Layout]:
    view = load_view(module.build(), RULES)
    return view, lay_out(view, rules)  # type: ignore[arg-type]


def hello() -> KoBuilder:
    return KoBuilder("hello").module()


def test_code_constants_and_data_of_core_each_start_on_a_page() -> None:
    view, layout = planned(hello().text().rodata(b"r" * 8).data(b"d" * 8))
    core = layout.regions["core"]
    assert (core.text_size, core.ro_size, core.ro_after_init_size, core.size) == (0x1000, 0x2000, 0x2000, 0x4000)
    assert layout.places[view.find(".rodata")] == Place("core", 0x1000)
    data = layout.places[view.find(".data")]
    assert data is not None
    assert data.region == "core"
    assert 0x2000 <= data.offset < 0x3000


def test_init_sections_go_by_the_start_of_their_name() -> None:
    view, layout = planned(hello().text(name=".init.text.more").data(b"x", ".initial").text(name=".text.init"))
    regions = {name: layout.places[view.find(name)] for name in (".init.text.more", ".initial", ".text.init")}
    assert {name: place and place.region for name, place in regions.items()} == {
        ".init.text.more": "init",
        ".initial": "init",
        ".text.init": "core",
    }


def test_without_unloading_exit_code_is_freed_with_init() -> None:
    view = load_view(hello().build(), RULES)
    place = lay_out(view, RULES._replace(module_unload=False)).places[view.find(".exit.text")]
    assert place is not None
    assert place.region == "init"


def test_data_read_only_after_init_has_pages_of_its_own() -> None:
    module = hello().data(b"late", ".data..ro_after_init").data(b"jump", "__jump_table").data(b"data")
    view, layout = planned(module)
    core = layout.regions["core"]
    assert core.ro_after_init_size == core.ro_size + 0x1000
    for name in (".data..ro_after_init", "__jump_table"):
        place = layout.places[view.find(name)]
        assert place is not None
        assert core.ro_size <= place.offset < core.ro_after_init_size


def test_versions_metadata_and_per_cpu_data_take_no_room() -> None:
    module = hello().version("module_layout", 1)
    module.section(".data..percpu", bytes(40), flags=ALLOC | WRITE, align=32)
    view, layout = planned(module)
    assert [layout.places[view.index.vers], layout.places[view.index.info], layout.places[view.index.pcpu]] == [
        None
    ] * 3
    assert (layout.percpu_size, layout.percpu_align) == (40, 32)


def test_per_cpu_alignment_is_a_page_at_most() -> None:
    _, layout = planned(hello().section(".data..percpu", bytes(8), flags=ALLOC | WRITE, align=8192))
    assert layout.percpu_align == 4096


def test_a_kernel_that_does_not_separate_code_from_data_packs_tightly() -> None:
    _, layout = planned(hello().rodata(b"r" * 8), RULES._replace(strict_rwx=False))
    assert layout.regions["core"].size < 0x1000


def test_only_symbols_of_core_sections_with_a_name_are_kept_and_the_null_symbol() -> None:
    module = hello().text().symbol("here").symbol("there", ".init.text").undefined("elsewhere").symbol("a", 0xFFF1)
    view, layout = planned(module)
    names = [view.text_at(view.sections[view.index.str].offset + n) for n in _name_offsets(view, layout)]
    assert names == ["", "cleanup_module", "here"]
    assert layout.kallsyms.strings == len("\0cleanup_module\0here\0")


def test_without_kallsyms_all_only_functions_are_kept() -> None:
    module = hello().text().symbol("function").data(bytes(8)).symbol("variable", ".data")
    _, every = planned(module)
    _, functions = planned(module, RULES._replace(kallsyms_all=False))
    assert len(every.kallsyms.kept) == len(functions.kallsyms.kept) + 1


def test_a_livepatch_module_keeps_every_symbol() -> None:
    module = KoBuilder("patch").module(livepatch="Y").undefined("elsewhere")
    _, layout = planned(module)
    assert len(layout.kallsyms.kept) == 4


def _name_offsets(view: LoadView, layout: Layout) -> list[int]:
    table = view.contents(view.index.sym).cast("I")
    return [table[6 * number] for number in layout.kallsyms.kept]


def test_symbol_tables_lie_behind_the_data_of_core_and_of_init() -> None:
    _, layout = planned(hello().text().data(b"d" * 8))
    plan = layout.kallsyms
    assert plan.core_strtab == plan.core_symtab + 24 * len(plan.kept)
    assert plan.core_typetab == plan.core_strtab + plan.strings
    assert plan.core_typetab + len(plan.kept) <= layout.regions["core"].size
    assert plan.init_typetab == plan.mod_kallsyms + 32


def test_sizes_wrap_at_32_bits_as_the_kernels_do() -> None:
    _, layout = planned(hello().bss(8 << 30))
    assert layout.core_size == planned(hello().bss(0))[1].core_size


@pytest.mark.parametrize(("align", "offset"), [(0, 1), (1, 1), (2, 2), (64, 64), (3, 1)])
def test_alignment_is_the_kernels_even_where_it_makes_no_sense(align: int, offset: int) -> None:
    module = KoBuilder("odd").module().section(".rodata.a", b"a").section(".rodata.b", b"b", align=align)
    view, layout = planned(module)
    place = layout.places[view.find(".rodata.b")]
    assert place == Place("core", 0x1000 + offset)


def test_typed_memories_hold_what_their_names_say() -> None:
    module = hello().text().rodata(b"r").data(b"d").data(b"late", ".data..ro_after_init").data(b"i", ".init.data")
    view, layout = planned(module, MEMORIES)
    where = {name: layout.places[view.find(name)] for name in (".text", ".rodata", ".data", ".data..ro_after_init")}
    assert {name: place and place.region for name, place in where.items()} == {
        ".text": "text",
        ".rodata": "rodata",
        ".data": "data",
        ".data..ro_after_init": "ro_after_init",
    }
    assert layout.kallsyms.core_region == "data"
    assert layout.regions["init_data"].size == 0x1000
    assert layout.regions["init_rodata"] == Region("init_rodata", 0)
    assert layout.core_size == 0x4000


def test_an_image_holds_the_files_bytes_and_zeros() -> None:
    done = chain(hello().text(b"\xcc" * 5).rodata(b"constant").bss(64))
    assert done.bytes_of(".text") == b"\xcc" * 5
    assert done.bytes_of(".rodata") == b"constant"
    assert done.bytes_of(".bss") == bytes(64)
    assert done.memory["core"][5 + 16 : 0x1000] == bytes(0x1000 - 21)


def test_executable_sections_come_first_whatever_else_their_flags_say() -> None:
    view = load_view(hello().section(".odd", b"x", flags=ALLOC | EXEC | WRITE).build(), RULES)
    place = lay_out(view, RULES).places[view.find(".odd")]
    assert place is not None
    assert place.offset < 0x1000
