"""``kobox boot --secure-boot``: the machine is switched on, MokManager waits for somebody, the chain is shown."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import NamedTuple

from kobox.cli.mok_verbs import first_line, machine_folder, owner_certificate
from kobox.efi.chain import Chain, SecurityViolation, make_machine, power_on, text_lines
from kobox.efi.mokmanager import Password, Pending
from kobox.efi.picture import svg
from kobox.errors import UsageError
from kobox.image import list_images
from kobox.image.store import kernel_file
from kobox.session.boot import BootPlan, image_of


class PoweredOn(NamedTuple):
    folder: Path
    chain: Chain
    lines: list[str]


def power_on_machine(args: argparse.Namespace, plan: BootPlan) -> PoweredOn:
    """Run the chain up to the kernel; a broken one is shown before ``SecurityViolation`` ends the command."""
    folder = machine_folder(args.vars).absolute()
    file = kernel_file(_image(plan))
    if not folder.exists() and args.vars is None:
        make_machine(folder, owner_certificate, trust=[str(file)])
        print(f"{folder}: made, its firmware trusts who signed {file.name}", file=sys.stderr)
    try:
        chain = power_on(folder, file.read_bytes(), file.name, _password(args))
    except SecurityViolation as violation:
        _draw(args, violation.chain)
        print("\n".join(text_lines(violation.chain)), file=sys.stderr)
        raise
    _draw(args, chain)
    return PoweredOn(folder, chain, text_lines(chain))


def power_on_again(args: argparse.Namespace, machine: str, image: str) -> list[str]:
    """The chain of a session's machine, with MokManager, ahead of the reboot."""
    file = kernel_file(image)
    return text_lines(power_on(machine, file.read_bytes(), file.name, _password(args)))


def _image(plan: BootPlan) -> str:
    image = image_of(plan)
    if image is None:
        added = list_images()
        if not added:
            raise UsageError("no image is added, and the bare kernel has no firmware", "kobox kernel add --debian")
        image = max(added, key=lambda one: one.added).release
    return image


def _password(args: argparse.Namespace) -> Password | None:
    if args.mok_password_file is not None:
        given = first_line(args.mok_password_file)
        return lambda pending, attempt: given if attempt == 0 else None
    return _ask if sys.stdin.isatty() else None


def _ask(pending: Pending, attempt: int) -> str | None:
    """MokManager's dialogue; an empty line goes on to boot."""
    if attempt == 0:
        print(f"MokManager: {pending.title}?", file=sys.stderr)
        for entry in pending.entries:
            print(f"  {entry}", file=sys.stderr)
    else:
        print("Password doesn't match", file=sys.stderr)
    return getpass.getpass("Password (empty: continue boot): ") or None


def _draw(args: argparse.Namespace, chain: Chain) -> None:
    if args.picture is not None:
        Path(args.picture).write_text(svg(chain), encoding="utf-8")
