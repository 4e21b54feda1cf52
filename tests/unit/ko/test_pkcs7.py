"""Who signed, read from DER that the tests write themselves."""

from __future__ import annotations

import pytest

from kobox.errors import BadFile
from kobox.ko.pkcs7 import read_signer

SHA256 = bytes.fromhex("608648016503040201")
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
RSA = bytes.fromhex("2a864886f70d010101")
COMMON_NAME, ORGANIZATION = bytes.fromhex("550403"), bytes.fromhex("55040a")


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes(2, "big")
    return bytes((tag, 0x82)) + size + content


def sequence(*parts: bytes) -> bytes:
    return der(0x30, *parts)


def named(oid: bytes, value: bytes, tag: int = 0x0C) -> bytes:
    return der(0x31, sequence(der(6, oid), der(tag, value)))


def message(
    sid: bytes | None = None, *, digest: bytes = SHA256, certificates: bytes = b"", attributes: bytes = b""
) -> bytes:
    issuer = sequence(named(ORGANIZATION, b"Debian"), named(COMMON_NAME, b"A key"))
    sid = sequence(issuer, der(2, b"\0\xc0\xff")) if sid is None else sid
    signer = sequence(
        der(2, b"\1"), sid, sequence(der(6, digest), der(5)), attributes, sequence(der(6, RSA)), der(4, b"\1" * 200)
    )
    signed = sequence(der(2, b"\1"), der(0x31), sequence(der(6, RSA)), certificates, der(0x31, signer))
    return sequence(der(6, SIGNED_DATA), der(0xA0, signed))


def test_the_signer_is_the_common_name_and_serial_of_the_issuer() -> None:
    signer = read_signer(message(), "x.ko")
    assert (signer.name, signer.serial, signer.key_id) == ("A key", b"\xc0\xff", b"")
    assert (signer.hash, signer.signature) == ("sha256", b"\1" * 200)


def test_certificates_and_signed_attributes_are_passed_over() -> None:
    signer = read_signer(message(certificates=der(0xA0, bytes(300)), attributes=der(0xA0, b"xy")), "x.ko")
    assert signer.signature == b"\1" * 200


def test_a_signer_named_by_key_id_has_that_instead() -> None:
    signer = read_signer(message(der(0x80, b"\xaa\xbb")), "x.ko")
    assert (signer.name, signer.serial, signer.key_id) == ("", b"", b"\xaa\xbb")


def test_an_issuer_without_a_common_name_is_nameless() -> None:
    issuer = sequence(named(ORGANIZATION, b"Debian"))
    assert read_signer(message(sequence(issuer, der(2, b"\1"))), "x.ko").name == ""


def test_a_name_in_sixteen_bit_characters_is_read() -> None:
    issuer = sequence(named(COMMON_NAME, "Schlüssel".encode("utf-16-be"), tag=0x1E))
    assert read_signer(message(sequence(issuer, der(2, b"\1"))), "x.ko").name == "Schlüssel"


def test_an_unknown_hash_is_shown_as_its_object_identifier() -> None:
    assert read_signer(message(digest=bytes.fromhex("2a864886f70d0209")), "x.ko").hash == "1.2.840.113549.2.9"


def test_a_message_cut_off_anywhere_is_a_bad_file() -> None:
    whole = message()
    for size in range(len(whole)):
        with pytest.raises(BadFile, match=r"^x\.ko: PKCS#7"):
            read_signer(whole[:size], "x.ko")


def test_what_is_no_pkcs7_says_where_it_stops_being_it() -> None:
    with pytest.raises(BadFile, match=r"ContentInfo: another ASN\.1 tag stands here: found 0x6e, expected 0x30"):
        read_signer(b"not PKCS#7", "x.ko")


@pytest.mark.parametrize("first", [0x80, 0x85, 0xFF])
def test_lengths_that_der_does_not_have_are_refused(first: int) -> None:
    with pytest.raises(BadFile, match="a length is not DER"):
        read_signer(bytes((0x30, first)) + bytes(300), "x.ko")
