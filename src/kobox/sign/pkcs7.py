"""PKCS#7 signatures as the kernel reads and judges them.

``parse_message`` makes a record of the bytes, ``verify`` checks that it is consistent in itself, ``validate_trust``
looks for a way from it to a trusted key. Each raises ``Errno`` with the number the kernel answers; what it prints goes
to ``log``. Follows crypto/asymmetric_keys/pkcs7_parser.c, pkcs7_verify.c and pkcs7_trust.c. Which ring is asked is
``modules``' business.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from kobox.errors import Errno
from kobox.sign import asn1, oids
from kobox.sign.keyrings import Key, Keyring
from kobox.sign.keys import Algorithms, Buffer, Signature
from kobox.sign.x509 import Certificate, decode_time, parse_certificate

Log = Callable[[int, str], None]


@dataclass(slots=True, eq=False)
class Signer:
    """One SignerInfo. ``identity`` is what names its key: serial number and issuer, or a subject key identifier."""

    index: int
    identity: bytes
    by_skid: bool
    serial: bytes
    raw_issuer: bytes
    hash_name: str
    key_type: str
    value: bytes
    attributes: bytes | None
    message_digest: bytes | None
    signing_time: int | None
    signature: Signature | None = None
    certificate: Carried | None = None
    unsupported: bool = False
    blacklisted: bool = False


@dataclass(slots=True, eq=False)
class Carried:
    """A certificate inside a message, and what is found out about it while the message is judged."""

    index: int
    certificate: Certificate
    blacklisted: bool
    unsupported: bool
    signer: Carried | None = None
    seen: bool = False
    verified: bool = False


@dataclass(slots=True)
class Message:
    """A SignedData. ``content`` is None while it is detached: then the caller supplies it."""

    version: int = 0
    content_type: str = ""
    content: Buffer | None = None
    certificates: list[Carried] = field(default_factory=list)
    signers: list[Signer] = field(default_factory=list)
    has_attributes: bool = False


class Attribute(Enum):
    """The authenticated attributes that may not be repeated."""

    CONTENT_TYPE = oids.CONTENT_TYPE
    SIGNING_TIME = oids.SIGNING_TIME
    MESSAGE_DIGEST = oids.MESSAGE_DIGEST
    SMIME_CAPABILITIES = oids.SMIME_CAPABILITIES
    OPUS_INFO = oids.MS_SP_OPUS_INFO
    STATEMENT_TYPE = oids.MS_STATEMENT_TYPE


def parse_message(
    data: bytes,
    algorithms: Algorithms,
    registry: oids.Registry,
    log: Log = lambda level, text: None,
    is_blacklisted: Callable[[bytes], bool] = lambda digest: False,
) -> Message:
    """Parse a PKCS#7 message; ``is_blacklisted`` is asked with the digest of each carried certificate."""
    reading = _Reading(data, algorithms, registry, log, is_blacklisted)
    asn1.decode(_MESSAGE, reading, data)
    message = reading.message
    kinds = {signer.attributes is not None for signer in message.signers}
    if len(kinds) != 1:
        log(4, "PKCS7: Inconsistently supplied authAttrs")
        raise Errno(errno.EINVAL, "no signer, or authenticated attributes with some signers only")
    message.has_attributes = kinds.pop()
    return message


def verify(message: Message, algorithms: Algorithms, log: Log) -> None:
    """Check a module's signature for consistency: digests, and signatures by certificates that it carries itself."""
    if message.content_type != oids.DATA:
        log(4, "PKCS7: Invalid module sig (not pkcs7-data)")
        raise Errno(errno.EKEYREJECTED, "signature is not over plain data")
    if message.has_attributes:
        log(4, "PKCS7: Invalid module sig (has authattrs)")
        raise Errno(errno.EKEYREJECTED, "signature has authenticated attributes")
    verify_consistent(message, algorithms, log)


def verify_consistent(
    message: Message, algorithms: Algorithms, log: Log = lambda level, text: None, at_any_time: bool = False
) -> None:
    """Check any message for consistency, whatever it is over. ``at_any_time``: certificates may have expired before the
    signature was made, as firmware has it, whose clock nobody trusts."""
    answer = errno.ENOPKG
    for signer in message.signers:
        try:
            _verify_one(message, signer, algorithms, log, at_any_time)
        except Errno as refused:
            if refused.number != errno.ENOPKG:
                raise
            signer.unsupported = True
            continue
        if signer.blacklisted:
            answer = errno.EKEYREJECTED if answer == errno.ENOPKG else answer
        else:
            answer = 0
    if answer:
        why = "signed with a blacklisted certificate" if answer == errno.EKEYREJECTED else "no digest this kernel has"
        raise Errno(answer, why)


