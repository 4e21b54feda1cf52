"""Signing modules: the PKCS#7 message that the kernel's sign-file makes, and the trailer that holds it at a file's end.

Follows scripts/sign-file.c: one signer, no certificate and no attribute in the message, the digest algorithm without
parameters. For RSA the bytes are the tool's own.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from kobox.errors import BadFile, Errno, UsageError
from kobox.ko.signature import MARKER, PKEY_ID_PKCS7
from kobox.sign import der, oids
from kobox.sign.asn1 import INTEGER, OCTET_STRING, SEQUENCE, SET
from kobox.sign.keys import Algorithms, Buffer
from kobox.sign.private import HASHES, PrivateKey
from kobox.sign.x509 import Certificate, parse_certificate

_CONTEXT_0, _CONTEXT_0_CONSTRUCTED = 0x80, 0xA0
_TRAILER = Struct(">2xB5xI")
"""Kind of message and its length; the other fields of ``struct module_signature`` are zero with PKCS#7."""
_HASH_OIDS = {name: oid for oid, name in oids.HASHES.items()}
_ECDSA_OIDS = {name: oid for oid, name in oids.ECDSA.items()}


class Signer(NamedTuple):
    """Who signs: the key, its certificate, over which digest. ``by_key_id`` names the certificate by its subject key
    identifier (sign-file's ``-k``) instead of issuer and serial number."""

    key: PrivateKey
    certificate: Certificate
    hash_name: str
    by_key_id: bool = False

    @classmethod
    def of(
        cls, key: PrivateKey, certificate: bytes, hash_name: str, by_key_id: bool = False, file: str = "certificate"
    ) -> Signer:
        """Check that these go together. ``certificate`` is DER, ``file`` what errors call it."""
        if hash_name not in HASHES:
            raise UsageError(f"{hash_name}: no such hash algorithm", f"one of {', '.join(HASHES)}")
        try:
            parsed = parse_certificate(certificate, Algorithms.every(), oids.default_registry())
        except Errno as refused:
            raise BadFile(file, "", f"the kernel would not read this certificate: {refused}") from None
        if parsed.key.data != key.public_bits:
            raise UsageError(f"{file}: the private key does not match the certificate of '{parsed.subject}'")
        if by_key_id and parsed.skid is None:
            raise UsageError(f"{file}: the certificate has no subject key identifier to be named by")
        return cls(key, parsed, hash_name, by_key_id)

    def sign(self, content: Buffer) -> bytes:
        """The detached PKCS#7 message over ``content``."""
        version = der.integer(3 if self.by_key_id else 1)
        digest = der.value(SEQUENCE, der.oid(_HASH_OIDS[self.hash_name]))
        signer = der.value(
            SEQUENCE,
            version,
            self._identifier(),
            digest,
            self._algorithm(),
            der.value(OCTET_STRING, self.key.sign(content, self.hash_name)),
        )
        content_info = der.value(SEQUENCE, der.oid(oids.DATA))
        signed = der.value(SEQUENCE, version, der.value(SET, digest), content_info, der.value(SET, signer))
        return der.value(SEQUENCE, der.oid(oids.SIGNED_DATA), der.value(_CONTEXT_0_CONSTRUCTED, signed))

    def _identifier(self) -> bytes:
        if self.by_key_id:
            return der.value(_CONTEXT_0, self.certificate.skid or b"")
        issuer = der.value(SEQUENCE, self.certificate.raw_issuer)
        return der.value(SEQUENCE, issuer, der.value(INTEGER, self.certificate.serial))

    def _algorithm(self) -> bytes:
        if self.key.family == "rsa":
            return der.value(SEQUENCE, der.oid(oids.RSA_ENCRYPTION), der.NULL)
        return der.value(SEQUENCE, der.oid(_ECDSA_OIDS[self.hash_name]))


def append(module: Buffer, message: bytes) -> bytes:
    """A module with a message, made or brought, behind it."""
    return b"".join((module, message, _TRAILER.pack(PKEY_ID_PKCS7, len(message)), MARKER))
