"""The signature at a module's end, taken apart but not verified (``sign`` does that).

A signed file is ``module | PKCS#7 message | 12-byte trailer | marker line``; the trailer's layout is the kernel's
``struct module_signature``. Splitting is as tolerant as the loader: what is wrong with a trailer is a fact in its
record, never a reason not to read the module in front of it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kobox.elf import Buffer

MARKER: Final = b"~Module signature appended~\n"
PKEY_ID_PKCS7: Final = 2
ID_TYPES: Final = {0: "PGP", 1: "X.509", PKEY_ID_PKCS7: "PKCS#7"}
_TRAILER: Final = Struct(">BBBBB3sI")
"""algo, hash, id_type, signer_len, key_id_len, padding, sig_len; the length is big-endian on every machine."""


class SignatureTrailer(NamedTuple):
    """What stands behind a module that carries the marker line."""

    algo: int
    hash: int
    id_type: int
    signer_len: int
    key_id_len: int
    pad: bytes
    sig_len: int
    message: bytes
    """The PKCS#7 message; empty when the trailer's length cannot be true."""
    offset: int
    """Where the module ends: the message, or the trailer without one, starts here."""
    problems: tuple[str, ...] = ()
    """What is wrong with the trailer, in words; empty for a well-formed one."""

    @property
    def id_name(self) -> str:
        """The kind of message, ``PKCS#7`` for every module signed since Linux 4.3."""
        return ID_TYPES.get(self.id_type, f"unknown ({self.id_type})")


def split_signature(data: Buffer) -> tuple[memoryview, SignatureTrailer | None]:
    """The module without its signature, and the signature if the file ends in the marker line."""
    view = memoryview(data).cast("B")
    body = len(view) - len(MARKER)
    if body < 0 or bytes(view[body:]) != MARKER:
        return view, None
    if body <= _TRAILER.size:
        problem = f"only {body} bytes stand before the marker, the trailer alone takes {_TRAILER.size}"
        return view[:body], SignatureTrailer(0, 0, 0, 0, 0, b"", 0, b"", body, (problem,))
    algo, digest, id_type, signer_len, key_id_len, pad, sig_len = _TRAILER.unpack(view[body - _TRAILER.size : body])
    end = body - _TRAILER.size
    problems = []
    if sig_len >= end:
        problems.append(f"sig_len {sig_len:#x} is not below the {end:#x} bytes in front of the trailer")
        start, message = body, b""
    else:
        start = end - sig_len
        message = bytes(view[start:end])
    if id_type != PKEY_ID_PKCS7:
        problems.append(f"id_type is {id_type}, not {PKEY_ID_PKCS7} (PKCS#7)")
    elif algo or digest or signer_len or key_id_len or any(pad):
        problems.append("fields that PKCS#7 leaves unused are not zero")
    trailer = SignatureTrailer(
        algo, digest, id_type, signer_len, key_id_len, pad, sig_len, message, start, tuple(problems)
    )
    return view[:start], trailer
