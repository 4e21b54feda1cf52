"""Is this module file signed by someone this kernel trusts? The kernel's answer, its log lines, and the reasons.

``verify_signature`` judges a file against keyrings, ``check`` adds the kernel's policy: enforcing, lockdown, flags that
make any signature worthless. Both are pure: bytes and records in, a record out. Follows kernel/module/signing.c,
kernel/module_signature.c, certs/system_keyring.c and security/lockdown/lockdown.c.
"""

from __future__ import annotations

import errno
import hashlib
from enum import IntEnum
from typing import NamedTuple

from kobox.errors import Errno
from kobox.sign import pkcs7
from kobox.sign.keyrings import Key, Keyring, Keyrings
from kobox.sign.keys import Buffer

MARKER = b"~Module signature appended~\n"
_TRAILER_SIZE = 12
_PKCS7 = 2
_IGNORE_MODVERSIONS, _IGNORE_VERMAGIC = 1, 2


class Line(NamedTuple):
    """One line for the kernel log."""

    level: int
    text: str


class Lockdown(IntEnum):
    NONE = 0
    INTEGRITY = 1
    CONFIDENTIALITY = 2


class Verdict(NamedTuple):
    """What the kernel finds when it looks at a file's signature.

    ``number``: 0 when a trusted key vouches for it, else a positive errno; ENODATA when it has no signature at all.
    ``length``: how many bytes of the file the loader goes on with. ``key`` vouched; ``signer`` says whose key the
    signature asks for. ``rings`` are those that were asked.
    """

    number: int
    why: str
    length: int
    key: Key | None = None
    signer: str = ""
    hash_name: str = ""
    rings: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()

    @property
    def trusted(self) -> bool:
        return self.number == 0


class Check(NamedTuple):
    """The outcome of the loader's first step. ``number`` not 0 ends the load; ``ok`` False taints it (E)."""

    ok: bool
    number: int
    lines: tuple[Line, ...]
    verdict: Verdict


def check(
    data: Buffer,
    rings: Keyrings,
    *,
    flags: int = 0,
    enforced: bool = False,
    lockdown: Lockdown = Lockdown.NONE,
    comm: str = "insmod",
) -> Check:
    """What the kernel does with a file before it looks at anything else in it.

    ``flags`` are those of finit_module. ``comm`` is the name of the loading process, for lockdown's line.
    """
    if flags & (_IGNORE_MODVERSIONS | _IGNORE_VERMAGIC):
        verdict = Verdict(errno.ENODATA, "a signature does not cover a module whose versions are ignored", len(data))
    else:
        verdict = verify_signature(data, rings)
    if verdict.trusted:
        return Check(True, 0, verdict.lines, verdict)
    reason = _FORGIVEN.get(verdict.number)
    if reason is None:
        return Check(False, verdict.number, verdict.lines, verdict)
    if enforced:
        line = Line(5, f"Loading of {reason} is rejected")
        return Check(False, errno.EKEYREJECTED, (*verdict.lines, line), verdict)
    if lockdown is not Lockdown.NONE:
        return Check(False, errno.EPERM, (*verdict.lines, lockdown_line(comm, "unsigned module loading")), verdict)
    return Check(False, 0, verdict.lines, verdict)


_FORGIVEN = {
    errno.ENODATA: "unsigned module",
    errno.ENOPKG: "module with unsupported crypto",
    errno.ENOKEY: "module with unavailable key",
}
"""Without enforcement these only taint; every other finding refuses the module whatever the policy."""


def lockdown_line(comm: str, what: str) -> Line:
    """The notice of a locked-down kernel; ``what`` is its word for the deed, as in ``unsafe module parameters``."""
    return Line(5, f"Lockdown: {comm}: {what} is restricted; see man kernel_lockdown.7")


def verify_signature(data: Buffer, rings: Keyrings) -> Verdict:
    """Judge the signature appended to a module file. Never raises: the errno is in the verdict."""
    if len(data) <= len(MARKER) or data[-len(MARKER) :] != MARKER:
        return Verdict(errno.ENODATA, "the file ends without a signature", len(data))
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
