"""Object identifiers as the kernel numbers them: some of its messages print the number, so the order is data.

The list follows enum OID of include/linux/oid_registry.h. A kernel whose list differs carries it in its own image
(``oid_index`` and ``oid_data``): ``Registry.from_tables`` reads it from there.
"""

from __future__ import annotations

import struct
from functools import cache
from itertools import pairwise
from typing import NamedTuple

EC_PUBLIC_KEY = "1.2.840.10045.2.1"
PRIME192V1 = "1.2.840.10045.3.1.1"
PRIME256V1 = "1.2.840.10045.3.1.7"
ANSIP384R1 = "1.3.132.0.34"
ANSIP521R1 = "1.3.132.0.35"
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
EMAIL_ADDRESS = "1.2.840.113549.1.9.1"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
SMIME_CAPABILITIES = "1.2.840.113549.1.9.15"
MS_INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"
MS_STATEMENT_TYPE = "1.3.6.1.4.1.311.2.1.11"
MS_SP_OPUS_INFO = "1.3.6.1.4.1.311.2.1.12"
COMMON_NAME = "2.5.4.3"
ORGANIZATION_NAME = "2.5.4.10"
SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
AUTHORITY_KEY_IDENTIFIER = "2.5.29.35"
GOST_KEYS = ("1.2.643.7.1.1.1.1", "1.2.643.7.1.1.1.2")
SM2 = "1.2.156.10197.1.301"
SM2_WITH_SM3 = "1.2.156.10197.1.501"

HASHES = {
    "1.2.840.113549.2.4": "md4",
    "1.2.840.113549.2.5": "md5",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.8": "sha3-256",
    "2.16.840.1.101.3.4.2.9": "sha3-384",
    "2.16.840.1.101.3.4.2.10": "sha3-512",
    "1.2.156.10197.1.401": "sm3",
    "1.2.643.7.1.1.2.2": "streebog256",
    "1.2.643.7.1.1.2.3": "streebog512",
}
"""Digest algorithms by the kernel's name; one that is not in a kernel's own list is unknown to that kernel."""

ECDSA = {
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
    "2.16.840.1.101.3.4.3.10": "sha3-256",
    "2.16.840.1.101.3.4.3.11": "sha3-384",
    "2.16.840.1.101.3.4.3.12": "sha3-512",
}

CERTIFICATE_SIGNATURES = {
    "1.2.840.113549.1.1.4": ("rsa", "md4"),
    "1.2.840.113549.1.1.5": ("rsa", "sha1"),
    "1.2.840.113549.1.1.11": ("rsa", "sha256"),
    "1.2.840.113549.1.1.12": ("rsa", "sha384"),
    "1.2.840.113549.1.1.13": ("rsa", "sha512"),
    "1.2.840.113549.1.1.14": ("rsa", "sha224"),
    "2.16.840.1.101.3.4.3.14": ("rsa", "sha3-256"),
    "2.16.840.1.101.3.4.3.15": ("rsa", "sha3-384"),
    "2.16.840.1.101.3.4.3.16": ("rsa", "sha3-512"),
    **{oid: ("ecdsa", name) for oid, name in ECDSA.items()},
    "1.2.643.7.1.1.3.2": ("ecrdsa", "streebog256"),
    "1.2.643.7.1.1.3.3": ("ecrdsa", "streebog512"),
    SM2_WITH_SM3: ("sm2", "sm3"),
}
"""What signs a certificate: key type and digest. (The kernel calls the fourth RSA one md4; PKCS#1 calls it md5.)"""

