"""A signed module before the kernel: every trailer, every signature, every policy."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kobox.sign import (
    BUILTIN,
    MACHINE,
    MARKER,
    PLATFORM,
    SECONDARY,
    Algorithms,
    Keyrings,
    Lockdown,
    Verdict,
    check,
    oids,
    verify_signature,
)
from signing import (
    EVERYTHING,
    algorithm,
    appended,
    der,
    ec_identity,
    make_identity,
    message,
    oid,
    rsa_identity,
    signed,
    signer_info,
    tbs_digest,
    trailer,
    trusting,
)

BODY = b"\x7fELF and so on" * 20
NOBODY = Keyrings(algorithms=EVERYTHING)


def number(data: bytes, rings: Keyrings = NOBODY) -> int:
    return verify_signature(data, rings).number


def against(rings: Keyrings) -> Callable[[Any], Verdict]:
    return lambda data: verify_signature(data, rings)


# Who vouches


@pytest.mark.parametrize("ring", [BUILTIN, SECONDARY, MACHINE, PLATFORM])
@pytest.mark.parametrize("by_skid", [False, True])
def test_a_key_of_any_ring_vouches_and_is_named(ring: str, by_skid: bool) -> None:
    identity = rsa_identity()
    verdict = verify_signature(signed(BODY, identity, by_skid=by_skid), trusting(identity, ring=ring))
    assert verdict.trusted
    assert verdict.key is not None
    assert (verdict.key.ring, verdict.length, verdict.hash_name) == (ring, len(BODY), "sha256")
    assert verdict.rings == ((SECONDARY, PLATFORM) if ring == PLATFORM else (SECONDARY,))
    assert verdict.lines == ()


@pytest.mark.parametrize("hash_name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_every_digest_is_understood(hash_name: str) -> None:
    identity = rsa_identity()
    assert number(signed(BODY, identity, hash_name=hash_name), trusting(identity)) == 0
    assert number(signed(BODY, identity, hash_name=hash_name)) == errno.ENOKEY


def test_an_ecdsa_signature_vouches() -> None:
    assert number(signed(BODY, ec_identity()), trusting(ec_identity())) == 0


def test_a_known_key_with_a_wrong_signature_rejects_in_silence() -> None:
    identity = rsa_identity()
    data = signed(BODY, identity)
    for at in (0, len(BODY) - 1, len(data) - len(MARKER) - 12 - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        verdict = verify_signature(bytes(changed), trusting(identity))
        assert (verdict.number, verdict.lines) == (errno.EKEYREJECTED, ())


def test_a_signature_moved_to_another_module_rejects_only_when_its_key_is_known() -> None:
    moved = b"another body" + signed(BODY, rsa_identity())[len(BODY) :]
    assert number(moved, trusting(rsa_identity())) == errno.EKEYREJECTED
    assert number(moved) == errno.ENOKEY


def test_a_kernel_without_platform_ring_asks_only_the_first() -> None:
    verdict = verify_signature(signed(BODY, rsa_identity()), replace(NOBODY, platform=None))
    assert (verdict.number, verdict.rings) == (errno.ENOKEY, (SECONDARY,))


def test_a_kernel_without_secondary_ring_asks_the_built_in_one() -> None:
    rings = replace(trusting(rsa_identity(), ring=BUILTIN), secondary=None)
    assert verify_signature(signed(BODY, rsa_identity()), rings).rings == (BUILTIN,)
    assert number(signed(BODY, rsa_identity()), replace(trusting(rsa_identity()), secondary=None)) == errno.ENOKEY


def test_several_signers_need_one_that_is_trusted() -> None:
    known, unknown = rsa_identity(), ec_identity()
    infos = [signer_info(unknown, BODY), signer_info(known, BODY)]
    assert number(appended(BODY, message(infos)), trusting(known)) == 0
    broken = [signer_info(unknown, BODY), signer_info(known, b"other")]
    assert number(appended(BODY, message(broken)), trusting(known)) == errno.EKEYREJECTED


def test_a_banned_file_is_rejected_though_its_signature_is_good() -> None:
    data = signed(BODY, rsa_identity())
    digest = hashlib.sha256(data).hexdigest()
    verdict = verify_signature(data, replace(trusting(rsa_identity()), banned=frozenset({f"bin:{digest}"})))
    assert verdict.number == errno.EKEYREJECTED
    assert verdict.lines == ((3, f"Module hash {digest} is blacklisted"),)


# Certificates inside the message


def with_certificates(identity: Any, *carried: Any, body: bytes = BODY) -> bytes:
    certificates = [one.data for one in carried]
    return appended(BODY, message([signer_info(identity, body)], certificates=certificates))


def test_a_carried_chain_leads_to_a_trusted_root() -> None:
    root = ec_identity("root")
    middle = make_identity("middle", issuer=root)
    leaf = make_identity("leaf", issuer=middle)
    data = with_certificates(leaf, leaf, middle)
    assert number(data, trusting(root)) == 0
    assert number(data, trusting(middle)) == 0
    assert number(data, trusting(leaf)) == 0
    assert number(data) == errno.ENOKEY
    assert number(with_certificates(leaf, leaf), trusting(root)) == errno.ENOKEY


def test_a_carried_certificate_checks_the_signature_even_if_nobody_trusts_it() -> None:
    leaf = ec_identity("leaf")
    assert number(with_certificates(leaf, leaf)) == errno.ENOKEY
    assert number(with_certificates(leaf, leaf, body=b"other")) == errno.EKEYREJECTED


def test_a_carried_certificate_that_is_banned_rejects() -> None:
    leaf = ec_identity("leaf")
    data = with_certificates(leaf, leaf)
    banned = replace(NOBODY, banned=frozenset({f"tbs:{tbs_digest(leaf).hex()}"}))
    verdict = verify_signature(data, banned)
    assert verdict.number == errno.EKEYREJECTED
    assert verdict.lines[0].text.startswith("X.509: Cert ")


# What is not a signature


@pytest.mark.parametrize("data", [BODY, b"", MARKER, MARKER[1:], BODY + MARKER[:-1], BODY + MARKER + b"\0"])
def test_a_file_without_marker_is_unsigned_and_keeps_its_length(data: bytes) -> None:
    verdict = verify_signature(data, NOBODY)
    assert (verdict.number, verdict.length, verdict.lines) == (errno.ENODATA, len(data), ())


@pytest.mark.parametrize("size", [0, 1, 0xFFFFFFFF, len(BODY) + 500])
def test_a_trailer_with_a_wrong_size_is_ebadmsg(size: int) -> None:
    data = BODY + message([signer_info(ec_identity(), BODY)]) + trailer(size) + MARKER
    verdict = verify_signature(data, NOBODY)
    assert (verdict.number, verdict.lines) == (errno.EBADMSG, ())


def test_a_trailer_alone_or_one_without_module_is_ebadmsg() -> None:
    signature = message([signer_info(ec_identity(), BODY)])
    assert number(trailer(0) + MARKER) == errno.EBADMSG
    assert number(appended(b"", signature)) == errno.EBADMSG


@pytest.mark.parametrize("id_type", [0, 1, 3, 255])
def test_another_type_of_signature_is_enopkg_and_stays_in_the_file(id_type: int) -> None:
    data = appended(BODY, message([signer_info(ec_identity(), BODY)]), id_type=id_type)
    verdict = verify_signature(data, NOBODY)
    assert verdict.number == errno.ENOPKG
    assert verdict.length == len(data) - len(MARKER)
    assert verdict.lines == ((3, "module: not signed with expected PKCS#7 message"),)


@pytest.mark.parametrize("at", range(7))
def test_any_other_field_of_the_trailer_must_be_zero(at: int) -> None:
    other = bytes(1 if index == at else 0 for index in range(7))
    verdict = verify_signature(appended(BODY, message([signer_info(ec_identity(), BODY)]), other=other), NOBODY)
    assert verdict.number == errno.EBADMSG
    assert verdict.lines == ((3, "module: PKCS#7 signature info has unexpected non-zero params"),)


# Messages the kernel refuses

ATTRIBUTES = der(
    0xA0,
    der(0x30, oid(oids.CONTENT_TYPE), der(0x31, oid(oids.DATA))),
    der(0x30, oid(oids.MESSAGE_DIGEST), der(0x31, der(4, hashlib.sha256(BODY).digest()))),
)


def info(**fields: Any) -> bytes:
    return signer_info(ec_identity(), BODY, **fields)


@pytest.mark.parametrize(
    ("signature", "wanted", "lines"),
    [
        (b"garbage of some length", errno.EBADMSG, []),
        (message([]), errno.EBADMSG, []),
        (message(None), errno.EINVAL, ["PKCS7: Inconsistently supplied authAttrs"]),
        (message([info()], outer_type=oids.DATA), errno.EINVAL, ["PKCS7: Only support pkcs7_signedData type"]),
        (message([info()], content_type=oids.SIGNED_DATA), errno.EINVAL, ["PKCS7: Unsupported data type 20"]),
        (message([info()], version=2), errno.EINVAL, ["PKCS7: Unsupported SignedData version"]),
        (message([info(version=2)]), errno.EINVAL, ["PKCS7: Unsupported SignerInfo version"]),
        (message([info(version=3)]), errno.EBADMSG, ["PKCS7: SignedData-SignerInfo version mismatch"]),
        (message([info()], version=3), errno.EBADMSG, ["PKCS7: SignedData-SignerInfo version mismatch"]),
        (
            message([info()], content=der(4, b"x")),
            errno.EBADMSG,
            ["PKCS7: Data already supplied", "PKCS#7 signature with non-detached data"],
        ),
        (
            message([info(attributes=ATTRIBUTES)]),
            errno.EKEYREJECTED,
            ["PKCS7: Invalid module sig (has authattrs)"],
        ),
        (
            message([info(attributes=ATTRIBUTES), info()]),
            errno.EINVAL,
            ["PKCS7: Inconsistently supplied authAttrs"],
        ),
        (message([info(attributes=der(0xA0, ATTRIBUTES[2:35]))]), errno.EBADMSG, None),
        (
            message([info(attributes=der(0xA0, ATTRIBUTES[2:28]))]),
            errno.EBADMSG,
            ["PKCS7: Missing required AuthAttr"],
        ),
        (message([info(key_oid="1.2.840.10040.4.1")]), errno.ENOPKG, ["Unsupported pkey algo: 1"]),
        (message([info()], certificates=[der(0x31)]), errno.EBADMSG, []),
    ],
)
def test_a_message_is_refused_with_the_kernel_s_errno_and_words(
    signature: bytes, wanted: int, lines: list[str] | None
) -> None:
    verdict = verify_signature(appended(BODY, signature), trusting(ec_identity()))
    assert verdict.number == wanted
    if lines is not None:
        assert [line.text for line in verdict.lines] == lines


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        (der(0x30, oid(oids.CONTENT_TYPE), der(0x31, oid(oids.SIGNED_DATA))), errno.EBADMSG),
        (der(0x30, oid(oids.CONTENT_TYPE), der(0x31, oid(oids.DATA), oid(oids.DATA))), errno.EKEYREJECTED),
        (der(0x30, oid(oids.SIGNING_TIME), der(0x31, der(0x17, b"no time"))), errno.EBADMSG),
        (der(0x30, oid(oids.MESSAGE_DIGEST), der(0x31, der(0x0C, b"text"))), errno.EBADMSG),
        (der(0x30, oid(oids.SMIME_CAPABILITIES), der(0x31, der(0x30, b""))), errno.EKEYREJECTED),
        (der(0x30, oid(oids.MS_SP_OPUS_INFO), der(0x31, der(0x30, b""))), errno.EKEYREJECTED),
        (der(0x30, oid("1.2.3.4"), der(0x31, der(0x30, b""))), errno.EBADMSG),
    ],
)
def test_attributes_are_judged_one_by_one(attribute: bytes, wanted: int) -> None:
    signature = message([info(attributes=der(0xA0, attribute))])
    assert number(appended(BODY, signature), trusting(ec_identity())) == wanted


def test_an_unknown_digest_prints_where_it_stands_and_needs_no_key() -> None:
    unknown = "1.3.36.3.2.1"
    signature = message([info(hash_oid=unknown)])
    verdict = verify_signature(appended(BODY, signature), NOBODY)
    place = signature.index(oids.encoded(unknown))
    assert verdict.number == errno.ENOPKG
    assert verdict.lines == (
        (4, f"PKCS7: Unknown OID: [{place}] {unknown}"),
        (4, "Unsupported digest algo: 98"),
    )


def test_an_unknown_name_attribute_is_printed_once_for_each_ring_that_is_asked() -> None:
    signature = message([info()]).replace(oids.encoded(oids.COMMON_NAME), oids.encoded("2.5.4.99"))
    lines = verify_signature(appended(BODY, signature), NOBODY).lines
    assert [line.text.rpartition(" ")[2] for line in lines] == ["2.5.4.99", "2.5.4.99"]


def test_a_digest_that_is_a_module_nobody_can_load_is_enopkg() -> None:
    rings = Keyrings(algorithms=Algorithms())
    verdict = verify_signature(signed(BODY, rsa_identity(), hash_name="sha512"), rings)
    assert (verdict.number, verdict.rings) == (errno.ENOPKG, ())


def test_an_empty_key_identifier_is_einval() -> None:
    signer = der(0x30, der(2, b"\3"), der(0x80), algorithm("2.16.840.1.101.3.4.2.1"))
    rest = algorithm(oids.RSA_ENCRYPTION) + der(4, b"x")
    broken = der(0x30, signer[2:], rest)
    assert number(appended(BODY, message([broken], version=3))) == errno.EINVAL


def test_a_message_above_64_kib_is_emsgsize() -> None:
    assert number(appended(BODY, bytes(0x10000))) == errno.EMSGSIZE


# Policy


def test_an_unsigned_module_loads_tainted_where_nothing_forbids_it() -> None:
    result = check(BODY, against(NOBODY))
    assert (result.ok, result.number, result.lines) == (False, 0, ())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BODY, "unsigned module"),
        (signed(BODY, ec_identity()), "module with unavailable key"),
        (appended(BODY, message([info()]), id_type=1), "module with unsupported crypto"),
    ],
)
def test_enforcement_rejects_what_otherwise_taints(data: bytes, reason: str) -> None:
    assert check(data, against(NOBODY)).number == 0
    result = check(data, against(NOBODY), enforced=True, lockdown=Lockdown.INTEGRITY)
    assert result.number == errno.EKEYREJECTED
    assert result.lines[-1] == (5, f"Loading of {reason} is rejected")


@pytest.mark.parametrize("lockdown", [Lockdown.INTEGRITY, Lockdown.CONFIDENTIALITY])
def test_lockdown_names_the_loading_process(lockdown: Lockdown) -> None:
    result = check(BODY, against(NOBODY), lockdown=lockdown, comm="modprobe")
    words = "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"
    assert (result.number, result.lines) == (errno.EPERM, ((5, words),))


def test_a_broken_signature_is_refused_under_every_policy() -> None:
    broken = BODY + trailer(0) + MARKER
    for policy in ({}, {"enforced": True}, {"lockdown": Lockdown.INTEGRITY}):
        result = check(broken, against(NOBODY), **policy)  # type: ignore[arg-type]  # a dict of keyword arguments
        assert (result.number, result.lines) == (errno.EBADMSG, ())


@pytest.mark.parametrize("flags", [1, 2, 3])
def test_ignoring_versions_makes_a_signed_module_unsigned(flags: int) -> None:
    data, rings = signed(BODY, rsa_identity()), trusting(rsa_identity())
    assert check(data, against(rings)).ok
    result = check(data, against(rings), flags=flags)
    assert (result.ok, result.number, result.verdict.length) == (False, 0, len(data))
    assert (
        check(data, against(rings), flags=flags, enforced=True).lines[-1].text
        == "Loading of unsigned module is rejected"
    )
