"""Who signed, read from the PKCS#7 message itself: names and numbers only, nothing is verified.

The message is DER (X.690): tag, length, content. This walks the one path from the outside to the first ``SignerInfo``
of RFC 5652; ``sign`` reads the whole of it with a real ASN.1 library when it verifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from kobox.elf.gate import Gate, text
from kobox.errors import BadFile

_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
_CONTEXT_0, _CONTEXT_1, _KEY_ID = 0xA0, 0xA1, 0x80
_COMMON_NAME: Final = bytes.fromhex("550403")
_UTF16_STRING: Final = 0x1E

HASHES: Final = {
    "2a864886f70d0204": "md4",
    "2a864886f70d0205": "md5",
    "2b0e03021a": "sha1",
    "2b24030201": "rmd160",
    "608648016503040201": "sha256",
    "608648016503040202": "sha384",
    "608648016503040203": "sha512",
    "608648016503040204": "sha224",
    "608648016503040208": "sha3-256",
    "608648016503040209": "sha3-384",
    "60864801650304020a": "sha3-512",
    "2a811ccf55018311": "sm3",
}
"""Digest algorithms by the hex of their object identifier's content; names as the kernel spells them."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The first signer of a message. ``serial`` is empty where the key is named by ``key_id`` instead."""

    name: str
    serial: bytes
    key_id: bytes
    hash: str
    """The kernel's name of the digest algorithm, or the object identifier in dots."""
    signature: bytes


class _Value(NamedTuple):
    tag: int
    content: memoryview


class _Reader:
    """Values one after the other in a piece of DER."""

    def __init__(self, file: str, data: bytes | memoryview) -> None:
        self._gate, self._at = Gate(file, data), 0

    @property
    def has_more(self) -> bool:
        return self._at < self._gate.size

    def next(self, *tags: int, place: str) -> _Value:
        """The next value, which must have one of ``tags`` (any if none is given)."""
        tag, first = self._gate.take(self._at, 2, place)
        start = self._at + 2
        if tags and tag not in tags:
            wanted = " or ".join(map(hex, tags))
            raise BadFile(self._gate.file, place, "another ASN.1 tag stands here", tag, wanted)
        size = first
        if first & 0x80:
            count = first & 0x7F
            if not 1 <= count <= 4:
                raise BadFile(self._gate.file, place, "a length is not DER", first)
            size = int.from_bytes(self._gate.take(start, count, place), "big")
            start += count
        self._at = start + size
        return _Value(tag, self._gate.take(start, size, place))

    def peek(self) -> int:
        """The tag of the next value, 0 at the end."""
        return self._gate.take(self._at, 1, "")[0] if self.has_more else 0

    def enter(self, *tags: int, place: str) -> _Reader:
        """A reader of what is in the next value."""
        return _Reader(self._gate.file, self.next(*tags, place=place).content)


def read_signer(message: bytes, file: str) -> Signer:
    """The first signer in a PKCS#7 ``message``. ``BadFile`` when it is none, or has no signer."""
    outer = _Reader(file, message).enter(_SEQUENCE, place="PKCS#7 ContentInfo")
    outer.next(_OID, place="PKCS#7 content type")
    signed = outer.enter(_CONTEXT_0, place="PKCS#7 content").enter(_SEQUENCE, place="PKCS#7 SignedData")
    signed.next(_INTEGER, place="PKCS#7 version")
    signed.next(_SET, place="PKCS#7 digest algorithms")
    signed.next(_SEQUENCE, place="PKCS#7 signed content")
    for optional in (_CONTEXT_0, _CONTEXT_1):
        if signed.peek() == optional:
            signed.next(optional, place="PKCS#7 certificates")
    signers = signed.enter(_SET, place="PKCS#7 SignerInfos")
    return _signer(signers.enter(_SEQUENCE, place="PKCS#7 SignerInfo"))


def _signer(info: _Reader) -> Signer:
    place = "PKCS#7 SignerInfo"
    info.next(_INTEGER, place=place)
    name, serial, key_id = "", b"", b""
    if info.peek() == _KEY_ID:
        key_id = bytes(info.next(_KEY_ID, place=place).content)
    else:
        identity = info.enter(_SEQUENCE, place=place)
        name = _common_name(identity.enter(_SEQUENCE, place="PKCS#7 issuer"))
        serial = bytes(identity.next(_INTEGER, place="PKCS#7 serial number").content).lstrip(b"\0")
    digest = bytes(info.enter(_SEQUENCE, place=place).next(_OID, place="PKCS#7 digest algorithm").content)
    if info.peek() == _CONTEXT_0:
        info.next(_CONTEXT_0, place=place)
    info.next(_SEQUENCE, place="PKCS#7 signature algorithm")
    signature = bytes(info.next(_OCTETS, place="PKCS#7 signature").content)
    return Signer(name, serial, key_id, HASHES.get(digest.hex()) or _dotted(digest), signature)


def _common_name(issuer: _Reader) -> str:
    while issuer.has_more:
        parts = issuer.enter(_SET, place="PKCS#7 issuer")
        while parts.has_more:
            part = parts.enter(_SEQUENCE, place="PKCS#7 issuer")
            if bytes(part.next(_OID, place="PKCS#7 issuer").content) == _COMMON_NAME:
                value = part.next(place="PKCS#7 issuer")
                wide = value.tag == _UTF16_STRING
                return bytes(value.content).decode("utf-16-be", "replace") if wide else text(value.content)
    return ""


def _dotted(content: bytes) -> str:
    """An object identifier's content in dots."""
    numbers, value = [], 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2) if numbers else 0
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]])) if numbers else ""
