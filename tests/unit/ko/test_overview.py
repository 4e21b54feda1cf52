"""A module on one page."""

from __future__ import annotations

from builders import KoBuilder
from kobox.ko import parse_module
from kobox.ko.overview import Overview, overview


def overview_of(builder: KoBuilder) -> Overview:
    return overview(parse_module(builder.build(), "x.ko"))


def test_it_counts_what_the_module_has() -> None:
    builder = KoBuilder("hello").module(alias=["a", "b"], author="me").param("p").export("f").export("g", gpl=True)
    page = overview_of(builder.undefined("_printk").undefined("maybe", weak=True).version("_printk", 1))
    assert (page.name, page.license, page.author, page.aliases) == ("hello", "GPL", ("me",), 2)
    assert (page.params, page.exports, page.exports_gpl) == (1, 2, 1)
    assert (page.imports, page.imports_weak, page.versions) == (3, 1, 1)


def test_memory_is_split_into_what_stays_and_what_is_given_back() -> None:
    builder = KoBuilder().text(bytes(10)).data(bytes(3)).bss(100).init_text(bytes(7)).data(bytes(5), ".init.data")
    page = overview_of(builder.section(".comment", bytes(50), flags=0))
    assert (page.core_size, page.init_size) == (16 + 8 + 100, 8 + 5)


def test_a_signature_that_cannot_be_read_is_a_fact() -> None:
    page = overview_of(KoBuilder().module().signature(b"junk"))
    assert page.signature is not None
    assert page.signature.signer is None
    assert "the message can't be read: PKCS#7 ContentInfo" in page.signature.problems[0]


def test_an_unsigned_module_says_nothing_about_signatures() -> None:
    assert overview_of(KoBuilder().module()).signature is None
