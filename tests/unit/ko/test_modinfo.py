"""``.modinfo``: pairs in order, keys as often as they like."""

from __future__ import annotations

from builders import ALLOC, KoBuilder
from kobox.ko import ModInfo, parse_modinfo, parse_module


def modinfo_of(builder: KoBuilder) -> ModInfo:
    return parse_module(builder.build(), "x.ko").modinfo


def test_pairs_keep_the_files_order_and_repetitions() -> None:
    info = modinfo_of(KoBuilder().modinfo(("alias", "a"), ("license", "GPL"), ("alias", "b"), ("alias", "a")))
    assert info.items == (("alias", "a"), ("license", "GPL"), ("alias", "b"), ("alias", "a"))
    assert info.get_all("alias") == ("a", "b", "a")
    assert len(info) == 4
    assert list(info) == list(info.items)


def test_the_first_value_counts() -> None:
    info = modinfo_of(KoBuilder().modinfo(license=["Proprietary", "GPL"]))
    assert info.get("license") == "Proprietary"
    assert info.get("version") is None
    assert info.get("version", "none") == "none"
    assert "license" in info
    assert "version" not in info


def test_only_the_first_equals_sign_separates() -> None:
    assert modinfo_of(KoBuilder().modinfo(parm="x:a=b")).get("parm") == "x:a=b"


def test_an_empty_value_is_not_a_missing_one() -> None:
    assert modinfo_of(KoBuilder().modinfo(depends="")).get("depends") == ""


def test_zeros_between_strings_are_skipped() -> None:
    assert parse_modinfo(b"\0\0a=1\0\0\0b=2\0\0").items == (("a", "1"), ("b", "2"))


def test_a_string_without_equals_sign_is_a_key() -> None:
    assert parse_modinfo(b"odd\0a=1\0").items == (("odd", ""), ("a", "1"))


def test_text_is_utf8_and_other_bytes_survive() -> None:
    info = parse_modinfo("author=Michał\0".encode() + b"old=\xe9\0")
    assert info.get("author") == "Michał"
    assert info.get("old", "").encode("utf-8", "surrogateescape") == b"\xe9"


def test_a_module_without_the_section_has_no_pairs() -> None:
    assert modinfo_of(KoBuilder().text()).items == ()


def test_a_section_that_is_not_loaded_is_not_the_kernels_modinfo() -> None:
    assert modinfo_of(KoBuilder().section(".modinfo", b"a=1\0", flags=0)).items == ()
    assert modinfo_of(KoBuilder().section(".modinfo", b"a=1\0", flags=ALLOC)).items == (("a", "1"),)


def test_a_last_string_without_nul_runs_into_what_follows_as_the_kernel_reads_it() -> None:
    info = modinfo_of(KoBuilder().section(".modinfo", b"a=1\0vermagic=6.1 ").section(".next", b"Zoo\0b=2\0"))
    assert info.items == (("a", "1"), ("vermagic", "6.1 Zoo"))


def test_asking_for_it_reads_neither_symbols_nor_relocations() -> None:
    module = parse_module(KoBuilder("hello").module().build(), "x.ko")
    assert module.modinfo.get("name") == "hello"
    assert not {"symbols", "sections"} & set(vars(module.elf))
