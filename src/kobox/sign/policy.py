"""What a kernel does with a module file before it looks at anything else in it: signature, enforcement, lockdown.

``check`` is the loader's first step. Pure: bytes and records in, a record out. Most modules that are tried here are
unsigned, so that keys and the structure of signatures are looked at (and imported) for signed files only. Follows
kernel/module/signing.c and security/lockdown/lockdown.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kobox.sign.keyrings import Key
    from kobox.sign.keys import Buffer

MARKER = b"~Module signature appended~\n"
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
    verify: Callable[[Buffer], Verdict],
    *,
    flags: int = 0,
    enforced: bool = False,
    lockdown: Lockdown = Lockdown.NONE,
    comm: str = "insmod",
) -> Check:
    """What the kernel does with a file before it looks at anything else in it.

    ``verify`` judges the signature of a file that has one (``verify_signature`` with some keyrings). ``flags`` are
    those of finit_module. ``comm`` is the name of the loading process, for lockdown's line.
    """
    if flags & (_IGNORE_MODVERSIONS | _IGNORE_VERMAGIC):
        verdict = Verdict(errno.ENODATA, "a signature does not cover a module whose versions are ignored", len(data))
    elif not has_signature(data):
        verdict = unsigned(data)
    else:
        verdict = verify(data)
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


def has_signature(data: Buffer) -> bool:
    """Whether the file ends as signed ones do."""
    return len(data) > len(MARKER) and data[-len(MARKER) :] == MARKER


def unsigned(data: Buffer) -> Verdict:
    """What the kernel finds in a file without a signature."""
    return Verdict(errno.ENODATA, "the file ends without a signature", len(data))
