"""Authenticode: the signatures of a PE image (shim, GRUB, a kernel with its EFI stub), and what firmware makes of them.

Follows the Windows Authenticode Portable Executable Signature Format, the UEFI specification 2.10 (32.5.3.3), and, for
the bytes of the digest, crypto/asymmetric_keys/verify_pefile.c. The PKCS#7 inside is judged by ``sign.pkcs7``.
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from kobox.efi.siglist import Entry
from kobox.errors import BadFile, Errno
from kobox.sign import asn1, der, oids, pkcs7
from kobox.sign.keyrings import Keyring, load_key
from kobox.sign.keys import Algorithms
from kobox.sign.x509 import Certificate, parse_certificate

_PE, _PE32, _PE32_PLUS = b"PE\0\0", 0x10B, 0x20B
_DIRECTORIES: Final = {_PE32: 96, _PE32_PLUS: 112}
"""Where the data directories begin in the optional header."""
_CHECKSUM, _HEADERS_SIZE, _CERTIFICATE_TABLE, _SECTION = 64, 60, 4, 40
_WIN_CERTIFICATE = struct.Struct("<IHH")
_PKCS_SIGNED_DATA = 2
_EVERY: Final = Algorithms.every()
TBS_SHA256: Final = UUID("3bd2a492-96c0-4079-b420-fcf98ef103ed")
"""Entries of a dbx that ban a certificate by the hash of its signed part."""


class Image(NamedTuple):
    """A PE file as far as its signature goes. ``hashed`` are the ranges [start, end) that a signature covers."""

    file: str
    data: bytes
    hashed: tuple[tuple[int, int], ...]
    messages: tuple[bytes, ...]
    """PKCS#7 messages; empty for an image that is not signed."""

    def digest(self, name: str = "sha256") -> bytes:
        state = hashlib.new(name)
        for start, end in self.hashed:
            state.update(memoryview(self.data)[start:end])
        return state.digest()


class Signature(NamedTuple):
    """One signature of an image: what it says. ``signer`` and ``issuer`` name the certificate that signed."""

    signer: str
    issuer: str
    hash_name: str
    digest: bytes
    certificates: tuple[Certificate, ...]


class Decision(NamedTuple):
    """What firmware with these lists does with an image. ``by`` is the entry that decided, in words."""

    allowed: bool
    why: str
    by: str = ""


def read_image(data: bytes, file: str) -> Image:
    """The parts of a PE file; ``BadFile`` for anything else."""
    reader = _Reader(data, file)
    header = reader.number(0x3C, 4)
    if data[:2] != b"MZ" or reader.take(header, 4) != _PE:
        raise BadFile(file, "", "is no PE image, as firmware starts them")
    sections, optional_size = reader.number(header + 6, 2), reader.number(header + 20, 2)
    optional = header + 24
    directories = _DIRECTORIES.get(reader.number(optional, 2))
    if directories is None:
        raise BadFile(file, f"{optional:#x}", "optional header", reader.number(optional, 2), "0x10b or 0x20b")
    if reader.number(optional + directories - 4, 4) <= _CERTIFICATE_TABLE:
        raise BadFile(file, f"{optional:#x}", "has no entry for certificates")
    entry = optional + directories + 8 * _CERTIFICATE_TABLE
    table, table_size = reader.number(entry, 4), reader.number(entry + 4, 4)
    if table and table + table_size > len(data):
        raise BadFile(file, f"{entry:#x}", "certificate table beyond the end of the file", table + table_size)
    headers = reader.number(optional + _HEADERS_SIZE, 4)
    if not entry + 8 <= headers <= len(data):
        raise BadFile(file, f"{optional + _HEADERS_SIZE:#x}", "size of the headers", headers)
    hashed = [(0, optional + _CHECKSUM), (optional + _CHECKSUM + 4, entry), (entry + 8, headers)]
    hashed += reader.sections(optional + optional_size, sections)
    covered = headers + sum(end - start for start, end in hashed[3:])
    end = len(data) - (table_size if table else 0)
    if covered < end:
        hashed.append((covered, end))
    messages = tuple(reader.messages(table, table_size)) if table else ()
    return Image(file, data, tuple(hashed), messages)


