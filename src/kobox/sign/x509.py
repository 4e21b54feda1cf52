"""X.509 certificates as the kernel reads them: the few fields it uses, by its grammar and with its refusals.

Follows crypto/asymmetric_keys/x509_cert_parser.c and x509_public_key.c. A certificate is a record; trusting it is the
business of ``keyrings`` and ``pkcs7``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import date
from typing import NamedTuple

from kobox.errors import Errno
from kobox.sign import asn1, oids
from kobox.sign.keys import Algorithms, PublicKey, Signature

_EPOCH = date(1970, 1, 1).toordinal()


class Certificate(NamedTuple):
    """``identity`` is serial number followed by issuer, as raw content octets: what PKCS#7 names a signer by.

    ``issuer_identity`` and ``issuer_skid`` come from the authority key identifier, None where it lacks them.
    ``signature`` is None when the kernel lacks the algorithm it was made with. Times are seconds since 1970.
    """

    subject: str
    issuer: str
    serial: bytes
    raw_subject: bytes
    raw_issuer: bytes
    identity: bytes
    skid: bytes | None
    issuer_identity: bytes | None
    issuer_skid: bytes | None
    key: PublicKey
    signature: Signature
    tbs_digest: bytes | None
    valid_from: int
    valid_to: int
    self_signed: bool = False
    unsupported_signature: bool = False
    blacklisted: bool = False

    @property
    def description(self) -> str:
        """How the kernel names its key: subject, then subject key identifier (or serial number) in hex."""
        return f"{self.subject}: {(self.skid if self.skid is not None else self.serial).hex()}"


def parse_certificate(
    data: bytes,
    algorithms: Algorithms,
    registry: oids.Registry,
    is_blacklisted: Callable[[bytes], bool] = lambda digest: False,
    log: Callable[[int, str], None] = lambda level, text: None,
) -> Certificate:
    """Parse the certificate at the start of ``data``; ``Errno`` as the kernel's parser would answer.

    ``is_blacklisted`` is asked with the digest of the signed part; ``log`` gets what the kernel would print: level,
    text.
    """
    reading = _Reading(data, registry, log)
    asn1.decode(_CERTIFICATE, reading, data)
    if reading.raw_authority is not None:
        try:
            asn1.decode(_AUTHORITY, _Authority(reading, reading.raw_authority), reading.raw_authority)
        except Errno:
            log(4, "X.509: Couldn't decode AuthKeyIdentifier")
            raise
    digest = algorithms.digest(reading.hash_name, reading.tbs)
    certificate = Certificate(
        subject=reading.names["subject"].decode("latin-1"),
        issuer=reading.names["issuer"].decode("latin-1"),
        serial=reading.serial,
        raw_subject=reading.raw_subject or b"",
        raw_issuer=reading.raw_issuer,
        identity=reading.serial + reading.raw_issuer,
        skid=reading.skid,
        issuer_identity=reading.issuer_identity,
        issuer_skid=reading.issuer_skid,
        key=PublicKey(reading.key_algorithm, reading.key or b""),
        signature=Signature(reading.signer_type, reading.hash_name, reading.signature, digest),
        tbs_digest=digest,
        valid_from=reading.valid_from,
        valid_to=reading.valid_to,
        unsupported_signature=digest is None,
        blacklisted=digest is not None and is_blacklisted(digest),
    )
    if certificate.blacklisted:
        log(3, f"X.509: Cert {(digest or b'').hex()} is blacklisted")
    return _with_self_signature(certificate, algorithms)


def _with_self_signature(certificate: Certificate, algorithms: Algorithms) -> Certificate:
    """Decide whether it signed itself; if it says so, that signature has to verify."""
    if certificate.raw_subject != certificate.raw_issuer:
        return certificate
    wanted_id, wanted_skid = certificate.issuer_identity, certificate.issuer_skid
    if wanted_id is not None or wanted_skid is not None:
        same_skid = wanted_skid is not None and wanted_skid == certificate.skid
        same_id = wanted_id is not None and wanted_id == certificate.identity
        if not same_skid and not same_id:
            return certificate
        if same_skid != same_id and wanted_id is not None and wanted_skid is not None:
            raise Errno(
                errno.EKEYREJECTED, f"{certificate.subject}: the two parts of its authority identifier disagree"
            )
    if certificate.unsupported_signature:
        return certificate
    try:
        certificate.key.verify(certificate.signature, algorithms)
    except Errno as refused:
        if refused.number == errno.ENOPKG:
            return certificate._replace(unsupported_signature=True)
        raise
    return certificate._replace(self_signed=True)


def decode_time(tag: int, text: bytes) -> int:
    """A UTCTime (YYMMDDHHMMSSZ) or GeneralizedTime (YYYYMMDDHHMMSSZ) in seconds since 1970; ``Errno`` EBADMSG."""
    bad = Errno(errno.EBADMSG, f"time {text!r}")
    if len(text) != {asn1.UTC_TIME: 13, asn1.GENERALIZED_TIME: 15}.get(tag) or text[-1:] != b"Z":
        raise bad
    if not text[:-1].isdigit():
        raise bad
    pairs = [int(text[at : at + 2]) for at in range(0, len(text) - 1, 2)]
    if tag == asn1.UTC_TIME:
        year = pairs[0] + (1900 if pairs[0] >= 50 else 2000)
        rest = pairs[1:]
    else:
        year = pairs[0] * 100 + pairs[1]
        rest = pairs[2:]
        if 1950 <= year <= 2049:
            raise bad
    month, day, hour, minute, second = rest
    if year < 1970 or hour > 24 or minute > 59 or second > 60:
        raise bad
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        raise bad from None
    return days * 86400 + hour * 3600 + minute * 60 + second


class _Reading:
    """What the walk along the grammar collects."""

    def __init__(self, data: bytes, registry: oids.Registry, log: Callable[[int, str], None]) -> None:
        self.data, self.registry, self.log = data, registry, log
        self.last_oid = (0, "")
        self.tbs = self.signature = self.serial = self.raw_issuer = b""
        self.raw_subject: bytes | None = None
        self.raw_authority: bytes | None = None
        self.names: dict[str, bytes] = {}
        self.segments: dict[str, bytes] = {}
        self.signer_type = self.hash_name = self.key_algorithm = ""
        self.signature_oid = (0, "")
        self.parameters: bytes | None = None
        self.key: bytes | None = None
        self.skid: bytes | None = None
        self.issuer_identity: bytes | None = None
        self.issuer_skid: bytes | None = None
        self.valid_from = self.valid_to = 0

    def octets(self, value: asn1.Value) -> bytes:
        return self.data[value.start : value.start + value.length]

    def whole(self, value: asn1.Value) -> bytes:
        return self.data[value.start - value.header : value.start + value.length]

    def note_oid(self, value: asn1.Value) -> None:
        self.last_oid = self.registry.look_up(self.octets(value))

    def note_tbs(self, value: asn1.Value) -> None:
        self.tbs = self.whole(value)

    def note_serial(self, value: asn1.Value) -> None:
        self.serial = self.octets(value)

    def note_signature_algorithm(self, value: asn1.Value) -> None:
        found = oids.CERTIFICATE_SIGNATURES.get(self.last_oid[1])
        if found is None:
            raise Errno(errno.ENOPKG, f"certificate signed by an algorithm the kernel lacks ({self.last_oid[1]})")
        self.signer_type, self.hash_name = found
        self.signature_oid = self.last_oid

    def note_signature(self, value: asn1.Value) -> None:
        if self.last_oid[0] != self.signature_oid[0]:
            self.log(
                4,
                f"X.509: signatureAlgorithm ({self.last_oid[0]}) differs from"
                f" tbsCertificate.signature ({self.signature_oid[0]})",
            )
            raise Errno(errno.EINVAL, "certificate names two signature algorithms")
        self.signature = _bit_string(self.octets(value))

    def note_segment(self, value: asn1.Value) -> None:
        part = _NAME_PARTS.get(self.last_oid[1])
        if part:
            # The kernel keeps the length in one byte.
            self.segments[part] = self.data[value.start : value.start + (value.length & 0xFF)]

    def note_issuer(self, value: asn1.Value) -> None:
        self.raw_issuer = self.octets(value)
        self.note_name("issuer")

    def note_subject(self, value: asn1.Value) -> None:
        self.raw_subject = self.octets(value)
        self.note_name("subject")

    def note_name(self, which: str) -> None:
        """Make one readable name of what was seen since the last: ``O: CN``, or CN alone when it begins like O."""
        common, organization = self.segments.get("CN", b""), self.segments.get("O", b"")
        if common and organization:
            alike = common.startswith(organization)
            alike = alike or (min(len(common), len(organization)) >= 7 and common[:7] == organization[:7])
            name = common if alike else organization + b": " + common
        else:
            name = common or organization or self.segments.get("email", b"")
        self.names[which] = name.partition(b"\0")[0]
        self.segments.clear()

    def note_parameters(self, value: asn1.Value) -> None:
        # An AlgorithmIdentifier occurs three times; the one of the key comes after the subject.
        if self.raw_subject is not None and self.key is None:
            self.parameters = self.whole(value)

    def note_key(self, value: asn1.Value) -> None:
        oid = self.last_oid[1]
        if oid == oids.EC_PUBLIC_KEY:
            self.key_algorithm = self.curve()
        elif oid in _KEY_TYPES:
            self.key_algorithm = _KEY_TYPES[oid]
        else:
            raise Errno(errno.ENOPKG, f"certificate with a key of a kind the kernel lacks ({oid})")
        self.key = _bit_string(self.octets(value))

    def curve(self) -> str:
        parameters = self.parameters or b""
        if len(parameters) < 3 or parameters[0] != asn1.OBJECT_IDENTIFIER or parameters[1] != len(parameters) - 2:
            raise Errno(errno.EBADMSG, "EC key without the name of its curve")
        curve = _CURVES.get(self.registry.look_up(parameters[2:])[1])
        if curve is None:
            raise Errno(errno.ENOPKG, "EC key on a curve the kernel lacks")
        return curve

    def note_not_before(self, value: asn1.Value) -> None:
        self.valid_from = decode_time(value.tag, self.octets(value))

    def note_not_after(self, value: asn1.Value) -> None:
        self.valid_to = decode_time(value.tag, self.octets(value))

    def note_extension(self, value: asn1.Value) -> None:
        octets = self.octets(value)
        if self.last_oid[1] == oids.SUBJECT_KEY_IDENTIFIER:
            if self.skid is not None or len(octets) < 3:
                raise Errno(errno.EBADMSG, "subject key identifier")
            if octets[0] != asn1.OCTET_STRING or octets[1] != len(octets) - 2:
                raise Errno(errno.EBADMSG, "subject key identifier")
            self.skid = octets[2:]
        elif self.last_oid[1] == oids.AUTHORITY_KEY_IDENTIFIER:
            self.raw_authority = octets


class _Authority:
    """The walk along an authority key identifier."""

    def __init__(self, reading: _Reading, data: bytes) -> None:
        self.reading, self.data = reading, data
        self.issuer: bytes | None = None

    def octets(self, value: asn1.Value) -> bytes:
        return self.data[value.start : value.start + value.length]

    def note_key_id(self, value: asn1.Value) -> None:
        if self.reading.issuer_skid is None:
            self.reading.issuer_skid = self.octets(value)

    def note_name(self, value: asn1.Value) -> None:
        self.issuer = self.octets(value)

    def note_serial(self, value: asn1.Value) -> None:
        # An empty name is as good as none: the kernel asks for the pointer, and the name was walked.
        if self.issuer is not None and self.reading.issuer_identity is None:
            self.reading.issuer_identity = self.octets(value) + self.issuer


def _bit_string(octets: bytes) -> bytes:
    if not octets or octets[0]:
        raise Errno(errno.EBADMSG, "BIT STRING with unused bits")
    return octets[1:]


_NAME_PARTS = {oids.COMMON_NAME: "CN", oids.ORGANIZATION_NAME: "O", oids.EMAIL_ADDRESS: "email"}
_KEY_TYPES = {oids.RSA_ENCRYPTION: "rsa", oids.SM2: "sm2", **dict.fromkeys(oids.GOST_KEYS, "ecrdsa")}
_CURVES = {
    oids.SM2: "sm2",
    oids.PRIME192V1: "ecdsa-nist-p192",
    oids.PRIME256V1: "ecdsa-nist-p256",
    oids.ANSIP384R1: "ecdsa-nist-p384",
    oids.ANSIP521R1: "ecdsa-nist-p521",
}


def _name(segment: str | None, oid: str | None) -> asn1.Rule:
    pair = asn1.sequence(asn1.leaf(asn1.OBJECT_IDENTIFIER, oid), asn1.anything(segment))
    return asn1.sequence_of(asn1.set_of(pair))


_OID = asn1.leaf(asn1.OBJECT_IDENTIFIER, "note_oid")
_ALGORITHM = asn1.sequence(_OID, asn1.optional(asn1.anything("note_parameters")), shared=True)
_TIME = asn1.choice(asn1.leaf(asn1.UTC_TIME), asn1.leaf(asn1.GENERALIZED_TIME))
_EXTENSION = asn1.sequence(_OID, asn1.optional(asn1.leaf(asn1.BOOLEAN)), asn1.leaf(asn1.OCTET_STRING, "note_extension"))
_TBS = asn1.sequence(
    asn1.optional(asn1.explicit(0, asn1.leaf(asn1.INTEGER))),
    asn1.named(asn1.leaf(asn1.INTEGER), "note_serial"),
    asn1.named(_ALGORITHM, "note_signature_algorithm"),
    asn1.named(_name("note_segment", "note_oid"), "note_issuer"),
    asn1.sequence(asn1.named(_TIME, "note_not_before"), asn1.named(_TIME, "note_not_after")),
    asn1.named(_name("note_segment", "note_oid"), "note_subject"),
    asn1.sequence(_ALGORITHM, asn1.leaf(asn1.BIT_STRING, "note_key")),
    asn1.optional(asn1.implicit(1, asn1.leaf(asn1.BIT_STRING))),
    asn1.optional(asn1.implicit(2, asn1.leaf(asn1.BIT_STRING))),
    asn1.optional(asn1.explicit(3, asn1.sequence_of(_EXTENSION))),
)
_CERTIFICATE = asn1.sequence(asn1.named(_TBS, "note_tbs"), _ALGORITHM, asn1.leaf(asn1.BIT_STRING, "note_signature"))
_GENERAL_NAME = asn1.choice(
    asn1.explicit(0, asn1.anything()),
    asn1.explicit(1, asn1.leaf(asn1.IA5_STRING)),
    asn1.explicit(2, asn1.leaf(asn1.IA5_STRING)),
    asn1.explicit(3, asn1.anything()),
    asn1.explicit(4, asn1.named(_name(None, None), "note_name")),
    asn1.explicit(5, asn1.anything()),
    asn1.explicit(6, asn1.leaf(asn1.IA5_STRING)),
    asn1.explicit(7, asn1.leaf(asn1.OCTET_STRING)),
    asn1.explicit(8, asn1.leaf(asn1.OBJECT_IDENTIFIER)),
)
_AUTHORITY = asn1.sequence(
    asn1.optional(asn1.implicit(0, asn1.leaf(asn1.OCTET_STRING, "note_key_id"))),
    asn1.optional(asn1.implicit(1, asn1.sequence_of(_GENERAL_NAME))),
    asn1.optional(asn1.implicit(2, asn1.leaf(asn1.INTEGER, "note_serial"))),
)