def _verify_one(message: Message, signer: Signer, algorithms: Algorithms, log: Log, at_any_time: bool) -> None:
    _digest(message, signer, algorithms, log)
    for carried in message.certificates:
        if carried.certificate.identity == signer.identity:
            signer.certificate = carried
            break
    if signer.certificate is None or signer.signature is None:
        return
    certificate = signer.certificate.certificate
    valid = signer.signing_time is None or certificate.valid_from <= signer.signing_time <= certificate.valid_to
    if not valid and not at_any_time:
        log(4, "PKCS7: Message signed outside of X.509 validity window")
        raise Errno(errno.EKEYREJECTED, "signed outside of the certificate's validity")
    certificate.key.verify(signer.signature, algorithms)
    _verify_chain(message, signer, algorithms, log)


def _digest(message: Message, signer: Signer, algorithms: Algorithms, log: Log) -> None:
    if signer.signature is not None:
        return
    digest = algorithms.digest(signer.hash_name, message.content or b"")
    if digest is None:
        raise Errno(errno.ENOPKG, f"this kernel has no {signer.hash_name}")
    if signer.attributes is not None:
        claimed = signer.message_digest or b""
        if len(claimed) != len(digest):
            log(4, f"PKCS7: Sig {signer.index}: Invalid digest size ({len(claimed)})")
            raise Errno(errno.EBADMSG, "messageDigest of a wrong size")
        if claimed != digest:
            log(4, f"PKCS7: Sig {signer.index}: Message digest doesn't match")
            raise Errno(errno.EKEYREJECTED, "messageDigest differs")
        digest = algorithms.digest(signer.hash_name, bytes([asn1.SET]), signer.attributes) or b""
    signer.signature = Signature(signer.key_type, signer.hash_name, signer.value, digest)


def _verify_chain(message: Message, signer: Signer, algorithms: Algorithms, log: Log) -> None:
    """Follow the signer's certificate to its issuers among the carried ones, checking each signature."""
    for carried in message.certificates:
        carried.seen = False
    current = signer.certificate
    while current is not None:
        current.seen = True
        if current.blacklisted:
            signer.blacklisted = True
            below = signer.certificate
            while below is not None and below is not current:
                below.blacklisted = True
                below = below.signer
            return
        certificate = current.certificate
        if certificate.self_signed:
            if not current.unsupported:
                current.signer = current
            return
        issuer = _carried_issuer(message, certificate)
        if issuer is None:
            return
        by_identity = certificate.issuer_identity is not None
        if by_identity and certificate.issuer_skid is not None and issuer.certificate.skid != certificate.issuer_skid:
            log(
                4,
                f"PKCS7: Sig {signer.index}: X.509 chain contains auth-skid nonmatch ({current.index}->{issuer.index})",
            )
            raise Errno(errno.EKEYREJECTED, "certificate chain: key identifiers differ")
        if issuer.seen:
            log(4, f"PKCS7: Sig {signer.index}: X.509 chain contains loop")
            return
        issuer.certificate.key.verify(certificate.signature, algorithms)
        current.signer = issuer
        current = issuer


def _carried_issuer(message: Message, certificate: Certificate) -> Carried | None:
    if certificate.issuer_identity is not None:
        wanted, of = certificate.issuer_identity, "identity"
    elif certificate.issuer_skid is not None:
        wanted, of = certificate.issuer_skid, "skid"
    else:
        return None
    return next((other for other in message.certificates if getattr(other.certificate, of) == wanted), None)


def validate_trust(message: Message, ring: Keyring, algorithms: Algorithms) -> Key:
    """The key of ``ring`` that vouches for the message. ENOKEY, ENOPKG or EKEYREJECTED when there is none."""
    for carried in message.certificates:
        carried.seen = False
    answer, found = errno.ENOKEY, None
    for signer in message.signers:
        try:
            found = _trust_one(signer, ring, algorithms) or found
        except Errno as refused:
            if refused.number == errno.ENOKEY:
                continue
            if refused.number != errno.ENOPKG:
                raise
            answer = errno.ENOPKG if answer == errno.ENOKEY else answer
    if found is None:
        raise Errno(answer, f"no key of {ring.name} vouches for it")
    return found


