"""Certificate files: PEM or DER to DER bytes."""

from __future__ import annotations

import base64
import binascii

from kobox.errors import BadFile

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def read_certificate(path: str) -> bytes:
    """The DER bytes of a certificate file, PEM (the first in it, a key may stand before) or DER."""
    with open(path, "rb") as file:
        return certificate_of(file.read(), path)


def certificate_of(data: bytes, file: str) -> bytes:
    """The DER bytes of the first certificate in a file's bytes; ``file`` is what errors call it."""
    start = data.find(_BEGIN)
    if start < 0:
        if data[:1] != b"\x30":
            raise BadFile(file, "", "is no X.509 certificate, neither DER nor PEM")
        return data
    inside, end, _ = data[start + len(_BEGIN) :].partition(_END)
    try:
        if not end:
            raise binascii.Error("its end is missing")
        return base64.b64decode(b"".join(inside.split()), validate=True)
    except binascii.Error as error:
        raise BadFile(file, "PEM", str(error)) from error
