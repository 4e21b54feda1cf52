"""Why a kernel would not take a module's signature, and who made it."""

from __future__ import annotations

import errno
from collections.abc import Callable

from kobox.errors import BadFile
from kobox.ko import SignatureTrailer
from kobox.ko.pkcs7 import Signer, read_signer
from kobox.sign import Check, Keyrings, Lockdown
from kobox.verdict.fixes import fix_of
from kobox.verdict.host import Policy
from kobox.verdict.records import Line, Note, Reason

_RULES = {
    errno.ENODATA: "signature-missing",
    errno.ENOKEY: "signature-unknown-key",
    errno.ENOPKG: "signature-unsupported",
    errno.EBADMSG: "signature-malformed",
    errno.EKEYREJECTED: "signature-damaged",
}
_WHAT = {
    "signature-missing": "it is not signed",
    "signature-unknown-key": "it is signed with a key that this kernel does not trust",
    "signature-unsupported": "its signature needs what this kernel cannot check",
    "signature-malformed": "what is appended to it is no sound signature",
    "signature-damaged": "its signature does not match its content",
    "signature-banned": "it is on the kernel's blacklist",
}


def signature_reason(
    check: Check, policy: Policy, rings: Callable[[], Keyrings], signer: Signer | None
) -> Reason | None:
    """The reason for which the first step of a load refuses the module; None when it goes on. ``rings`` is asked for
    the keys only when somebody wants to know them."""
    if not check.number:
        return None
    number = check.verdict.number
    rule = _RULES.get(number, "signature-malformed")
    if "blacklisted" in check.verdict.why:
        rule = "signature-banned"
    by = _demands(policy)
    text = f"{_WHAT[rule]}{_who(signer)}"
    if by and check.number != number:
        text += f", and {by} demands a trusted one"
    if rule == "signature-unknown-key":
        text += f"; trusted are: {trusted(rings())}"
    elif check.verdict.why and rule != "signature-missing":
        text += f" ({check.verdict.why})"
    log = tuple(Line(line.level, line.text) for line in check.lines)
    return Reason(rule, "signature", check.number, text, fix_of(rule, by=by or "enforcement"), log)


def signature_note(check: Check, signer: Signer | None) -> Note | None:
    """What is to be said of a module that is loaded without a trusted signature."""
    if check.number or check.ok:
        return None
    rule = _RULES.get(check.verdict.number, "signature-malformed")
    text = f"{_WHAT[rule]}{_who(signer)}: this kernel loads it all the same and taints itself (E)"
    return Note(rule, f"{text}; with Secure Boot, lockdown or module.sig_enforce it would be refused")


def signer_of(trailer: SignatureTrailer | None, file: str) -> Signer | None:
    """Who made a signature, as far as it can be read."""
    if trailer is None or not trailer.message:
        return None
    try:
        return read_signer(trailer.message, file)
    except BadFile:
        return None


def trusted(rings: Keyrings) -> str:
    """The keys that modules are checked against, by their subjects."""
    rest = rings.for_firmware_keys.keys if rings.for_firmware_keys is not None else ()
    return ", ".join(f"'{key.description}'" for key in (*rings.for_modules.keys, *rest)) or "no keys at all"


def _who(signer: Signer | None) -> str:
    if signer is None:
        return ""
    key = f"key {signer.key_id.hex()}" if signer.key_id else f"serial number {signer.serial.hex()}"
    return f" (by '{signer.name}', {key})" if signer.name else f" ({key})"


def _demands(policy: Policy) -> str:
    if policy.enforced:
        return policy.enforced_by
    return policy.lockdown_by if policy.lockdown is not Lockdown.NONE else ""