def _trust_one(signer: Signer, ring: Keyring, algorithms: Algorithms) -> Key | None:
    """The key that vouches for one signer; None when a certificate already found trusted by another signer does."""
    if signer.unsupported or signer.signature is None:
        raise Errno(errno.ENOPKG, f"this kernel has no {signer.hash_name}")
    no_key = Errno(errno.ENOKEY, f"no key of {ring.name} matches")
    signature, last, current = signer.signature, None, signer.certificate
    while current is not None:
        if current.seen:
            if current.verified:
                return ring.find(current.certificate.identity, None)
            raise no_key
        current.seen = True
        certificate = current.certificate
        try:
            key = ring.find(certificate.identity, certificate.skid)
        except Errno:
            key = None
        if key is not None:
            return _vouched(key, signature, signer, current, algorithms)
        if current.signer is current:
            raise no_key
        last, signature, current = current, certificate.signature, current.signer
    if last is not None:
        certificate = last.certificate
        if certificate.issuer_identity is not None or certificate.issuer_skid is not None:
            key = ring.find(certificate.issuer_identity, certificate.issuer_skid)
            if key is not None:
                return _vouched(key, certificate.signature, signer, last, algorithms)
    key = ring.find(signer.identity, None)
    if key is None:
        raise no_key
    return _vouched(key, signer.signature, signer, None, algorithms)


def _vouched(key: Key, signature: Signature, signer: Signer, upto: Carried | None, algorithms: Algorithms) -> Key:
    try:
        key.public.verify(signature, algorithms)
    except Errno as refused:
        raise Errno(errno.EKEYREJECTED, f"{key.description}: {refused.why}") from None
    if upto is not None:
        upto.verified = True
        below = signer.certificate
        while below is not None and below is not upto:
            below.verified = True
            below = below.signer
    return key


