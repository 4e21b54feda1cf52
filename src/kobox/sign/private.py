"""Private keys as people keep them: PEM or DER files, perhaps behind a passphrase.

What a key makes is a plain signature value; ``signing`` puts it into a message.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from kobox.errors import BadFile, NotModelled, UsageError
from kobox.sign.keys import Buffer

PIN_VARIABLE = "KBUILD_SIGN_PIN"
"""The environment's name for the passphrase of a key, as kbuild and sign-file have it."""

HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3-256": hashes.SHA3_256(),
    "sha3-384": hashes.SHA3_384(),
    "sha3-512": hashes.SHA3_512(),
}
"""What a module can be signed over, by the kernel's names."""

_HARDWARE = "pkcs11:"


class PrivateKey(NamedTuple):
    """``family`` is ``rsa`` or ``ecdsa``."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @property
    def family(self) -> str:
        return "rsa" if isinstance(self.key, rsa.RSAPrivateKey) else "ecdsa"

    @property
    def public_bits(self) -> bytes:
        """What a certificate of it holds in the BIT STRING of its key."""
        public = self.key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            return public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def sign(self, content: Buffer, hash_name: str) -> bytes:
        """PKCS#1 v1.5, the same bytes each time, or an ECDSA pair in DER, different ones each time."""
        algorithm = HASHES[hash_name]
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(bytes(content), padding.PKCS1v15(), algorithm)
        return self.key.sign(bytes(content), ec.ECDSA(algorithm))


def read_private_key(path: str, passphrase: str | None = None) -> PrivateKey:
    """A key from a PEM or DER file. ``passphrase`` None: what ``KBUILD_SIGN_PIN`` says.

    ``UsageError`` when a passphrase is missing or wrong, ``NotModelled`` for keys that live in hardware.
    """
    if path.startswith(_HARDWARE):
        raise NotModelled(f"{path}: keys on PKCS#11 tokens are not reached", "sign with sign-file, or export the key")
    with open(path, "rb") as file:
        return parse_private_key(file.read(), path, os.environ.get(PIN_VARIABLE) if passphrase is None else passphrase)


def parse_private_key(data: bytes, file: str, passphrase: str | None) -> PrivateKey:
    """A key from the bytes of a PEM or DER file."""
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    secret = None if passphrase is None else passphrase.encode()
    try:
        key = _loaded(load, data, secret)
    except TypeError:
        hint = f"set {PIN_VARIABLE}, or give --passphrase-file"
        raise UsageError(f"{file}: the key needs its passphrase", hint) from None
    except (ValueError, UnsupportedAlgorithm) as bad:
        if secret is not None and b"ENCRYPTED" in data:
            raise UsageError(f"{file}: this is not the passphrase of the key") from None
        raise BadFile(file, "", "holds no private key that can be read", str(bad).split(". ")[0][:120]) from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise BadFile(file, "", "a key of this kind signs no module", type(key).__name__, "RSA or ECDSA")
    return PrivateKey(key)


def _loaded(load: object, data: bytes, secret: bytes | None) -> object:
    """A passphrase that an open key does not need is passed over, as OpenSSL does."""
    try:
        return load(data, secret)  # type: ignore[operator]  # one of two functions of one shape
    except TypeError:
        if secret is None:
            raise
        return load(data, None)  # type: ignore[operator]
