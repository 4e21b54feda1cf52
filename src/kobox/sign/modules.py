"""Is this module file signed by someone this kernel trusts? The kernel's answer, its log lines, and the reasons.

``verify_signature`` judges a file against keyrings; ``policy`` says what follows from that. Follows
kernel/module/signing.c, kernel/module_signature.c and certs/system_keyring.c.
"""

from __future__ import annotations

import errno
import hashlib

from kobox.errors import Errno
from kobox.sign import pkcs7
from kobox.sign.keyrings import Key, Keyring, Keyrings
from kobox.sign.keys import Buffer
from kobox.sign.policy import MARKER, Line, Verdict, has_signature, unsigned

_TRAILER_SIZE = 12
_PKCS7 = 2


def verify_signature(data: Buffer, rings: Keyrings) -> Verdict:
    """Judge the signature appended to a module file. Never raises: the errno is in the verdict."""
    if not has_signature(data):
        return unsigned(data)
    judging = _Judging(data, rings)
    try:
        key = judging.run()
    except Errno as refused:
        return judging.verdict(refused.number, refused.why)
    return judging.verdict(0, f"vouched for by '{key.description}' of {key.ring}", key)


class _Judging:
    """One file on its way to a verdict; what is known so far survives a refusal."""

    def __init__(self, data: Buffer, rings: Keyrings) -> None:
        self.data, self.rings = data, rings
        self.length = len(data) - len(MARKER)
        self.lines: list[Line] = []
        self.asked: list[str] = []
        self.signer = self.hash_name = ""

    def log(self, level: int, text: str) -> None:
        self.lines.append(Line(level, text))

    def verdict(self, number: int, why: str, key: Key | None = None) -> Verdict:
        lines, asked = tuple(self.lines), tuple(self.asked)
        return Verdict(number, why, self.length, key, self.signer, self.hash_name, asked, lines)

    def run(self) -> Key:
        message = self.signature()
        try:
            key = self.trusted_key(message, self.rings.for_modules)
        except Errno as refused:
            firmware = self.rings.for_firmware_keys
            if refused.number != errno.ENOKEY or firmware is None:
                raise
            key = self.trusted_key(message, firmware)
        digest = hashlib.sha256(self.data).digest() if self.rings.banned else b""
        if digest and self.rings.bans_file(digest):
            self.log(3, f"Module hash {digest.hex()} is blacklisted")
            raise Errno(errno.EKEYREJECTED, "this very file is blacklisted")
        return key

    def signature(self) -> bytes:
        """The PKCS#7 message, once its trailer is found to be sane."""
        size = self.length
        if size <= _TRAILER_SIZE:
            raise Errno(errno.EBADMSG, "no room for a signature before its marker")
        trailer = bytes(self.data[size - _TRAILER_SIZE : size])
        length = int.from_bytes(trailer[8:], "big")
        if length >= size - _TRAILER_SIZE:
            raise Errno(errno.EBADMSG, f"signature of {length} bytes in a file of {size - _TRAILER_SIZE}")
        if trailer[2] != _PKCS7:
            self.log(3, "module: not signed with expected PKCS#7 message")
            raise Errno(errno.ENOPKG, f"signature of type {trailer[2]}, only PKCS#7 ({_PKCS7}) is known")
        if any(trailer[:2]) or any(trailer[3:8]):
            self.log(3, "module: PKCS#7 signature info has unexpected non-zero params")
            raise Errno(errno.EBADMSG, "a field of the signature's trailer that must be zero is not")
        self.length = size - _TRAILER_SIZE - length
        return bytes(self.data[self.length : self.length + length])

    def trusted_key(self, raw: bytes, ring: Keyring) -> Key:
        """One pass of the kernel: it parses and digests afresh for each ring, so its lines appear again."""
        algorithms, registry = self.rings.algorithms, self.rings.registry
        message = pkcs7.parse_message(raw, algorithms, registry, self.log, self.rings.bans_certificate)
        if message.content is not None:
            self.log(4, "PKCS7: Data already supplied")
            self.log(3, "PKCS#7 signature with non-detached data")
            raise Errno(errno.EBADMSG, "signature carries data of its own")
        message.content = self.data[: self.length]
        self.signer = ", ".join(_asked_for(signer) for signer in message.signers)
        self.hash_name = message.signers[0].hash_name
        pkcs7.verify(message, algorithms, self.log)
        self.asked.append(ring.name)
        return pkcs7.validate_trust(message, ring, algorithms)


def _asked_for(signer: pkcs7.Signer) -> str:
    if signer.by_skid:
        return f"key {signer.identity.hex()}"
    return f"certificate {signer.serial.hex()}"
