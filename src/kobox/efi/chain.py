"""From power-on to the kernel's first instruction on a machine with UEFI: who checks whom, and with which key.

A directory is the machine: its variables, and beside them the boot loader files that it starts (``shimx64.efi``,
``grubx64.efi``). The firmware checks shim, MokManager does what waits, shim checks what comes next and leaves its lists
for the kernel. Without a shim in the directory kobox stands in for one that trusts what the firmware trusts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kobox.efi import siglist, variables
from kobox.efi.authenticode import Decision, Image, carried_certificates, judge, read_image
from kobox.efi.mokmanager import Outcome, Password, manage, mirror
from kobox.efi.shim import Shim, read_shim
from kobox.efi.siglist import Entry
from kobox.efi.variables import DB, DBX, KEK, PK, SECURE_BOOT, SETUP_MODE, SHOWN, SIGNED, Key, Variables, shim
from kobox.errors import BadFile, Errno, KoboxError, UsageError
from kobox.sign import certificate_of

SHIM_FILE, GRUB_FILE = "shimx64.efi", "grubx64.efi"


class Step(NamedTuple):
    """One link: ``who`` looks at ``what`` and lets it pass or not. ``by`` is the key, hash or setting that decided."""

    who: str
    what: str
    passed: bool
    why: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """All links up to the kernel, or to the one that broke. ``variables`` are what the kernel finds."""

    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]
    variables: Variables

    @property
    def booted(self) -> bool:
        return all(step.passed for step in self.steps)

    def as_data(self) -> dict[str, Any]:
        return {
            "booted": self.booted,
            "steps": [step._asdict() for step in self.steps],
            "mok": [outcome._asdict() | {"entries": list(outcome.entries)} for outcome in self.outcomes],
        }


class SecurityViolation(KoboxError):
    """The chain broke: what it was is in ``chain``."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        broken = next(step for step in chain.steps if not step.passed)
        super().__init__(f"{broken.who} refuses {broken.what}: {broken.why}", "kobox mok shows the machine's keys")


def power_on(folder: str | os.PathLike[str], kernel: bytes, file: str, password: Password | None = None) -> Chain:
    """Run the chain of the machine in ``folder`` up to this kernel; what MokManager changed is kept there.

    ``SecurityViolation`` when a link does not hold. ``file`` is what the kernel is called.
    """
    machine = variables.load(folder)
    steps: list[Step] = []
    loader = _shim_of(folder)
    allowed, banned = _entries(machine, DB), _entries(machine, DBX)
    checks = machine.flag(SECURE_BOOT) and not machine.flag(SETUP_MODE)
    if loader is not None:
        steps.append(_check("firmware", SHIM_FILE, loader.image, allowed, banned, "" if checks else _OFF))
        if not steps[-1].passed:
            raise SecurityViolation(Chain(tuple(steps), (), machine))
    outcomes = tuple(manage(machine, password))
    own_allowed = list(loader.allowed) if loader is not None else []
    own_banned = list(loader.banned) if loader is not None else []
    mirror(machine, own_allowed, own_banned)
    variables.save(folder, machine)
    trusted = own_allowed + _entries(machine, shim("MokList"))
    if not machine.flag(shim("MokDBState")):
        trusted = allowed + trusted
    refused = banned + own_banned + _entries(machine, shim("MokListX"))
    waived = "" if checks else _OFF
    if checks and machine.flag(shim("MokSBState")):
        waived = "validation is disabled in shim (mokutil --disable-validation)"
    who = "shim" if loader is not None else "firmware and kobox's stand-in for shim"
    for name, data in (*_grub_of(folder), (file, kernel)):
        try:
            image = read_image(data, name)
        except BadFile as bad:
            steps.append(Step(who, name, bool(waived), waived or str(bad)))
        else:
            steps.append(_check(who, name, image, trusted, refused, waived))
        if not steps[-1].passed:
            raise SecurityViolation(Chain(tuple(steps), outcomes, machine))
    return Chain(tuple(steps), outcomes, machine)


_OFF = "Secure Boot is off: not checked"


def _check(who: str, what: str, image: Image, allowed: Sequence[Entry], banned: Sequence[Entry], waived: str) -> Step:
    if waived:
        return Step(who, what, True, waived)
    try:
        decision = judge(image, allowed, banned)
    except (BadFile, Errno) as broken:
        decision = Decision(False, str(broken))
    return Step(who, what, decision.allowed, decision.why, decision.by)


def _entries(machine: Variables, key: Key) -> list[Entry]:
    return siglist.decode(machine.value(key), key.name)


