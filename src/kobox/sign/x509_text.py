"""A certificate as OpenSSL's ``X509_print`` shows it, which is what mokutil lists.

What this does not know (an extension, a kind of key) is shown by its identifier and bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID, NameOID

_SHORT = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.EMAIL_ADDRESS: "emailAddress",
}
_SIGNATURES = {
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
    "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
    "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
    "1.2.840.113549.1.1.13": "sha512WithRSAEncryption",
    "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
    "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
    "1.2.840.10045.4.3.4": "ecdsa-with-SHA512",
}
_CURVES = {
    "secp256r1": ("prime256v1", "P-256"),
    "secp384r1": ("secp384r1", "P-384"),
    "secp521r1": ("secp521r1", "P-521"),
}
_USAGES = {
    "digital_signature": "Digital Signature",
    "content_commitment": "Non Repudiation",
    "key_encipherment": "Key Encipherment",
    "data_encipherment": "Data Encipherment",
    "key_agreement": "Key Agreement",
    "key_cert_sign": "Certificate Sign",
    "crl_sign": "CRL Sign",
}
_EXTENDED = {
    ExtendedKeyUsageOID.CODE_SIGNING: "Code Signing",
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS Web Server Authentication",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS Web Client Authentication",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "E-mail Protection",
    ExtendedKeyUsageOID.TIME_STAMPING: "Time Stamping",
}
_NETSCAPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
_NAMES = {
    ExtensionOID.BASIC_CONSTRAINTS: "X509v3 Basic Constraints",
    ExtensionOID.KEY_USAGE: "X509v3 Key Usage",
    ExtensionOID.EXTENDED_KEY_USAGE: "X509v3 Extended Key Usage",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: "X509v3 Subject Key Identifier",
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: "Authority Information Access",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "X509v3 CRL Distribution Points",
    _NETSCAPE: "Netscape Cert Type",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "X509v3 Authority Key Identifier",
}
_NETSCAPE_TYPES = (
    "SSL Client", "SSL Server", "S/MIME", "Object Signing", "Unused", "SSL CA", "S/MIME CA", "Object Signing CA",
)  # fmt: skip
_ACCESS = {
    AuthorityInformationAccessOID.CA_ISSUERS: "CA Issuers",
    AuthorityInformationAccessOID.OCSP: "OCSP",
}


def is_certificate(data: bytes) -> bool:
    """Whether these bytes are one X.509 certificate in DER."""
    try:
        x509.load_der_x509_certificate(data)
    except ValueError:
        return False
    return True


def text_of(data: bytes) -> list[str]:
    """The lines of a DER certificate; one line that says so for what cannot be read."""
    try:
        return list(_lines(x509.load_der_x509_certificate(data)))
    except ValueError as bad:
        return [f"invalid x509 certificate ({str(bad)[:100]})"]


def _lines(certificate: x509.Certificate) -> Iterator[str]:
    algorithm = certificate.signature_algorithm_oid.dotted_string
    algorithm = _SIGNATURES.get(algorithm, algorithm)
    version = certificate.version.value
    yield from ("Certificate:", "    Data:", f"        Version: {version + 1} ({version:#x})")
    yield from _serial(certificate.serial_number)
    yield f"        Signature Algorithm: {algorithm}"
    yield f"        Issuer: {_name(certificate.issuer)}"
    yield "        Validity"
    yield f"            Not Before: {_time(certificate.not_valid_before_utc)}"
    yield f"            Not After : {_time(certificate.not_valid_after_utc)}"
    yield f"        Subject: {_name(certificate.subject)}"
    yield "        Subject Public Key Info:"
    yield from _key(certificate)
    if len(certificate.extensions):
        yield "        X509v3 extensions:"
        for extension in certificate.extensions:
            yield from _extension(extension)
    yield f"    Signature Algorithm: {algorithm}"
    yield "    Signature Value:"
    yield from _octets(certificate.signature, 18, " " * 8)


def _serial(number: int) -> Iterator[str]:
    if number < 1 << 63:
        yield f"        Serial Number: {number} ({number:#x})"
        return
    octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    yield "        Serial Number:"
    yield " " * 12 + octets.hex(":")


def _time(moment: datetime) -> str:
    return f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S %Y} GMT"


def _name(name: x509.Name) -> str:
    return ", ".join(f"{_SHORT.get(part.oid, part.oid.dotted_string)}={part.value!s}" for part in name)


def _key(certificate: x509.Certificate) -> Iterator[str]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        yield "            Public Key Algorithm: rsaEncryption"
        yield f"                Public-Key: ({key.key_size} bit)"
        yield "                Modulus:"
        numbers = key.public_numbers()
        yield from _octets(numbers.n.to_bytes(numbers.n.bit_length() // 8 + 1, "big"), 15, " " * 20)
        yield f"                Exponent: {numbers.e} ({numbers.e:#x})"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        name, nist = _CURVES.get(key.curve.name, (key.curve.name, ""))
        yield "            Public Key Algorithm: id-ecPublicKey"
        yield f"                Public-Key: ({key.key_size} bit)"
        yield "                pub:"
        yield from _octets(key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint), 15, " " * 20)
        yield f"                ASN1 OID: {name}"
        if nist:
            yield f"                NIST CURVE: {nist}"
    else:
        yield f"            Public Key Algorithm: {certificate.public_key_algorithm_oid.dotted_string}"


def _extension(extension: x509.Extension[x509.ExtensionType]) -> Iterator[str]:
    name = _NAMES.get(extension.oid, extension.oid.dotted_string)
    yield f"            {name}: {'critical' if extension.critical else ''}"
    value = extension.value
    if isinstance(value, x509.BasicConstraints):
        length = f", pathlen:{value.path_length}" if value.path_length is not None else ""
        yield f"                CA:{str(value.ca).upper()}{length}"
    elif isinstance(value, x509.KeyUsage):
        yield " " * 16 + ", ".join(text for field, text in _USAGES.items() if getattr(value, field))
    elif isinstance(value, x509.ExtendedKeyUsage):
        yield " " * 16 + ", ".join(_EXTENDED.get(oid, oid.dotted_string) for oid in value)
    elif isinstance(value, x509.SubjectKeyIdentifier):
        yield " " * 16 + value.digest.hex(":").upper()
    elif isinstance(value, x509.AuthorityKeyIdentifier) and value.key_identifier and not value.authority_cert_issuer:
        yield " " * 16 + value.key_identifier.hex(":").upper()
    elif isinstance(value, x509.AuthorityInformationAccess):
        for access in value:
            yield " " * 16 + f"{_ACCESS.get(access.access_method, access.access_method.dotted_string)} - {_uri(access)}"
    elif isinstance(value, x509.CRLDistributionPoints):
        for point in value:
            yield " " * 16 + "Full Name:"
            yield from (" " * 18 + f"URI:{name.value}" for name in point.full_name or ())
    elif extension.oid == _NETSCAPE:
        bits = value.public_bytes()[3:]
        yield " " * 16 + ", ".join(text for at, text in enumerate(_NETSCAPE_TYPES) if bits and bits[0] << at & 0x80)
    else:
        yield " " * 16 + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in value.public_bytes())


def _uri(access: x509.AccessDescription) -> str:
    return f"URI:{access.access_location.value}"


def _octets(data: bytes, each: int, indent: str) -> Iterator[str]:
    for at in range(0, len(data), each):
        line = data[at : at + each].hex(":")
        yield f"{indent}{line}{':' if at + each < len(data) else ''}"
