"""The kernel's checks of a module file: what it refuses, in which words, and what it lets pass."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from builders import ALLOC, EXEC, NOBITS, SYMTAB, WRITE, KoBuilder
from kobox.link.findings import Refusal
from kobox.link.rules import default_rules
from kobox.link.validity import enforce_rwx, load_view

RULES = default_rules()
NEWER = RULES._replace(memories=True)
EHDR = {"e_ident": (0, "4s"), "e_type": (16, "H"), "e_machine": (18, "H"), "e_shoff": (40, "Q")}
EHDR |= {"e_shentsize": (58, "H"), "e_shnum": (60, "H"), "e_shstrndx": (62, "H")}
SHDR = {"name": (0, "I"), "type": (4, "I"), "flags": (8, "Q"), "addr": (16, "Q"), "offset": (24, "Q")}
SHDR |= {"size": (32, "Q"), "link": (40, "I")}


def hello() -> KoBuilder:
    return KoBuilder("hello").module().text()


def with_header(**fields: object) -> bytes:
    """``hello`` with fields of its ELF header overwritten."""
    data = bytearray(hello().build())
    for name, value in fields.items():
        offset, code = EHDR[name]
        struct.pack_into("<" + code, data, offset, value)
    return bytes(data)


def with_section(section: str | int, module: KoBuilder | None = None, **fields: int) -> bytes:
    """A module with fields of a section header overwritten (negative numbers count from the end)."""
    module = module or hello()
    data = bytearray(module.build())
    (shoff,) = struct.unpack_from("<Q", data, 40)
    (shnum,) = struct.unpack_from("<H", data, 60)
    number = module.index_of(section) if isinstance(section, str) else section % shnum
    for name, value in fields.items():
        offset, code = SHDR[name]
        struct.pack_into("<" + code, data, shoff + 64 * number + offset, value)
    return bytes(data)


def said(data: bytes, newer: bool = False) -> tuple[str, int, str]:
    """Errno name, level and text of the refusal of ``data``."""
    with pytest.raises(Refusal) as caught:
        load_view(data, NEWER if newer else RULES)
    (line,) = caught.value.log
    return caught.value.name, line.level, line.text


BOTH = pytest.mark.parametrize("newer", [False, True])


@BOTH
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "Invalid ELF header len 0"),
        (hello().build()[:63], "Invalid ELF header len 63"),
        (b"#!/bin/sh" + bytes(64), "Invalid ELF header magic: != \x7fELF"),
        (with_header(e_type=2), "Invalid ELF header type: 2 != 1"),
        (with_header(e_machine=40), "Invalid architecture in ELF header: 40"),
        (with_header(e_shentsize=40), "Invalid ELF section header size"),
        (with_header(e_shoff=1 << 40), "Invalid ELF section header overflow"),
        (with_header(e_shnum=0xFFFF), "Invalid ELF section header overflow"),
        (with_header(e_shstrndx=0), "Invalid ELF section name index: 0 || e_shstrndx (0) >= e_shnum (14)"),
        (with_section(-1, size=0), "empty section name table"),
        (with_section(-1, size=10), "ELF Spec violation: section name table isn't null terminated"),
        (
            with_section(0, type=1),
            "ELF Spec violation: section 0 type(1)!=SH_NULL or non-zero len or addr",
        ),
        (
            with_section(0, size=1),
            "ELF Spec violation: section 0 type(0)!=SH_NULL or non-zero len or addr",
        ),
        (with_section(".text", size=1 << 40), "Invalid ELF section in module (section 5 type 1)"),
        (with_section(".text", name=1 << 20), "Invalid ELF section name in module (section 5 type 1)"),
        (with_section(-3, link=0), "Invalid ELF sh_link!=SHN_UNDEF(0) or (sh_link(0) >= hdr->e_shnum(14)"),
        (with_section(-3, link=99), "Invalid ELF sh_link!=SHN_UNDEF(99) or (sh_link(99) >= hdr->e_shnum(14)"),
    ],
)
def test_a_damaged_file_is_refused_in_the_kernels_words(data: bytes, text: str, newer: bool) -> None:
    number = struct.unpack_from("<H", hello().build(), 60)[0]
    assert said(data, newer) == ("ENOEXEC", 3, text.replace("14", str(number)) if "(14)" in text else text)


def test_a_name_table_outside_the_file_has_a_message_of_its_own_in_older_kernels() -> None:
    data = with_section(-1, offset=1 << 40)
    assert said(data)[2] == "Invalid ELF section hdr(type 3)"
    assert said(data, newer=True)[2].startswith("Invalid ELF section in module")


@BOTH
def test_a_stripped_module_is_refused(newer: bool) -> None:
    assert said(with_section(-3, type=1), newer) == ("ENOEXEC", 4, "hello: module has no symbols (stripped?)")


def test_a_file_that_is_no_module_is_refused() -> None:
    other = KoBuilder("hello").modinfo(name="hello").text()
    assert said(other.build()) == ("ENOEXEC", 4, "hello: No module found in object")
    nameless = KoBuilder("hello").text()
    assert said(nameless.build())[2] == "(missing .modinfo section or name field): No module found in object"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"flags": 0}, ".gnu.linkonce.this_module must occupy memory during process execution"),
        ({"type": NOBITS}, ".gnu.linkonce.this_module section must have a size set"),
        (
            {"size": 895},
            ".gnu.linkonce.this_module section size must match the kernel's built struct module size at run time",
        ),
    ],
)
def test_newer_kernels_look_closely_at_this_module(change: dict[str, int], text: str) -> None:
    data = with_section(".gnu.linkonce.this_module", **change)
    assert said(data, newer=True)[2] == f"module hello: {text}"


def test_newer_kernels_want_everything_once() -> None:
    twice = hello().section(".x", bytes(896), flags=ALLOC | WRITE)
    names = twice.build().replace(b".x\0.", b".x\0.")
    assert load_view(names, NEWER).name == "hello"
    none = KoBuilder("hello").modinfo(name="hello").text().build()
    assert said(none, newer=True) == (
        "ENOEXEC",
        3,
        "module hello: Exactly one .gnu.linkonce.this_module section must exist.",
    )
    second_table = with_section(".text", type=SYMTAB, link=1)
    assert said(second_table, newer=True)[2] == "hello: module has no symbols (stripped?)"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:4] + b"\xff" * 12 + data[16:],  # class, byte order, version, ABI
        lambda data: data[:20] + b"\xff" * 20 + data[40:],  # e_version, e_entry, e_phoff
        lambda data: data[:48] + b"\xff" * 10 + data[58:],  # e_flags to e_phnum
    ],
)
def test_what_the_kernel_does_not_look_at_may_be_anything(change: Callable[[bytes], bytes]) -> None:
    assert load_view(change(hello().build()), RULES).name == "hello"


def test_a_loaded_name_outside_the_table_is_refused_others_only_where_a_kernel_would_crash() -> None:
    module = hello().section(".comment", b"GCC\0", flags=0)
    data = with_section(".comment", module, name=1 << 20)
    with pytest.raises(Refusal) as caught:
        load_view(data, RULES)
    assert caught.value.crash
    assert caught.value.log == []


def test_sections_are_found_by_name_only_if_they_are_loaded() -> None:
    view = load_view(hello().section(".note", b"x", flags=0).section("__param", b"y").build(), RULES)
    assert view.find(".note") == 0
    assert view.sections[view.find_any(".note")].name == ".note"
    assert view.sections[view.find("__param")].name == "__param"
    assert view.find("missing") == view.find_any("missing") == 0


def test_metadata_keeps_order_and_doubles_and_the_first_wins() -> None:
    view = load_view(KoBuilder("hello").module(alias=["a", "b"]).build(), RULES)
    assert view.info_all("alias") == ["a", "b"]
    assert view.info("alias") == "a"
    assert view.info("missing") is None


def test_a_last_metadata_string_without_its_end_runs_on() -> None:
    module = KoBuilder("hello").section(".modinfo", b"name=hel").section(".behind", b"lo\0").this_module()
    assert load_view(module.build(), RULES).name == "hello"


def test_without_metadata_the_name_is_the_one_built_in() -> None:
    view = load_view(KoBuilder("built_in").this_module().text().build(), RULES)
    assert (view.name, view.mod_name, view.modinfo) == ("built_in", "built_in", ())
    unknown_offset = RULES._replace(name_offset=None)
    assert load_view(KoBuilder("built_in").this_module().text().build(), unknown_offset).name == "built_in"


def test_the_metadata_name_and_the_built_in_name_may_differ() -> None:
    view = load_view(KoBuilder("inner").modinfo(name="outer").this_module().text().build(), RULES)
    assert (view.name, view.mod_name) == ("outer", "inner")


def test_versions_can_be_ignored() -> None:
    data = hello().version("module_layout", 1).build()
    assert load_view(data, RULES).index.vers
    ignoring = load_view(data, RULES, ignore_modversions=True)
    assert ignoring.index.vers == 0
    assert ignoring.flags[ignoring.find_any("__versions")] & ALLOC


def test_sections_writable_and_executable_are_refused() -> None:
    module = KoBuilder("hello").module().section(".odd", b"x", flags=ALLOC | WRITE | EXEC)
    view = load_view(module.build(), RULES)
    with pytest.raises(Refusal) as caught:
        enforce_rwx(view, RULES)
    number = module.index_of(".odd")
    assert [line.text for line in caught.value.log] == [
        f"hello: section .odd (index {number}) has invalid WRITE|EXEC flags"
    ]
    enforce_rwx(view, RULES._replace(strict_rwx=False))