def _shim_of(folder: str | os.PathLike[str]) -> Shim | None:
    path = Path(folder) / SHIM_FILE
    return read_shim(path.read_bytes(), SHIM_FILE) if path.is_file() else None


def _grub_of(folder: str | os.PathLike[str]) -> list[tuple[str, bytes]]:
    path = Path(folder) / GRUB_FILE
    return [(GRUB_FILE, path.read_bytes())] if path.is_file() else []


# -- making a machine -----------------------------------------------------------------------------------------------


def make_machine(
    folder: str | os.PathLike[str],
    owner: Callable[[str], bytes],
    *,
    loader: str | None = None,
    grub: str | None = None,
    trust: Iterable[str] = (),
    ban: Iterable[str] = (),
    enabled: bool = True,
) -> Variables:
    """A machine with Secure Boot in ``folder``, which must not be one yet.

    ``owner`` makes a certificate for PK and for KEK. db gets what ``trust`` names: certificates, or images, whose
    signatures' own certificates then count, and the certificates that came with ``loader``'s signatures. dbx gets
    ``ban``: certificates, or images by their hash.
    """
    place = Path(folder)
    if place.is_dir() and any(place.iterdir()):
        raise UsageError(f"{place}: is not empty", "kobox mok --init makes a new machine only")
    allowed = [entry for path in trust for entry in _trusted(path)]
    machine = Variables()
    if loader is not None:
        found = read_shim(Path(loader).read_bytes(), loader)
        allowed += [siglist.certificate(data) for data in carried_certificates(found.image)]
    banned = [entry for path in ban for entry in _banned(path)]
    machine.store(SECURE_BOOT, b"\1" if enabled else b"\0", SHOWN)
    machine.store(SETUP_MODE, b"\0", SHOWN)
    for key in (PK, KEK):
        machine.store(key, siglist.encode([siglist.certificate(owner(f"kobox {key.name}"))]), SIGNED)
    machine.store(DB, siglist.encode(dict.fromkeys(allowed)), SIGNED)
    machine.store(DBX, siglist.encode(dict.fromkeys(banned)), SIGNED)
    variables.save(place, machine)
    for source, name in ((loader, SHIM_FILE), (grub, GRUB_FILE)):
        if source is not None:
            shutil.copyfile(source, place / name)
    return machine


def change_lists(folder: str | os.PathLike[str], trust: Iterable[str] = (), ban: Iterable[str] = ()) -> Variables:
    """Add to db and dbx of a machine, as its owner would from the firmware's own menu: what ``ban`` names leaves db."""
    machine = variables.load(folder)
    banned = [entry for path in ban for entry in _banned(path)]
    gone = {(entry.kind, entry.data) for entry in banned}
    allowed = [e for e in _entries(machine, DB) if (e.kind, e.data) not in gone]
    allowed += [entry for path in trust for entry in _trusted(path)]
    machine.store(DB, siglist.encode(dict.fromkeys(allowed)), SIGNED)
    machine.store(DBX, siglist.encode(dict.fromkeys([*_entries(machine, DBX), *banned])), SIGNED)
    variables.save(folder, machine)
    return machine


def _trusted(path: str) -> list[Entry]:
    data = Path(path).read_bytes()
    if data[:2] != b"MZ":
        return [siglist.certificate(certificate_of(data, path))]
    carried = carried_certificates(read_image(data, path))
    if not carried:
        raise UsageError(f"{path}: is not signed, so that it names nobody to trust")
    return [siglist.certificate(one) for one in carried]


def _banned(path: str) -> list[Entry]:
    data = Path(path).read_bytes()
    if data[:2] != b"MZ":
        return [siglist.certificate(certificate_of(data, path))]
    return [siglist.file_hash(read_image(data, path).digest())]


# -- showing --------------------------------------------------------------------------------------------------------


def text_lines(chain: Chain, kernel_says: Sequence[str] = ()) -> list[str]:
    """The chain for people, a line for each link; ``kernel_says`` are lines of the kernel's log about it."""
    lines = []
    for outcome in chain.outcomes:
        lines.append(f"{'done' if outcome.done else 'NOT DONE'}  MokManager: {outcome.title}")
        lines += [f"      {entry}" for entry in outcome.entries]
        if outcome.why:
            lines.append(f"      {outcome.why}; the request is gone")
    for step in chain.steps:
        lines.append(f"{'ok' if step.passed else 'REFUSED'}  {step.who} -> {step.what}")
        lines.append(f"      {step.why}{f': {step.by}' if step.by else ''}")
    return lines + [f"      {line}" for line in kernel_says]