class _Reading:
    """What the walk along the grammar collects; a SignerInfo's values are kept until its end."""

    def __init__(
        self,
        data: bytes,
        algorithms: Algorithms,
        registry: oids.Registry,
        log: Log,
        is_blacklisted: Callable[[bytes], bool],
    ) -> None:
        self.data, self.algorithms, self.registry = data, algorithms, registry
        self.log, self.is_blacklisted = log, is_blacklisted
        self.message = Message()
        self.certificates: list[Carried] = []
        self.last_oid = (0, "")
        self.expects_skid = False
        self.serial = self.raw_issuer = self.skid = b""
        self.signer_index = 0
        self.begin_signer()

    def begin_signer(self) -> None:
        self.hash_name = self.key_type = ""
        self.value = b""
        self.attributes: bytes | None = None
        self.message_digest: bytes | None = None
        self.signing_time: int | None = None
        self.noted: set[Attribute] = set()

    def octets(self, value: asn1.Value) -> bytes:
        return self.data[value.start : value.start + value.length]

    def refuse(self, number: int, text: str, level: int = 4) -> Errno:
        self.log(level, text)
        return Errno(number, text.removeprefix("PKCS7: "))

    def note_oid(self, value: asn1.Value) -> None:
        content = self.octets(value)
        self.last_oid = self.registry.look_up(content)
        if not self.last_oid[1]:
            self.log(4, f"PKCS7: Unknown OID: [{value.start}] {oids.printed(content)}")

    def check_content_type(self, value: asn1.Value) -> None:
        if self.last_oid[1] != oids.SIGNED_DATA:
            raise self.refuse(errno.EINVAL, "PKCS7: Only support pkcs7_signedData type")

    def note_version(self, value: asn1.Value) -> None:
        octets = self.octets(value)
        if octets not in (b"\1", b"\3"):
            raise self.refuse(errno.EINVAL, "PKCS7: Unsupported SignedData version")
        self.message.version = octets[0]

    def note_signer_version(self, value: asn1.Value) -> None:
        octets = self.octets(value)
        if octets not in (b"\1", b"\3"):
            raise self.refuse(errno.EINVAL, "PKCS7: Unsupported SignerInfo version")
        self.expects_skid = octets == b"\3"
        if self.expects_skid == (self.message.version == 1):
            raise self.refuse(errno.EBADMSG, "PKCS7: SignedData-SignerInfo version mismatch")

    def note_content(self, value: asn1.Value) -> None:
        if self.last_oid[1] not in (oids.DATA, oids.MS_INDIRECT_DATA):
            raise self.refuse(errno.EINVAL, f"PKCS7: Unsupported data type {self.last_oid[0]}")
        self.message.content_type = self.last_oid[1]

    def note_data(self, value: asn1.Value) -> None:
        self.message.content = self.octets(value)

    def note_certificate(self, value: asn1.Value) -> None:
        if value.tag != asn1.SEQUENCE:
            raise Errno(errno.EBADMSG, "a certificate that is no SEQUENCE")
        start, end = value.start - value.header, value.start + value.length
        if self.data[start + 1] == 0x80:
            end += 2
        certificate = parse_certificate(
            self.data[start:end], self.algorithms, self.registry, self.is_blacklisted, self.log
        )
        self.certificates.append(
            Carried(
                len(self.message.certificates) + len(self.certificates) + 1,
                certificate,
                certificate.blacklisted,
                certificate.unsupported_signature,
            )
        )

    def note_certificates(self, value: asn1.Value) -> None:
        self.message.certificates[:0] = self.certificates
        self.certificates = []

    def note_digest_algorithm(self, value: asn1.Value) -> None:
        name = oids.HASHES.get(self.last_oid[1])
        if name is None:
            raise self.refuse(errno.ENOPKG, f"Unsupported digest algo: {self.last_oid[0]}")
        self.hash_name = name

    def note_key_algorithm(self, value: asn1.Value) -> None:
        oid = self.last_oid[1]
        if oid == oids.RSA_ENCRYPTION:
            self.key_type = "rsa"
        elif oid in oids.ECDSA:
            self.key_type = "ecdsa"
        elif oid == oids.SM2_WITH_SM3:
            self.key_type = "sm2"
        elif oid in oids.GOST_KEYS:
            self.key_type = "ecrdsa"
        else:
            raise self.refuse(errno.ENOPKG, f"Unsupported pkey algo: {self.last_oid[0]}")

    def note_attribute(self, value: asn1.Value) -> None:
        try:
            attribute = Attribute(self.last_oid[1])
        except ValueError:
            return
        if attribute in self.noted:
            raise self.refuse(errno.EKEYREJECTED, "PKCS7: Repeated/multivalue AuthAttrs not permitted")
        self.noted.add(attribute)
        octets, is_authenticode = self.octets(value), self.message.content_type == oids.MS_INDIRECT_DATA
        if attribute is Attribute.CONTENT_TYPE:
            number, oid = self.registry.look_up(octets)
            if oid != self.message.content_type:
                known = self.registry.look_up(oids.encoded(self.message.content_type))[0]
                raise self.refuse(
                    errno.EBADMSG,
                    # The signer gets its index at its end, so the kernel prints 0 here.
                    f"PKCS7: Mismatch between global data type ({known}) and sinfo 0 ({number})",
                )
        elif attribute is Attribute.SIGNING_TIME:
            self.signing_time = decode_time(value.tag, octets)
        elif attribute is Attribute.MESSAGE_DIGEST:
            if value.tag != asn1.OCTET_STRING:
                raise Errno(errno.EBADMSG, "messageDigest is no OCTET STRING")
            self.message_digest = octets
        elif attribute is Attribute.SMIME_CAPABILITIES:
            if not is_authenticode:
                raise self.refuse(errno.EKEYREJECTED, "PKCS7: S/MIME Caps only allowed with Authenticode")
        elif not is_authenticode:
            raise self.refuse(errno.EKEYREJECTED, "PKCS7: Authenticode AuthAttrs only allowed with Authenticode")

    def note_attributes(self, value: asn1.Value) -> None:
        if not {Attribute.CONTENT_TYPE, Attribute.MESSAGE_DIGEST} <= self.noted:
            raise self.refuse(errno.EBADMSG, "PKCS7: Missing required AuthAttr")
        # All but the tag: what is digested has the tag of a SET in its place.
        self.attributes = self.data[value.start - (value.header - 1) : value.start + value.length]

    def note_issuer(self, value: asn1.Value) -> None:
        self.raw_issuer = self.octets(value)

    def note_serial(self, value: asn1.Value) -> None:
        self.serial = self.octets(value)

    def note_skid(self, value: asn1.Value) -> None:
        self.skid = self.octets(value)

    def note_signature(self, value: asn1.Value) -> None:
        self.value = self.octets(value)

    def note_signer(self, value: asn1.Value) -> None:
        if self.message.content_type == oids.MS_INDIRECT_DATA and self.attributes is None:
            raise self.refuse(errno.EBADMSG, "PKCS7: Authenticode requires AuthAttrs")
        self.signer_index += 1
        self.message.signers.append(
            Signer(
                index=self.signer_index,
                identity=self.skid if self.expects_skid else self.serial + self.raw_issuer,
                by_skid=self.expects_skid,
                serial=self.serial,
                raw_issuer=self.raw_issuer,
                hash_name=self.hash_name,
                key_type=self.key_type,
                value=self.value,
                attributes=self.attributes,
                message_digest=self.message_digest,
                signing_time=self.signing_time,
            )
        )
        self.begin_signer()


