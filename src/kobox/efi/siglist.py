"""EFI_SIGNATURE_LIST: the certificates and hashes of db, dbx, KEK, PK and shim's lists, to records and back.

Follows the UEFI specification 2.10, 32.4.1.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from uuid import UUID

from kobox.errors import BadFile

_LIST: Final = struct.Struct("<16sIII")
"""Type, size of the list, of its header, of each of its signatures."""
_OWNER: Final = 16

X509: Final = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
SHA256: Final = UUID("c1c41626-504c-4092-aca9-41f936934328")
HASHES: Final = {
    UUID("826ca512-cf10-4ac9-b187-be01496631bd"): "sha1",
    UUID("0b6e5233-a65c-44c9-9407-d9ab83bfc8bd"): "sha224",
    SHA256: "sha256",
    UUID("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"): "sha384",
    UUID("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"): "sha512",
}
SHIM: Final = UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
"""Who owns the entries of shim's lists, and the namespace of its variables."""


class Entry(NamedTuple):
    """One signature: a certificate (DER), or the hash of a file or of a certificate's signed part. ``owner`` is who put
    it there."""

    kind: UUID
    data: bytes
    owner: UUID = SHIM

    @property
    def is_certificate(self) -> bool:
        return self.kind == X509

    @property
    def hash_name(self) -> str:
        """``sha256`` …; empty for what is no hash of a file."""
        return HASHES.get(self.kind, "")


def certificate(data: bytes, owner: UUID = SHIM) -> Entry:
    return Entry(X509, data, owner)


def file_hash(digest: bytes, owner: UUID = SHIM) -> Entry:
    """The hash of an image; the kind follows from its length."""
    kind = next((kind for kind, name in HASHES.items() if hashlib.new(name).digest_size == len(digest)), None)
    if kind is None:
        raise ValueError(f"no hash of {len(digest)} bytes")
    return Entry(kind, digest, owner)


def decode(data: bytes, what: str) -> list[Entry]:
    """All entries; ``BadFile`` (``what`` names the variable or file) where the lists are broken."""
    return list(_entries(data, what))


def _entries(data: bytes, what: str) -> Iterator[Entry]:
    at = 0
    while at < len(data):
        if len(data) - at < _LIST.size:
            raise BadFile(what, f"{at:#x}", "signature list is cut off")
        kind, size, header, each = _LIST.unpack_from(data, at)
        first = at + _LIST.size + header
        if size < _LIST.size + header or at + size > len(data):
            raise BadFile(what, f"{at:#x}", "signature list of a wrong size", size, f"at most {len(data) - at:#x}")
        if each <= _OWNER or (at + size - first) % each:
            raise BadFile(what, f"{at:#x}", "signatures of a wrong size", each)
        for start in range(first, at + size, each):
            yield Entry(
                UUID(bytes_le=kind), data[start + _OWNER : start + each], UUID(bytes_le=data[start : start + _OWNER])
            )
        at += size


def encode(entries: Iterable[Entry]) -> bytes:
    """Lists of these: hashes of one kind and size share a list while they follow each other, as mokutil writes them;
    each certificate has its own."""
    groups: list[list[Entry]] = []
    for entry in entries:
        last = groups[-1][0] if groups else None
        if last is not None and not entry.is_certificate and last.kind == entry.kind:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return b"".join(map(_list, groups))


def _list(group: list[Entry]) -> bytes:
    each = _OWNER + len(group[0].data)
    body = b"".join(entry.owner.bytes_le + entry.data for entry in group)
    return _LIST.pack(group[0].kind.bytes_le, _LIST.size + len(body), 0, each) + body