class _Reader:
    """Every read passes one gate."""

    def __init__(self, data: bytes, file: str) -> None:
        self._data, self._file = data, file

    def take(self, at: int, size: int) -> bytes:
        if at + size > len(self._data):
            raise BadFile(self._file, f"{at:#x}", "ends within its headers", len(self._data))
        return self._data[at : at + size]

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.take(at, size), "little")

    def sections(self, table: int, count: int) -> Iterator[tuple[int, int]]:
        """Raw data of sections, in the order of the file."""
        found = []
        for number in range(count):
            size, start = struct.unpack("<II", self.take(table + number * _SECTION + 16, 8))
            if not size:
                continue
            if start + size > len(self._data):
                raise BadFile(self._file, f"section {number}", "lies beyond the end of the file", start + size)
            found.append((start, start + size))
        yield from sorted(found)

    def messages(self, at: int, size: int) -> Iterator[bytes]:
        end = at + size
        while at + _WIN_CERTIFICATE.size <= end:
            length, _, kind = _WIN_CERTIFICATE.unpack(self.take(at, _WIN_CERTIFICATE.size))
            if length < _WIN_CERTIFICATE.size or at + length > end:
                raise BadFile(self._file, f"{at:#x}", "certificate of a wrong size", length)
            if kind == _PKCS_SIGNED_DATA:
                yield self.take(at + _WIN_CERTIFICATE.size, length - _WIN_CERTIFICATE.size)
            at += -(-length // 8) * 8


def signatures(image: Image) -> list[Signature]:
    """What an image's signatures say, the first signer of each; ``BadFile`` where one cannot be read."""
    found = []
    for raw in image.messages:
        try:
            message = pkcs7.parse_message(raw, _EVERY, oids.default_registry())
            hash_name, digest = _indirect(message)
        except Errno as refused:
            raise BadFile(image.file, "signature", refused.why or refused.name) from None
        certificates = tuple(carried.certificate for carried in message.certificates)
        wanted = message.signers[0].identity
        own = next((one for one in certificates if one.identity == wanted), None)
        found.append(Signature(own.subject if own else "", own.issuer if own else "", hash_name, digest, certificates))
    return found


def carried_certificates(image: Image) -> list[bytes]:
    """The certificates (DER) that an image's signatures bring along, each once."""
    found: dict[bytes, None] = {}
    for raw in image.messages:
        holder = _Certificates(raw)
        try:
            asn1.decode(_CARRIED, holder, raw)
        except Errno as refused:
            raise BadFile(image.file, "signature", refused.why) from None
        found.update(dict.fromkeys(holder.found))
    return list(found)


def judge(image: Image, allowed: Sequence[Entry], banned: Sequence[Entry]) -> Decision:
    """What firmware decides that has ``allowed`` in db (shim: db, its own certificate and MokList) and ``banned`` in
    dbx. A ban wins; then an entry with the image's own hash is enough; then some signature has to lead to a
    certificate."""
    if (entry := _by_hash(image, banned)) is not None:
        return Decision(False, "its hash is in the list of banned images", entry)
    if (entry := _by_hash(image, allowed)) is not None:
        return Decision(True, "its hash is in the list of allowed images", entry)
    if not image.messages:
        return Decision(False, "it is not signed, and its hash is in no list")
    bans = {e.data for e in banned if e.is_certificate}, {e.data for e in banned if e.kind == TBS_SHA256}
    ring, because = _ring(allowed), "no certificate of the list vouches for it"
    for raw in image.messages:
        try:
            return Decision(True, "a certificate of the list vouches for it", _vouched(image, raw, ring, *bans))
        except Errno as refused:
            because = refused.why or refused.name
    return Decision(False, because)


def _by_hash(image: Image, entries: Sequence[Entry]) -> str | None:
    digests: dict[str, bytes] = {}
    for entry in entries:
        name = entry.hash_name
        if name and digests.setdefault(name, image.digest(name)) == entry.data:
            return f"{name} {entry.data.hex()}"
    return None


def _ring(entries: Sequence[Entry]) -> Keyring:
    keys = []
    for entry in entries:
        if entry.is_certificate:
            try:
                keys.append(load_key("db", entry.data, _EVERY, oids.default_registry()))
            except Errno:
                continue  # firmware passes over what it cannot read
    return Keyring("the list", tuple(keys))


def _vouched(image: Image, raw: bytes, ring: Keyring, certificates: set[bytes], signed_parts: set[bytes]) -> str:
    """The certificate that vouches for one signature, by its name; ``Errno`` when none does."""
    message = pkcs7.parse_message(raw, _EVERY, oids.default_registry())
    hash_name, digest = _indirect(message)
    if image.digest(hash_name) != digest:
        raise Errno(errno.EKEYREJECTED, "the image was changed after it was signed")
    pkcs7.verify_consistent(message, _EVERY, at_any_time=True)
    for carried in message.certificates:
        if carried.certificate.tbs_digest in signed_parts:
            raise Errno(errno.EKEYREJECTED, f"'{carried.certificate.subject}' is banned")
    for banned in certificates:
        if _leads_to(message, banned):
            raise Errno(errno.EKEYREJECTED, "a certificate of its chain is banned")
    return f"'{pkcs7.validate_trust(message, ring, _EVERY).description}'"


def _leads_to(message: pkcs7.Message, certificate: bytes) -> bool:
    try:
        key = load_key("dbx", certificate, _EVERY, oids.default_registry())
        pkcs7.validate_trust(message, Keyring("dbx", (key,)), _EVERY)
    except Errno:
        return False
    return True


def _indirect(message: pkcs7.Message) -> tuple[str, bytes]:
    """Digest algorithm and digest of SpcIndirectDataContent. ``Errno`` EBADMSG for a message over anything else."""
    if message.content_type != oids.MS_INDIRECT_DATA or message.content is None:
        raise Errno(errno.EBADMSG, "the signature is not one of an image")
    data = der.value(asn1.SEQUENCE, bytes(message.content))
    found = _Indirect(data)
    asn1.decode(_INDIRECT, found, data)
    if found.hash_name not in _DIGESTS:
        raise Errno(errno.ENOPKG, f"an image signed over {found.hash_name or 'an unknown digest'}")
    return found.hash_name, found.digest


_DIGESTS = frozenset({"sha1", "sha256", "sha384", "sha512"})


class _Indirect:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.hash_name = ""
        self.digest = b""

    def note_hash(self, value: asn1.Value) -> None:
        _, dotted = oids.default_registry().look_up(self._data[value.start : value.start + value.length])
        self.hash_name = oids.HASHES.get(dotted, "")

    def note_digest(self, value: asn1.Value) -> None:
        self.digest = self._data[value.start : value.start + value.length]


class _Certificates:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.found: list[bytes] = []

    def note(self, value: asn1.Value) -> None:
        if value.tag == asn1.SEQUENCE:
            self.found.append(self._data[value.start - value.header : value.start + value.length])


_OID = asn1.leaf(asn1.OBJECT_IDENTIFIER)
_INDIRECT = asn1.sequence(
    asn1.sequence(_OID, asn1.optional(asn1.anything())),
    asn1.sequence(
        asn1.sequence(asn1.leaf(asn1.OBJECT_IDENTIFIER, "note_hash"), asn1.optional(asn1.anything())),
        asn1.leaf(asn1.OCTET_STRING, "note_digest"),
    ),
)
_CARRIED = asn1.sequence(
    _OID,
    asn1.explicit(
        0,
        asn1.sequence(
            asn1.leaf(asn1.INTEGER),
            asn1.anything(),
            asn1.anything(),
            asn1.optional(asn1.implicit(0, asn1.sequence_of(asn1.anything("note")))),
            asn1.anything(),
        ),
    ),
)


def common_name(certificate: bytes) -> str:
    """A certificate's subject as kernels name it; ``Errno`` for one that they cannot read."""
    return parse_certificate(certificate, _EVERY, oids.default_registry()).subject
