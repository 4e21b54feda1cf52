"""Builders of signatures: DER by hand, certificates and keys by the cryptography library, signed module files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from kobox.sign import MACHINE, MARKER, Algorithms, Keyrings
from kobox.sign.oids import HASHES, encoded

HASH_OIDS = {name: oid for oid, name in HASHES.items()}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
EVERYTHING = Algorithms(
    built_in=frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "rsa", "ecdsa"}), modular=frozenset()
)


def der(tag: int, *parts: bytes) -> bytes:
    """One value with a definite length of the shortest form."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        length = bytes([size])
    else:
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes([0x80 | len(octets)]) + octets
    return bytes([tag]) + length + content


def oid(dotted: str) -> bytes:
    return der(0x06, encoded(dotted))


def algorithm(dotted: str) -> bytes:
    return der(0x30, oid(dotted), b"\x05\x00")


@dataclass(frozen=True)
class Identity:
    """A private key and its certificate."""

    key: Any
    certificate: x509.Certificate

    @property
    def data(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def issuer_and_serial(self) -> bytes:
        serial = self.certificate.serial_number
        octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
        return der(0x30, self.certificate.issuer.public_bytes(), der(0x02, octets))

    @property
    def skid(self) -> bytes:
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return found.value.digest

    def sign(self, body: bytes, hash_name: str) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(body, padding.PKCS1v15(), _HASHES[hash_name])
        signature: bytes = self.key.sign(body, ec.ECDSA(_HASHES[hash_name]))
        return signature


def make_identity(
    name: str, key: Any = None, issuer: Identity | None = None, is_ca: bool = True, hash_name: str = "sha256"
) -> Identity:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = x509.CertificateBuilder(issuer.certificate.subject if issuer else subject, subject, key.public_key())
    builder = (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2049, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return Identity(key, builder.sign(signer, _HASHES[hash_name]))  # type: ignore[arg-type]  # any of the two kinds


@cache
def rsa_identity(name: str = "rsa key") -> Identity:
    return make_identity(name, rsa.generate_private_key(65537, 2048))


@cache
def ec_identity(name: str = "ec key") -> Identity:
    return make_identity(name)


@cache
def kept_identity(name: str) -> Identity:
    """A key that is the same each time (``tests/data/keys``), for kernels whose boot is kept in the cache."""
    data = (Path(__file__).parent / f"data/keys/{name}.pem").read_bytes()
    return Identity(load_pem_private_key(data, None), x509.load_pem_x509_certificate(data))


def signer_info(
    identity: Identity,
    body: bytes,
    *,
    hash_name: str = "sha256",
    hash_oid: str | None = None,
    key_oid: str | None = None,
    by_skid: bool = False,
    version: int | None = None,
    attributes: bytes = b"",
    value: bytes | None = None,
) -> bytes:
    if key_oid is None:
        is_rsa = isinstance(identity.key, rsa.RSAPrivateKey)
        key_oid = "1.2.840.113549.1.1.1" if is_rsa else "1.2.840.10045.4.3.2"
    who = der(0x80, identity.skid) if by_skid else identity.issuer_and_serial
    return der(
        0x30,
        der(0x02, bytes([version or (3 if by_skid else 1)])),
        who,
        algorithm(hash_oid or HASH_OIDS[hash_name]),
        attributes,
        algorithm(key_oid),
        der(0x04, identity.sign(body, hash_name) if value is None else value),
    )


def message(
    signers: Sequence[bytes] | None,
    *,
    version: int = 1,
    content_type: str = "1.2.840.113549.1.7.1",
    outer_type: str = "1.2.840.113549.1.7.2",
    content: bytes = b"",
    certificates: Sequence[bytes] = (),
    hash_name: str = "sha256",
) -> bytes:
    carried = der(0xA0, *certificates) if certificates else b""
    inner = der(0x30, oid(content_type), der(0xA0, content) if content else b"")
    signed = der(
        0x30,
        der(0x02, bytes([version])),
        der(0x31, algorithm(HASH_OIDS[hash_name])),
        inner,
        carried,
        b"" if signers is None else der(0x31, *signers),
    )
    return der(0x30, oid(outer_type), der(0xA0, signed))


def trailer(size: int, *, id_type: int = 2, other: bytes = bytes(7)) -> bytes:
    """algo, hash, id_type, signer_len, key_id_len, three of padding, and the size. ``other`` is all but id_type."""
    return other[:2] + bytes([id_type]) + other[2:] + size.to_bytes(4, "big")


def appended(body: bytes, signature: bytes, **fields: Any) -> bytes:
    return body + signature + trailer(len(signature), **fields) + MARKER


def signed(body: bytes, identity: Identity, **fields: Any) -> bytes:
    by_skid = fields.get("by_skid", False)
    return appended(body, message([signer_info(identity, body, **fields)], version=3 if by_skid else 1))


def trusting(*identities: Identity, ring: str = MACHINE) -> Keyrings:
    rings = Keyrings(algorithms=EVERYTHING)
    return rings.with_keys(ring, [identity.data for identity in identities])


def tbs_digest(identity: Identity) -> bytes:
    """What a blacklist names a certificate by: SHA-256 of its signed part."""
    return hashlib.sha256(identity.certificate.tbs_certificate_bytes).digest()