_NUMBERED = """
1.2.840.10030.4.3 1.2.840.10040.4.1 1.2.840.10045.2.1 1.2.840.10045.3.1.1 1.2.840.10045.3.1.7 1.2.840.10045.4.1
1.2.840.10045.4.3.1 1.2.840.10045.4.3.2 1.2.840.10045.4.3.3 1.2.840.10045.4.3.4 1.2.840.113549.1.1.1
1.2.840.113549.1.1.2 1.2.840.113549.1.1.3 1.2.840.113549.1.1.4 1.2.840.113549.1.1.5 1.2.840.113549.1.1.11
1.2.840.113549.1.1.12 1.2.840.113549.1.1.13 1.2.840.113549.1.1.14 1.2.840.113549.1.7.1 1.2.840.113549.1.7.2
1.2.840.113549.1.9.1 1.2.840.113549.1.9.3 1.2.840.113549.1.9.4 1.2.840.113549.1.9.5 1.2.840.113549.1.9.15
1.2.840.113549.1.9.16.2.11 1.2.840.113549.2.2 1.2.840.113549.2.4 1.2.840.113549.2.5 1.2.840.48018.1.2.2
1.2.840.113554.1.2.2 1.2.840.113554.1.2.2.3 1.3.6.1.4.1.311.2.1.4 1.3.6.1.4.1.311.2.1.11 1.3.6.1.4.1.311.2.1.12
1.3.6.1.4.1.311.2.1.15 1.3.6.1.4.1.311.2.1.21 1.3.6.1.4.1.311.16.4 1.3.6.1.4.1.311.2.2.10 1.3.6.1.5.5.2 1.3.6.1.5.2.5
1.3.5.1.5.2.7 1.3.6.1.5.5.14 1.3.6.1.5.5.7.1.1 1.3.14.3.2.26 1.3.132.0.34 2.16.840.1.101.3.4.2.1
2.16.840.1.101.3.4.2.2 2.16.840.1.101.3.4.2.3 2.16.840.1.101.3.4.2.4 2.5.4.3 2.5.4.4 2.5.4.6 2.5.4.7 2.5.4.8 2.5.4.10
2.5.4.11 2.5.4.12 2.5.4.13 2.5.4.41 2.5.4.42 2.5.4.43 2.5.4.44 2.5.29.14 2.5.29.15 2.5.29.17 2.5.29.18 2.5.29.19
2.5.29.31 2.5.29.32 2.5.29.35 2.5.29.37 1.2.752.43.14.2 1.2.752.43.14.3 1.2.643.2.2.35.1 1.2.643.2.2.35.2
1.2.643.2.2.35.3 1.2.643.7.1.1.1.1 1.2.643.7.1.1.1.2 1.2.643.7.1.1.2.2 1.2.643.7.1.1.2.3 1.2.643.7.1.1.3.2
1.2.643.7.1.1.3.3 1.2.643.7.1.2.1.1.1 1.2.643.7.1.2.1.1.2 1.2.643.7.1.2.1.1.3 1.2.643.7.1.2.1.1.4
1.2.643.7.1.2.1.2.1 1.2.643.7.1.2.1.2.2 1.2.643.7.1.2.1.2.3 1.2.156.10197.1.301 1.2.156.10197.1.401
1.2.156.10197.1.501 1.2.156.10197.1.504 2.23.133.10.1.3 2.23.133.10.1.4 2.23.133.10.1.5
"""


def encoded(dotted: str) -> bytes:
    """The content octets of an identifier."""
    first, second, *rest = map(int, dotted.split("."))
    out = bytearray()
    for arc in (first * 40 + second, *rest):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(arc & 0x7F | 0x80)
        out += bytes(reversed(octets))
    return bytes(out)


def printed(content: bytes) -> str:
    """An identifier as the kernel prints it: the first octet is always two arcs, broken ones print ``(bad)``."""
    if not content:
        return "(bad)"
    text = f"{content[0] // 40}.{content[0] % 40}"
    arc, open_arc = 0, False
    for octet in content[1:]:
        arc = (arc << 7 | octet & 0x7F) & 0xFFFF_FFFF_FFFF_FFFF
        open_arc = bool(octet & 0x80)
        if not open_arc:
            text += f".{arc}"
            arc = 0
    # The kernel's buffer is 50 bytes; a longer identifier is cut, a broken one gets its mark where it broke.
    return (text + "(bad)" if open_arc else text)[:49]


class Registry(NamedTuple):
    """The identifiers that a kernel knows: content octets to (number, dotted form)."""

    known: dict[bytes, tuple[int, str]]

    @classmethod
    def from_tables(cls, oid_index: bytes, oid_data: bytes) -> Registry:
        """Read an image's own list: ``oid_index`` (16-bit offsets, one more than identifiers) and ``oid_data``."""
        offsets = struct.unpack(f"<{len(oid_index) // 2}H", oid_index[: len(oid_index) // 2 * 2])
        known = {}
        for number, (start, end) in enumerate(pairwise(offsets)):
            if end <= start:
                break  # what follows the list only fills up to the next variable
            content = bytes(oid_data[start:end])
            known[content] = (number, printed(content))
        return cls(known)

    def look_up(self, content: bytes) -> tuple[int, str]:
        """Number and dotted form; an unknown identifier has the number after the last and the form ``""``."""
        return self.known.get(content) or (len(self.known), "")


@cache
def default_registry() -> Registry:
    return Registry({encoded(oid): (number, oid) for number, oid in enumerate(_NUMBERED.split())})
