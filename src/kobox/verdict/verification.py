"""Whose signature a module file carries, and whether a kernel's keys vouch for it: the key and its ring, or every ring
that was asked and what would have to be enrolled.

The judgement is ``sign.verify_signature``; here it meets a kernel (``host``) and becomes a record for people and
programs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from kobox.errors import KoboxError
from kobox.ko import decompress, split_signature
from kobox.sign import MACHINE, Algorithms, Keyrings, verify_signature
from kobox.sign import Verdict as Judgement
from kobox.verdict.signature import signer_of


class Judge(Protocol):
    """Who is asked: a kernel, or keys alone."""

    label: str

    @property
    def rings(self) -> Keyrings: ...


class KeysAlone:
    """No kernel: certificates, each trusted, every algorithm known."""

    def __init__(self, certificates: Sequence[bytes]) -> None:
        self.label = "the given keys"
        self.rings = Keyrings(platform=None, algorithms=Algorithms.every()).with_keys(MACHINE, certificates)


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring that was asked; each of its keys as the kernel names it, with the ring that it really lies in."""

    name: str
    keys: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Signed:
    """What the file's own signature says. ``key_id`` and ``serial`` in hex; one of them is empty."""

    signer: str
    key_id: str
    serial: str
    hash: str
    size: int


@dataclass(frozen=True, slots=True)
class Verification:
    """``number`` 0: verified, by ``key`` of ``ring``; else the kernel's errno. ``enroll`` says which certificate the
    kernel would have to know, empty where that would not help. ``lines`` are what a kernel logs."""

    file: str
    kernel: str
    number: int
    why: str
    key: str
    ring: str
    signed: Signed | None
    asked: tuple[Ring, ...]
    enroll: str
    lines: tuple[str, ...] = ()
    error: str = ""

    @property
    def verified(self) -> bool:
        return self.number == 0 and not self.error


def verify_file(path: str, judge: Judge) -> Verification:
    """One file against one kernel. ``BadFile`` for a compressed file that is broken."""
    data = decompress(Path(path).read_bytes(), path)
    view = memoryview(data)
    judgement = verify_signature(view, judge.rings)
    signed = _signed(view, path, judgement)
    return Verification(
        path,
        judge.label,
        judgement.number,
        judgement.why,
        judgement.key.description if judgement.key is not None else "",
        judgement.key.ring if judgement.key is not None else "",
        signed,
        tuple(_ring(name, judge.rings) for name in judgement.rings),
        _enroll(signed) if judgement.number == errno.ENOKEY else "",
        tuple(line.text for line in judgement.lines),
    )


def verify_files(
    paths: Sequence[str], judges: Sequence[Judge], jobs: int = 0, each: Callable[[int], None] = lambda count: None
) -> Iterator[Verification]:
    """Many files, in threads: results in the order of the files. A file that cannot be read is one with an ``error``;
    ``each`` is told how many are done."""

    def one(path: str) -> list[Verification]:
        try:
            return [verify_file(path, judge) for judge in judges]
        except OSError as error:
            reason = f"{path}: {error.strerror or error}"
        except KoboxError as error:
            reason = str(error)
        return [Verification(path, judges[0].label, errno.EIO, "", "", "", None, (), "", error=reason)]

    for judge in judges:
        judge.rings  # noqa: B018  # read once, here, not by each thread
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        for count, found in enumerate(pool.map(one, paths), 1):
            each(count)
            yield from found


def _signed(view: memoryview, path: str, judgement: Judgement) -> Signed | None:
    _, trailer = split_signature(view)
    signer = signer_of(trailer, path)
    if trailer is None or signer is None:
        return None
    key_id, serial = signer.key_id or b"", signer.serial or b""
    return Signed(
        signer.name or "", key_id.hex(), serial.hex(), judgement.hash_name or signer.hash or "", trailer.sig_len
    )


def _ring(name: str, rings: Keyrings) -> Ring:
    firmware = rings.for_firmware_keys
    ring = firmware if firmware is not None and firmware.name == name else rings.for_modules
    return Ring(name, tuple((key.description, key.ring) for key in ring.keys))


def _enroll(signed: Signed | None) -> str:
    if signed is None:
        return ""
    which = f"key identifier {signed.key_id}" if signed.key_id else f"serial number {signed.serial}"
    return f"the certificate {f'of {signed.signer!r} ' if signed.signer else ''}with {which}"


def as_data(found: Sequence[Verification]) -> list[dict[str, Any]]:
    """For JSON."""
    return [_data(one) for one in found]


def _data(one: Verification) -> dict[str, Any]:
    data = asdict(one) | {"verified": one.verified, "errno_name": errno.errorcode.get(one.number, "")}
    rings = [
        {"name": ring.name, "keys": [{"description": key, "ring": home} for key, home in ring.keys]}
        for ring in one.asked
    ]
    return data | {"asked": rings, "lines": list(one.lines)}


def text_lines(one: Verification, details: bool = False) -> Iterator[str]:
    """For people: a line for what verifies, the reasons for what does not."""
    if one.error:
        return
    if one.verified:
        yield f"{one.file}: verified on {one.kernel} by '{one.key}' of {one.ring}"
    else:
        name = errno.errorcode.get(one.number, str(one.number))
        text = "it is not signed" if one.number == errno.ENODATA else f"{_WORDS.get(one.number, one.why)} ({name})"
        yield f"{one.file}: not verified on {one.kernel}: {text}"
        if one.number not in (errno.ENODATA, errno.ENOKEY) and one.why:
            yield f"  {one.why}"
    if details or not one.verified:
        yield from _signer_lines(one.signed)
    if details or one.number == errno.ENOKEY:
        yield from _ring_lines(one)
    if one.enroll:
        yield f"  to let it in, enroll {one.enroll}: kobox mok --import CERT.der"


def _signer_lines(signed: Signed | None) -> Iterator[str]:
    if signed is not None:
        which = f"key identifier {signed.key_id}" if signed.key_id else f"serial number {signed.serial}"
        by = f"by '{signed.signer}', " if signed.signer else ""
        yield f"  signed {by}{which}, {signed.hash}, {signed.size} bytes"


def _ring_lines(one: Verification) -> Iterator[str]:
    for ring in one.asked:
        yield f"  asked {ring.name}:" + ("" if ring.keys else " no key")
        for description, home in ring.keys:
            yield f"    '{description}'" + (f" ({home})" if home != ring.name else "")


_WORDS = {
    errno.ENOKEY: "Required key not available",
    errno.EKEYREJECTED: "Key was rejected by service",
    errno.EBADMSG: "Bad message",
    errno.ENOPKG: "Package not installed",
    errno.EINVAL: "Invalid argument",
}
"""As tools print what the system call answers."""
