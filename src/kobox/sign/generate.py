"""Making a key and a certificate that fit for signing modules, as kbuild's own default and distributions' guides do.

The certificate carries what a machine owner's key needs: no authority of its own, for digital signatures, for the
signing of code, with identifiers of its key. Follows certs/default_x509.genkey.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kobox.errors import UsageError

MODULE_SIGNING_ONLY = "1.3.6.1.4.1.2312.16.1.2"
"""shim takes a key with this usage for modules only, never for a boot loader or a kernel."""

_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def _rsa(bits: int) -> Callable[[], _Key]:
    return lambda: rsa.generate_private_key(65537, bits)


KINDS: dict[str, Callable[[], _Key]] = {
    "rsa2048": _rsa(2048),
    "rsa3072": _rsa(3072),
    "rsa4096": _rsa(4096),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
}
"""Keys by the names of the command line. shim's MokManager of Debian takes RSA of 2048 and 4096 bits."""


class Request(NamedTuple):
    """What to make. ``days`` from now; ``modules_only`` adds the usage that shim keeps away from boot loaders."""

    name: str
    kind: str = "rsa2048"
    days: int = 36500
    hash_name: str = "sha256"
    modules_only: bool = False
    organization: str = ""
    email: str = ""


class Generated(NamedTuple):
    """PEM of the private key (PKCS#8), PEM and DER of the certificate, and its fingerprint (SHA-1) as mokutil names
    it."""

    key_pem: bytes
    certificate_pem: bytes
    certificate_der: bytes
    fingerprint: str


def generate(request: Request, passphrase: str | None = None) -> Generated:
    """A fresh key with a certificate signed by itself; the key is encrypted when there is a passphrase."""
    if request.kind not in KINDS:
        raise UsageError(f"{request.kind}: no such kind of key", f"one of {', '.join(KINDS)}")
    key = KINDS[request.kind]()
    digest = _HASHES.get(request.hash_name)
    if digest is None:
        raise UsageError(f"{request.hash_name}: certificates are signed with sha256, sha384 or sha512")
    certificate = _builder(request, key).sign(key, digest)
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return Generated(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
        certificate.public_bytes(serialization.Encoding.PEM),
        certificate.public_bytes(serialization.Encoding.DER),
        certificate.fingerprint(hashes.SHA1()).hex(),
    )


def _builder(request: Request, key: _Key) -> x509.CertificateBuilder:
    parts = (
        (NameOID.ORGANIZATION_NAME, request.organization),
        (NameOID.COMMON_NAME, request.name),
        (NameOID.EMAIL_ADDRESS, request.email),
    )
    try:
        subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])
    except ValueError as bad:
        raise UsageError(f"the certificate's name: {bad}") from None
    now = datetime.now(UTC).replace(microsecond=0)
    usages = [ExtendedKeyUsageOID.CODE_SIGNING]
    if request.modules_only:
        usages.append(x509.ObjectIdentifier(MODULE_SIGNING_ONLY))
    public = key.public_key()
    return (
        x509.CertificateBuilder(subject, subject, public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=request.days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS_ONLY, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )


_HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_SIGNS_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
