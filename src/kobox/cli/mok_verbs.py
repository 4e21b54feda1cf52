"""What each verb of ``kobox mok`` does: the machine's directory is read, changed and written back."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

from kobox.cli.kmod_face import print_json
from kobox.efi import siglist, variables
from kobox.efi.chain import change_lists, make_machine
from kobox.efi.crypt import Hash, parse_hash
from kobox.efi.mok import Mok, Request, Secret
from kobox.efi.mokmanager import described
from kobox.efi.variables import DB, DBX, KEK, PK, Key, Variables, shim
from kobox.errors import UsageError
from kobox.image.cache import data_root

Verb = Callable[[Mok, argparse.Namespace], int]


def perform(args: argparse.Namespace) -> int:
    folder = machine_folder(args.vars)
    if args.init:
        return _make(args, folder)
    if args.trust or args.ban:
        change_lists(folder, args.trust, args.ban)
        return 0
    chosen = [verb for verb in _VERBS if getattr(args, verb) not in (None, False)]
    if len(chosen) != 1:
        raise UsageError("one thing at a time: one of mokutil's verbs", "kobox mok --help")
    machine = variables.load(folder)
    if args.json:
        return _as_json(args, machine, chosen[0])
    before = dict(machine)
    code = _VERBS[chosen[0]](_mok(args, machine), args)
    if machine != before:
        variables.save(folder, machine)
    return code


def machine_folder(given: str | None) -> Path:
    """The machine that is meant."""
    return Path(given) if given is not None else data_root() / "machine"


def owner_certificate(name: str) -> bytes:
    """A certificate for a machine's PK or KEK; nobody keeps its key."""
    from kobox.sign.generate import Request as KeyRequest
    from kobox.sign.generate import generate

    return generate(KeyRequest(name)).certificate_der


def first_line(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.readline().rstrip("\r\n")


def _make(args: argparse.Namespace, folder: Path) -> int:
    make_machine(
        folder,
        owner_certificate,
        loader=args.shim,
        grub=args.grub,
        trust=args.trust,
        ban=args.ban,
        enabled=not args.off,
    )
    print(f"{folder}: a machine with Secure Boot {'off' if args.off else 'on'}")
    return 0


def _mok(args: argparse.Namespace, machine: Variables) -> Mok:
    def err(line: str) -> None:
        sys.stdout.flush()
        print(line, file=sys.stderr)

    return Mok(machine, Secret(_hash_of(args), _asker(args)), print, err)


def _hash_of(args: argparse.Namespace) -> Hash | None:
    if args.hash_file is not None:
        found = parse_hash(Path(args.hash_file).read_text(errors="replace").strip())
        if found is None:
            raise UsageError(f"{args.hash_file}: holds no password hash ($6$… or $5$…)")
        return found
    if args.root_pw:
        for line in Path("/etc/shadow").read_text(errors="replace").splitlines():
            if line.startswith("root:") and (found := parse_hash(line.split(":")[1])) is not None:
                return found
        raise UsageError("root has no password whose hash could be used")
    return None


def _asker(args: argparse.Namespace) -> Callable[[str], str | None]:
    """Asks on the terminal without echo; reads lines where there is none; a file's first line without asking."""
    if args.password_file is not None:
        first = first_line(args.password_file)
        return lambda prompt: first

    def ask(prompt: str) -> str | None:
        if sys.stdin.isatty():
            return getpass.getpass(prompt)
        print(prompt, flush=True)
        return sys.stdin.readline().rstrip("\n")

    return ask


def _as_json(args: argparse.Namespace, machine: Variables, verb: str) -> int:
    key = _listed(verb, args.mokx)
    if key is None:
        raise UsageError("--json is for lists")
    entries = siglist.decode(machine.value(key), key.name)
    print_json(
        [
            {
                "kind": "certificate" if entry.is_certificate else entry.hash_name or str(entry.kind),
                "name": name,
                "owner": str(entry.owner),
                "data": entry.data.hex(),
            }
            for entry, name in zip(entries, described(entries), strict=True)
        ]
    )
    return 0


def _listed(verb: str, x: bool) -> Key | None:
    """The variable that a listing verb shows."""
    mark = "X" if x else ""
    return {
        "list_enrolled": shim(f"MokList{mark}RT"),
        "list_new": shim(f"Mok{mark}New"),
        "list_delete": shim(f"Mok{mark}Del"),
        "pk": PK,
        "kek": KEK,
        "db": DB,
        "dbx": DBX,
    }.get(verb)


def _show(verb: str) -> Verb:
    def run(mok: Mok, args: argparse.Namespace) -> int:
        key = _listed(verb, args.mokx)
        assert key is not None
        return mok.show(key)

    return run


def _enroll(args: argparse.Namespace) -> Request:
    return Request.ENROLL_X if args.mokx else Request.ENROLL


def _delete(args: argparse.Namespace) -> Request:
    return Request.DELETE_X if args.mokx else Request.DELETE


def _export(mok: Mok, args: argparse.Namespace) -> int:
    name = "MokListXRT" if args.mokx else "MokListRT"
    return mok.export(shim(name), os.getcwd(), "MOKX" if args.mokx else "MOK")


_VERBS: dict[str, Verb] = {
    **{verb: _show(verb) for verb in ("list_enrolled", "list_new", "list_delete", "pk", "kek", "db", "dbx")},
    "enroll": lambda mok, args: mok.request(_enroll(args), args.enroll),
    "delete": lambda mok, args: mok.request(_delete(args), args.delete),
    "revoke_import": lambda mok, args: mok.revoke(_enroll(args)),
    "revoke_delete": lambda mok, args: mok.revoke(_delete(args)),
    "export": _export,
    "password": lambda mok, args: mok.password(),
    "clear_password": lambda mok, args: mok.password(clear=True),
    "disable_validation": lambda mok, args: mok.toggle("MokSB", 0),
    "enable_validation": lambda mok, args: mok.toggle("MokSB", 1),
    "sb_state": lambda mok, args: mok.state(),
    "test_key": lambda mok, args: mok.test_key(_enroll(args), args.test_key),
    "reset": lambda mok, args: mok.reset(_enroll(args)),
    "generate_hash": lambda mok, args: mok.generate_hash(args.generate_hash),
    "ignore_db": lambda mok, args: mok.toggle("MokDB", 0),
    "use_db": lambda mok, args: mok.toggle("MokDB", 1),
    "import_hash": lambda mok, args: mok.request_hash(_enroll(args), args.import_hash),
    "delete_hash": lambda mok, args: mok.request_hash(_delete(args), args.delete_hash),
    "set_verbosity": lambda mok, args: mok.switch("SHIM_VERBOSE", args.set_verbosity == "true"),
    "set_fallback_verbosity": lambda mok, args: mok.switch("FALLBACK_VERBOSE", args.set_fallback_verbosity == "true"),
    "set_fallback_noreboot": lambda mok, args: mok.switch("FB_NO_REBOOT", args.set_fallback_noreboot == "true"),
    "trust_mok": lambda mok, args: mok.toggle("MokListTrustedNew", 0),
    "untrust_mok": lambda mok, args: mok.toggle("MokListTrustedNew", 1),
    "timeout": lambda mok, args: mok.timeout(args.timeout),
    "list_sbat_revocations": lambda mok, args: mok.content(shim("SbatLevelRT")),
}
"""By the attribute of its option."""
