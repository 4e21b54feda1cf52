"""Digests and public keys as a kernel has them: which algorithms it can use, and whether a signature verifies.

RSA is checked here with one modular power: PKCS#1 v1.5 verification has nothing secret, takes 0.2 ms, gives exactly the
kernel's answers (key sizes, padding, which errno), and spares the import of the cryptography library (55 ms) on the way
of every signed load. ECDSA goes through that library, imported when a key needs it. Follows
crypto/asymmetric_keys/public_key.c, crypto/rsa.c, crypto/rsa-pkcs1pad.c and crypto/ecdsa.c.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from kobox.errors import Errno
from kobox.sign import asn1

Buffer = bytes | memoryview

_HASHLIB = {
    "md5": "md5",
    "sha1": "sha1",
    "sha224": "sha224",
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "sha3-256": "sha3_256",
    "sha3-384": "sha3_384",
    "sha3-512": "sha3_512",
    "md4": "md4",
    "sm3": "sm3",
}
_CONFIG = {
    "md4": "CRYPTO_MD4",
    "md5": "CRYPTO_MD5",
    "sha1": "CRYPTO_SHA1",
    "sha224": "CRYPTO_SHA256",
    "sha256": "CRYPTO_SHA256",
    "sha384": "CRYPTO_SHA512",
    "sha512": "CRYPTO_SHA512",
    "sha3-256": "CRYPTO_SHA3",
    "sha3-384": "CRYPTO_SHA3",
    "sha3-512": "CRYPTO_SHA3",
    "sm3": "CRYPTO_SM3_GENERIC",
    "rsa": "CRYPTO_RSA",
    "ecdsa": "CRYPTO_ECDSA",
}
_DIGEST_INFO = {
    "md5": "3020300c06082a864886f70d020505000410",
    "sha1": "3021300906052b0e03021a05000414",
    "sha224": "302d300d06096086480165030402040500041c",
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
    "sha3-256": "3031300d060960864801650304020805000420",
    "sha3-384": "3041300d060960864801650304020905000430",
    "sha3-512": "3051300d060960864801650304020a05000440",
}
"""The DER that precedes the digest inside an RSA signature (RFC 8017, 9.2)."""
_RSA_BITS = (512, 1024, 1536, 2048, 3072, 4096)
_ECDSA_HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512")


@dataclass(frozen=True, slots=True)
class Algorithms:
    """The digest and key algorithms that a kernel can use.

    ``load`` is asked once for an algorithm that is a module (``crypto-sha512``), and says whether it is usable then.
    """

    built_in: frozenset[str] = frozenset({"md5", "sha1", "sha224", "sha256", "rsa"})
    modular: frozenset[str] = frozenset({"md4", "sha384", "sha512"})
    load: Callable[[str], bool] | None = field(default=None, compare=False)

    @classmethod
    def from_config(cls, config: Mapping[str, str], load: Callable[[str], bool] | None = None) -> Algorithms:
        """What a kernel configuration (``CONFIG_`` may lead its keys or not) builds in and builds as modules."""

        def named(value: str) -> frozenset[str]:
            return frozenset(
                name for name, option in _CONFIG.items() if config.get(option, config.get(f"CONFIG_{option}")) == value
            )

        return cls(named("y"), named("m"), load)

    @classmethod
    def every(cls) -> Algorithms:
        """All that are known here: for judging without a kernel."""
        return cls(frozenset(_HASHLIB) | {"rsa", "ecdsa"}, frozenset())

    def has(self, name: str) -> bool:
        if name in self.built_in:
            return True
        return name in self.modular and self.load is not None and self.load(f"crypto-{name}")

    def digest(self, name: str, *data: Buffer) -> bytes | None:
        """The digest of ``data``; None where the kernel lacks the algorithm (or this Python does)."""
        if not self.has(name):
            return None
        try:
            state = hashlib.new(_HASHLIB[name], usedforsecurity=False)
        except ValueError:
            return None
        for part in data:
            state.update(part)
        return state.digest()


class Signature(NamedTuple):
    """What is checked against a key. ``digest`` is None while the kernel lacks the digest algorithm."""

    key_type: str
    hash_name: str
    value: bytes
    digest: bytes | None


_power = lru_cache(maxsize=1024)(pow)
"""RSA's one dear step. A file that is loaded again has the same signature by the same key."""


