"""The signature behind a module as modinfo tells it: who signed, with which key, how. Nothing is verified here.

kmod asks OpenSSL for the first signer of the PKCS#7 message; this is the small part of DER that it takes to say the
same. Older kinds of trailer carry signer and key in the open. A trailer that makes no sense is no signature.
"""

from __future__ import annotations

from typing import NamedTuple

MARKER = b"~Module signature appended~\n"
_TRAILER_SIZE = 12

_HASHES = ("md4", "md5", "sha1", "rmd160", "sha256", "sha384", "sha512", "sha224", "sm3")
_ID_TYPES = ("PGP", "X509", "PKCS#7")
_ALGORITHMS = 2
_PKCS7 = 2
_HASH_OIDS: dict[bytes, str] = {
    bytes.fromhex("2a864886f70d0204"): "md4",
    bytes.fromhex("2a864886f70d0205"): "md5",
    bytes.fromhex("2b0e03021a"): "sha1",
    bytes.fromhex("2b24030201"): "rmd160",
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
    bytes.fromhex("608648016503040204"): "sha224",
    bytes.fromhex("2a811ccf55018311"): "sm3",
}
_COMMON_NAME = bytes.fromhex("550403")
_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET, _FIRST = 0x02, 0x04, 0x06, 0x30, 0x31, 0xA0


class SignatureInfo(NamedTuple):
    """What modinfo shows. ``key`` is a serial number for PKCS#7, else the key's own identifier."""

    kind: str
    signer: bytes
    key: bytes
    hash: str
    value: bytes

    def fields(self) -> list[tuple[str, bytes]]:
        """modinfo's lines, in its order."""
        return [
            ("sig_id", self.kind.encode()),
            ("signer", self.signer),
            ("sig_key", hex_lines(self.key)),
            ("sig_hashalgo", self.hash.encode()),
            ("signature", hex_lines(self.value)),
        ]


def hex_lines(value: bytes) -> bytes:
    """``01:AB:…`` with 20 bytes a line, as modinfo prints it."""
    lines = [value[at : at + 20].hex(":").upper() for at in range(0, len(value), 20)]
    return ":\n\t\t".join(lines).encode()


def signature_of(data: bytes) -> SignatureInfo | None:
    """The signature at the end of a module, or of as much of its end as holds all of it; None without one."""
    end = len(data) - len(MARKER) - _TRAILER_SIZE
    if end < 0 or not data.endswith(MARKER):
        return None
    trailer = data[end : end + _TRAILER_SIZE]
    algorithm, digest, id_type, signer_size, key_size = trailer[:5]
    size = int.from_bytes(trailer[8:], "big")
    if algorithm >= _ALGORITHMS or digest >= len(_HASHES) or id_type >= len(_ID_TYPES):
        return None
    if not size or end < signer_size + key_size + size:
        return None
    value = data[end - size : end]
    if id_type == _PKCS7:
        try:
            return _first_signer(value)
        except (IndexError, ValueError):
            return None
    key_at = end - size - key_size
    signer = data[key_at - signer_size : key_at].partition(b"\0")[0]
    return SignatureInfo(_ID_TYPES[id_type], signer, data[key_at : key_at + key_size], _HASHES[digest], value)


def claimed_size(end: bytes) -> int:
    """How many bytes a file's signature takes with its trailer, by what the trailer says; 0 without one."""
    at = len(end) - len(MARKER) - _TRAILER_SIZE
    if at < 0 or not end.endswith(MARKER):
        return 0
    size = int.from_bytes(end[at + 8 : at + 12], "big")
    return end[at + 3] + end[at + 4] + size + _TRAILER_SIZE + len(MARKER)


class _Value(NamedTuple):
    tag: int
    data: bytes
    """Its content."""


def _values(data: bytes) -> list[_Value]:
    """The values that stand one after the other. ``ValueError`` for what is not DER."""
    found: list[_Value] = []
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            if not 0 < count <= 4:
                raise ValueError("length")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("cut off")
        found.append(_Value(tag, data[at : at + size]))
        at += size
    return found


def _inside(value: _Value, tag: int) -> list[_Value]:
    if value.tag != tag:
        raise ValueError(f"tag {value.tag:#x}, not {tag:#x}")
    return _values(value.data)


def _first_signer(message: bytes) -> SignatureInfo | None:
    _, content = _inside(_first_value(message), _SEQUENCE)[:2]
    signed = _inside(_inside(content, _FIRST)[0], _SEQUENCE)
    signer = _inside(_inside(signed[-1], _SET)[0], _SEQUENCE)
    issuer, serial = _inside(signer[1], _SEQUENCE)[:2]
    hash_name = _HASH_OIDS.get(_inside(signer[2], _SEQUENCE)[0].data)
    rest = signer[4:] if signer[3].tag == _FIRST else signer[3:]
    if hash_name is None or serial.tag != _INTEGER or rest[1].tag != _OCTETS:
        return None
    number = abs(int.from_bytes(serial.data, "big", signed=True))
    key = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return SignatureInfo(_ID_TYPES[_PKCS7], _common_name(issuer), key, hash_name, rest[1].data)


def _first_value(message: bytes) -> _Value:
    """The outermost value; bytes behind it are padding."""
    header = 2 + (message[1] & 0x7F if message[1] & 0x80 else 0)
    size = int.from_bytes(message[2:header], "big") if header > 2 else message[1]
    return _values(message[: header + size])[0]


def _common_name(issuer: _Value) -> bytes:
    """The issuer's first common name; without one what its last part says."""
    text = b""
    for part in _inside(issuer, _SEQUENCE):
        for attribute in _inside(part, _SET):
            name, value = _inside(attribute, _SEQUENCE)[:2]
            text = value.data.partition(b"\0")[0]
            if name.tag == _OID and name.data == _COMMON_NAME:
                return text
    return text
