"""Certificates as the kernel reads them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from kobox.errors import Errno
from kobox.sign import asn1, oids
from kobox.sign.keys import Algorithms
from kobox.sign.x509 import Certificate, decode_time, parse_certificate
from signing import EVERYTHING, der, ec_identity, make_identity, rsa_identity


def parse(data: bytes, algorithms: Algorithms = EVERYTHING) -> Certificate:
    return parse_certificate(data, algorithms, oids.default_registry())


def refusal(data: bytes) -> int:
    with pytest.raises(Errno) as caught:
        parse(data)
    return caught.value.number


@pytest.mark.parametrize("identity", [rsa_identity, ec_identity])
def test_a_self_signed_certificate_is_found_to_be_one(identity: Callable[[], object]) -> None:
    made = rsa_identity() if identity is rsa_identity else ec_identity()
    certificate = parse(made.data)
    assert certificate.self_signed
    assert certificate.skid == made.skid
    assert certificate.issuer_skid == made.skid
    assert certificate.identity == certificate.serial + certificate.raw_issuer
    assert certificate.description == f"{certificate.subject}: {made.skid.hex()}"


def test_a_certificate_of_another_issuer_is_not_self_signed() -> None:
    root = ec_identity()
    child = parse(make_identity("child", issuer=root).data)
    assert not child.self_signed
    assert (child.issuer, child.subject) == ("ec key", "child")
    assert child.issuer_skid == root.skid


def test_bytes_after_a_certificate_are_ignored() -> None:
    assert parse(ec_identity().data + b"more").subject == "ec key"


def test_a_self_signature_that_does_not_verify_refuses_the_certificate() -> None:
    data = rsa_identity().data
    assert refusal(data[:-1] + bytes([data[-1] ^ 1])) in (errno.EBADMSG, errno.EINVAL, errno.EKEYREJECTED)


def test_a_digest_that_the_kernel_lacks_leaves_the_certificate_usable() -> None:
    certificate = parse(rsa_identity().data, Algorithms(built_in=frozenset({"rsa"}), modular=frozenset()))
    assert certificate.unsupported_signature
    assert not certificate.self_signed


def test_unknown_key_and_signature_algorithms_are_enopkg() -> None:
    data = ec_identity().data
    assert refusal(data.replace(oids.encoded(oids.EC_PUBLIC_KEY), oids.encoded("1.2.840.10045.2.2"))) == errno.ENOPKG
    assert refusal(data.replace(oids.encoded(oids.PRIME256V1), oids.encoded("1.2.840.10045.3.1.6"))) == errno.ENOPKG
    ecdsa_sha256 = oids.encoded("1.2.840.10045.4.3.2")
    assert refusal(data.replace(ecdsa_sha256, oids.encoded("1.2.840.10045.4.3.9"))) == errno.ENOPKG
    other = oids.encoded("1.2.840.10045.4.3.3")
    assert refusal(other.join(data.rsplit(ecdsa_sha256, 1))) == errno.EINVAL


def test_a_banned_certificate_is_marked_and_logged() -> None:
    lines: list[tuple[int, str]] = []
    certificate = parse_certificate(
        ec_identity().data,
        EVERYTHING,
        oids.default_registry(),
        lambda digest: True,
        lambda level, text: lines.append((level, text)),
    )
    assert certificate.blacklisted
    assert lines == [(3, f"X.509: Cert {(certificate.tbs_digest or b'').hex()} is blacklisted")]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((("2.5.4.3", b"signer"),), "signer"),
        ((("2.5.4.10", b"Org"),), "Org"),
        ((("2.5.4.10", b"Org"), ("2.5.4.3", b"signer")), "Org: signer"),
        ((("2.5.4.10", b"Org"), ("2.5.4.3", b"Org signer")), "Org signer"),
        ((("2.5.4.10", b"Company Ltd"), ("2.5.4.3", b"Company key")), "Company key"),
        ((("1.2.840.113549.1.9.1", b"a@b"),), "a@b"),
        ((("2.5.4.6", b"DE"),), ""),
    ],
)
def test_a_readable_name_is_made_of_organization_and_common_name(
    parts: tuple[tuple[str, bytes], ...], name: str
) -> None:
    made = b"".join(der(0x31, der(0x30, der(6, oids.encoded(which)), der(0x0C, value))) for which, value in parts)
    plain = der(0x31, der(0x30, der(6, oids.encoded("2.5.4.3")), der(0x0C, b"ec key")))
    identity = ec_identity()
    certificate = identity.certificate
    subject_at = certificate.tbs_certificate_bytes.rindex(plain)
    tbs = certificate.tbs_certificate_bytes
    renamed = tbs[: subject_at - 2] + der(0x30, made) + tbs[subject_at + len(plain) :]
    header_size = 2 + (tbs[1] & 0x7F)
    inner = renamed[header_size:]
    whole = der(0x30, der(0x30, inner), identity.data[4 + len(tbs) :])
    assert parse(whole).subject == name


@pytest.mark.parametrize(
    ("tag", "text", "seconds"),
    [
        (asn1.UTC_TIME, b"700101000000Z", 0),
        (asn1.UTC_TIME, b"491231235959Z", 2524607999),
        (asn1.GENERALIZED_TIME, b"20500101000000Z", 2524608000),
        (asn1.UTC_TIME, b"000229240060Z", 951868860),
    ],
)
def test_times_are_read(tag: int, text: bytes, seconds: int) -> None:
    assert decode_time(tag, text) == seconds


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (asn1.UTC_TIME, b"7001010000Z"),
        (asn1.UTC_TIME, b"700101000000+"),
        (asn1.UTC_TIME, b"70010100000aZ"),
        (asn1.UTC_TIME, b"500101000000Z"),
        (asn1.UTC_TIME, b"701301000000Z"),
        (asn1.UTC_TIME, b"710229000000Z"),
        (asn1.UTC_TIME, b"700101250000Z"),
        (asn1.UTC_TIME, b"700101006000Z"),
        (asn1.GENERALIZED_TIME, b"20490101000000Z"),
        (asn1.OCTET_STRING, b"700101000000Z"),
    ],
)
def test_times_that_the_kernel_refuses_are_ebadmsg(tag: int, text: bytes) -> None:
    with pytest.raises(Errno) as caught:
        decode_time(tag, text)
    assert caught.value.number == errno.EBADMSG