class PublicKey(NamedTuple):
    """``algorithm``: ``rsa``, ``ecdsa-nist-p256`` … ``data``: what the certificate's BIT STRING holds."""

    algorithm: str
    data: bytes

    def verify(self, signature: Signature, algorithms: Algorithms) -> None:
        """Raises ``Errno`` when the signature does not verify: EKEYREJECTED, EBADMSG, EINVAL, ENOPKG or ENOENT."""
        family = self.algorithm.partition("-")[0]
        if signature.key_type != family:
            raise Errno(errno.EKEYREJECTED, f"a {signature.key_type} signature cannot be checked with a {family} key")
        if family not in ("rsa", "ecdsa", "sm2", "ecrdsa"):
            raise Errno(errno.ENOPKG, f"unknown key type {self.algorithm}")
        if family == "ecdsa" and signature.hash_name not in _ECDSA_HASHES:
            raise Errno(errno.EINVAL, f"ECDSA over {signature.hash_name}")
        if not algorithms.has(family):
            raise Errno(errno.ENOENT, f"this kernel has no {self.algorithm}")
        if signature.digest is None:
            raise Errno(errno.ENOPKG, f"this kernel has no {signature.hash_name}")
        if family == "rsa":
            self._verify_rsa(signature)
        else:
            self._verify_ecdsa(signature, signature.digest)

    def _verify_rsa(self, signature: Signature) -> None:
        prefix = _DIGEST_INFO.get(signature.hash_name)
        if prefix is None:
            raise Errno(errno.ENOENT, f"no RSA signature over {signature.hash_name}")
        numbers = _RsaNumbers(self.data)
        asn1.decode(_RSA_KEY, numbers, self.data)
        n, e = numbers.n, numbers.e
        size = (n.bit_length() + 63) // 64 * 8
        if size * 8 not in _RSA_BITS:
            raise Errno(errno.EINVAL, f"an RSA key of {n.bit_length()} bits")
        if len(signature.value) != size:
            raise Errno(errno.EINVAL, f"signature of {len(signature.value)} bytes for a key of {size}")
        message = int.from_bytes(signature.value, "big")
        if message >= n:
            raise Errno(errno.EINVAL, "signature is not below the modulus")
        block = _power(message, e, n).to_bytes(size, "big")
        if block[0]:
            raise Errno(errno.EINVAL, "decrypted signature has no leading zero")
        padding_end = block.find(0, 2)
        if block[1] != 1 or padding_end < 10 or block[2:padding_end].strip(b"\xff"):
            raise Errno(errno.EBADMSG, "decrypted signature has no PKCS#1 padding")
        rest = block[padding_end + 1 :]
        info = bytes.fromhex(prefix)
        if not rest.startswith(info):
            raise Errno(errno.EBADMSG, f"decrypted signature is not one over {signature.hash_name}")
        if rest[len(info) :] != signature.digest:
            raise Errno(errno.EKEYREJECTED, "digest differs from the signed one")

    def _verify_ecdsa(self, signature: Signature, digest: bytes) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        curves: dict[str, ec.EllipticCurve] = {
            "ecdsa-nist-p192": ec.SECP192R1(),
            "ecdsa-nist-p256": ec.SECP256R1(),
            "ecdsa-nist-p384": ec.SECP384R1(),
            "ecdsa-nist-p521": ec.SECP521R1(),
        }
        curve = curves[self.algorithm]
        size = (curve.key_size + 7) // 8
        if len(self.data) != 1 + 2 * size or self.data[0] != 4:
            raise Errno(errno.EINVAL, "EC key is not an uncompressed point of its curve")
        numbers = _EcdsaNumbers(signature.value, size)
        asn1.decode(_ECDSA_SIGNATURE, numbers, signature.value)
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, self.data)
            # The kernel takes the leftmost bytes that the curve has room for, or the whole of a shorter digest as a
            # number. "Prehashed" asks for 64 bytes and cuts by the same rule, so zeros fill up where they don't count.
            wide = digest.rjust(64, b"\0") if size > 64 else digest[:size].rjust(size, b"\0").ljust(64, b"\0")
            scheme = ec.ECDSA(utils.Prehashed(hashes.SHA512()))
            key.verify(utils.encode_dss_signature(numbers.r, numbers.s), wide, scheme)
        except InvalidSignature:
            raise Errno(errno.EKEYREJECTED, "ECDSA signature does not verify") from None
        except ValueError as bad:
            raise Errno(errno.EINVAL, f"EC key: {bad}") from None


class _RsaNumbers:
    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.n = self.e = self.size = 0

    def note_n(self, value: asn1.Value) -> None:
        self.n, self.size = _number(self.data, value), value.length

    def note_e(self, value: asn1.Value) -> None:
        if value.length > self.size:
            raise Errno(errno.EINVAL, "RSA key: exponent longer than the modulus")
        self.e = _number(self.data, value)


class _EcdsaNumbers:
    def __init__(self, data: Buffer, size: int) -> None:
        self.data, self.size = data, size
        self.r = self.s = 0

    def note_r(self, value: asn1.Value) -> None:
        self.r = self._coordinate(value)

    def note_s(self, value: asn1.Value) -> None:
        self.s = self._coordinate(value)

    def _coordinate(self, value: asn1.Value) -> int:
        octets = bytes(self.data[value.start : value.start + value.length])
        if len(octets) > self.size and octets[:1] == b"\0":
            octets = octets[1:]
        if not octets or len(octets) > self.size:
            raise Errno(errno.EINVAL, "ECDSA signature: number of a wrong size")
        number = int.from_bytes(octets, "big")
        if number == 0:
            raise Errno(errno.EBADMSG, "ECDSA signature: zero")
        return number


def _number(data: Buffer, value: asn1.Value) -> int:
    if not value.length:
        raise Errno(errno.EINVAL, "an INTEGER without octets")
    return int.from_bytes(data[value.start : value.start + value.length], "big")


_RSA_KEY = asn1.sequence(asn1.leaf(asn1.INTEGER, "note_n"), asn1.leaf(asn1.INTEGER, "note_e"))
_ECDSA_SIGNATURE = asn1.sequence(asn1.leaf(asn1.INTEGER, "note_r"), asn1.leaf(asn1.INTEGER, "note_s"))
