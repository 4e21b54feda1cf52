"""Certificates that a machine's firmware and shim hold, as the running kernel shows them: db and the machine owner's.

Follows the UEFI specification (EFI_SIGNATURE_LIST) and Linux's efivarfs and mok-variables. Reading only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

_LIST = struct.Struct("<16sIII")
_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
_OWNER = 16
_ATTRIBUTES = 4
"""An efivarfs file begins with the variable's attributes."""

_PLACES = (
    ("sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f", _ATTRIBUTES),
    ("sys/firmware/efi/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23", _ATTRIBUTES),
    ("sys/firmware/efi/mok-variables/MokListRT", 0),
)


def firmware_certificates(root: str = "") -> tuple[bytes, ...]:
    """DER certificates, each once; none on a machine without UEFI, or where they may not be read."""
    found: dict[bytes, None] = {}
    for place, skip in _PLACES:
        try:
            data = Path(root or "/", place).read_bytes()
        except OSError:
            continue
        found.update(dict.fromkeys(certificates(data[skip:])))
    return tuple(found)


def certificates(data: bytes) -> Iterator[bytes]:
    """The X.509 certificates of signature lists; a broken list ends where it breaks."""
    at = 0
    while at + _LIST.size <= len(data):
        kind, size, header, entry = _LIST.unpack_from(data, at)
        if size < _LIST.size + header or at + size > len(data) or entry <= _OWNER:
            return
        if kind == _X509:
            for start in range(at + _LIST.size + header, at + size - entry + 1, entry):
                yield data[start + _OWNER : start + entry]
        at += size
