"""Encoding DER (X.690): the few types that signatures and EFI hashes are made of. Decoding is ``asn1``."""

from __future__ import annotations

from kobox.sign.asn1 import INTEGER, OBJECT_IDENTIFIER
from kobox.sign.oids import encoded

NULL = b"\x05\x00"


def value(tag: int, *parts: bytes) -> bytes:
    """One value with a definite length of the shortest form."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def oid(dotted: str) -> bytes:
    return value(OBJECT_IDENTIFIER, encoded(dotted))


def integer(number: int) -> bytes:
    """A number that is not negative."""
    return value(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