_OID = asn1.leaf(asn1.OBJECT_IDENTIFIER, "note_oid")
_DIGEST_ALGORITHM = asn1.sequence(_OID, asn1.optional(asn1.anything()), shared=True)
_CERTIFICATE = asn1.anything("note_certificate")
_CERTIFICATE_LIST = asn1.sequence_of(_CERTIFICATE)
_NAME = asn1.sequence_of(asn1.set_of(asn1.sequence(_OID, asn1.anything())))
_ATTRIBUTE = asn1.sequence(_OID, asn1.set_of(asn1.anything("note_attribute")), shared=True)
_PLAIN_ATTRIBUTE = asn1.sequence(asn1.leaf(asn1.OBJECT_IDENTIFIER), asn1.set_of(asn1.anything()), shared=True)
_SIGNER = asn1.sequence(
    asn1.leaf(asn1.INTEGER, "note_signer_version"),
    asn1.choice(
        asn1.sequence(asn1.named(_NAME, "note_issuer"), asn1.named(asn1.leaf(asn1.INTEGER), "note_serial")),
        asn1.implicit(0, asn1.leaf(asn1.OCTET_STRING, "note_skid")),
    ),
    asn1.named(_DIGEST_ALGORITHM, "note_digest_algorithm"),
    asn1.optional(
        asn1.choice(
            asn1.implicit(0, asn1.named(asn1.set_of(_ATTRIBUTE), "note_attributes")),
            asn1.explicit(2, asn1.sequence_of(_ATTRIBUTE)),
        )
    ),
    asn1.named(asn1.sequence(_OID, asn1.optional(asn1.anything())), "note_key_algorithm"),
    asn1.leaf(asn1.OCTET_STRING, "note_signature"),
    asn1.optional(
        asn1.choice(
            asn1.implicit(1, asn1.set_of(_PLAIN_ATTRIBUTE)),
            asn1.implicit(3, asn1.sequence_of(_PLAIN_ATTRIBUTE)),
        )
    ),
    action="note_signer",
    shared=True,
)
_SIGNED_DATA = asn1.sequence(
    asn1.leaf(asn1.INTEGER, "note_version"),
    asn1.choice(asn1.set_of(_DIGEST_ALGORITHM), asn1.sequence_of(_DIGEST_ALGORITHM)),
    asn1.named(
        asn1.sequence(asn1.named(_OID, "note_oid"), asn1.optional(asn1.explicit(0, asn1.anything("note_data")))),
        "note_content",
    ),
    asn1.optional(
        asn1.choice(
            asn1.implicit(0, asn1.set_of(asn1.choice(_CERTIFICATE, _CERTIFICATE))),
            asn1.implicit(2, asn1.sequence_of(_CERTIFICATE)),
            action="note_certificates",
        )
    ),
    asn1.optional(
        asn1.choice(
            asn1.implicit(1, asn1.set_of(_CERTIFICATE_LIST)),
            asn1.implicit(3, asn1.sequence_of(_CERTIFICATE_LIST)),
        )
    ),
    asn1.choice(asn1.set_of(_SIGNER), asn1.sequence_of(_SIGNER)),
)
_MESSAGE = asn1.sequence(
    asn1.named(_OID, "check_content_type"),
    asn1.optional(asn1.explicit(0, _SIGNED_DATA)),
)
