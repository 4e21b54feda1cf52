"""The signature trailer: split off as the loader splits it, its lies kept as facts."""

from __future__ import annotations

import pytest

from builders import MARKER, KoBuilder
from kobox.ko import parse_module, split_signature

MODULE = KoBuilder("hello").module().build()


def test_an_unsigned_module_is_left_whole() -> None:
    body, trailer = split_signature(MODULE)
    assert trailer is None
    assert bytes(body) == MODULE


def test_a_signed_module_splits_into_module_and_message() -> None:
    body, trailer = split_signature(KoBuilder("hello").module().signature(b"PKCS7").build())
    assert trailer is not None
    assert bytes(body) == MODULE
    assert (trailer.message, trailer.sig_len, trailer.offset) == (b"PKCS7", 5, len(MODULE))
    assert (trailer.id_type, trailer.id_name, trailer.problems) == (2, "PKCS#7", ())


@pytest.mark.parametrize("marker", [MARKER[:-1], MARKER[1:], MARKER + b"\0", MARKER.lower()])
def test_a_marker_that_is_not_exactly_at_the_end_is_no_signature(marker: bytes) -> None:
    data = KoBuilder("hello").module().signature(b"PKCS7", marker=marker).build()
    body, trailer = split_signature(data)
    assert (bytes(body), trailer) == (data, None)


@pytest.mark.parametrize("sig_len", [0xFFFFFFFF, 0x05000000, len(MODULE) + 5])
def test_a_length_that_cannot_be_true_is_a_fact_and_the_module_is_still_read(sig_len: int) -> None:
    data = KoBuilder("hello").module().signature(b"PKCS7", sig_len=sig_len).build()
    module = parse_module(data, "hello.ko")
    assert module.signature is not None
    assert module.signature.message == b""
    assert f"sig_len {sig_len:#x} is not below" in module.signature.problems[0]
    assert module.name == "hello"


def test_the_largest_length_leaves_one_byte_of_module() -> None:
    body, trailer = split_signature(KoBuilder("hello").module().signature(b"", sig_len=len(MODULE) - 1).build())
    assert trailer is not None
    assert (len(body), trailer.problems, trailer.message) == (1, (), MODULE[1:])


@pytest.mark.parametrize("field", ["algo", "hash", "signer_len", "key_id_len"])
def test_fields_that_must_be_zero_are_a_fact_when_they_are_not(field: str) -> None:
    _, trailer = split_signature(KoBuilder().module().signature(b"PKCS7", **{field: 1}).build())
    assert trailer is not None
    assert getattr(trailer, field) == 1
    assert trailer.problems == ("fields that PKCS#7 leaves unused are not zero",)
    assert trailer.message == b"PKCS7"


def test_padding_must_be_zero_too() -> None:
    _, trailer = split_signature(KoBuilder().module().signature(b"PKCS7", pad=b"\0\1\0").build())
    assert trailer is not None
    assert trailer.problems == ("fields that PKCS#7 leaves unused are not zero",)


@pytest.mark.parametrize(("id_type", "name"), [(0, "PGP"), (1, "X.509"), (9, "unknown (9)")])
def test_another_kind_of_signature_is_named(id_type: int, name: str) -> None:
    _, trailer = split_signature(KoBuilder().module().signature(b"PKCS7", id_type=id_type).build())
    assert trailer is not None
    assert (trailer.id_name, trailer.problems) == (name, (f"id_type is {id_type}, not 2 (PKCS#7)",))


@pytest.mark.parametrize("front", [b"", b"x", bytes(12)])
def test_a_file_that_is_hardly_more_than_the_marker_has_a_broken_trailer(front: bytes) -> None:
    body, trailer = split_signature(front + MARKER)
    assert trailer is not None
    assert bytes(body) == front
    assert f"only {len(front)} bytes stand before the marker" in trailer.problems[0]
