"""``kobox sign``: sign modules as the kernel's sign-file does, one in its own words or many; strip signatures."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kobox.cli.kmod_face import print_json
from kobox.errors import UsageError

if TYPE_CHECKING:
    from kobox.sign.files import Change, Outcome
    from kobox.sign.signing import Signer

EPILOG = """\
examples:
  kobox keygen "My module key" --out MOK && kobox sign --key MOK.priv --cert MOK.der hello.ko
  kobox sign --key MOK.priv --cert MOK.der /lib/modules/6.1.0-56-amd64/updates/dkms
  kobox sign --strip hello.ko.xz
  kobox sign -p sha256 MOK.priv MOK.der hello.ko hello-signed.ko      as scripts/sign-file
  kobox sign -s hello.sig sha256 MOK.der hello.ko                     a signature made elsewhere
A passphrase of the key is taken from KBUILD_SIGN_PIN or --passphrase-file. Compressed modules stay compressed.
exit code: 0 done, 1 a file could not be signed, 2 wrong usage"""

MIXES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="FILE", help="modules or directories; without --key HASH KEY X509 MODULE [DEST]"
    )
    parser.add_argument("--key", metavar="KEY", help="the private key (PEM or DER); then all words are modules")
    parser.add_argument("--cert", metavar="CERT", help="its certificate (default: in the key's own file)")
    parser.add_argument("--hash", default="sha256", metavar="HASH", help="sha1 … sha512, sha3-256 … (default: sha256)")
    parser.add_argument("-d", dest="detached", action="store_true", help="only write the signature, to MODULE.p7s")
    parser.add_argument("-p", dest="save", action="store_true", help="write the signature to MODULE.p7s as well")
    parser.add_argument("-k", dest="by_key_id", action="store_true", help="name the key by its identifier")
    parser.add_argument("-s", dest="raw", metavar="SIG", help="append this signature (PKCS#7): HASH X509 MODULE [DEST]")
    parser.add_argument("--strip", action="store_true", help="take signatures away")
    parser.add_argument("--passphrase-file", metavar="FILE", help="the first line is the passphrase of the key")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="files at once (default: one for each CPU)")
    parser.add_argument("--json", action="store_true", help="what became of each file, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.sign.files import attaching, change_file, stripping, write_anew

    if args.strip or args.key is not None:
        if args.raw is not None or (args.strip and (args.key is not None or args.detached or args.save)):
            raise UsageError("--key signs, --strip strips, -s appends: one of them")
        change = stripping if args.strip else _signing(args, _signer(args, args.key, args.cert or args.key, args.hash))
        return _many(args, change)
    if args.raw is not None:
        module, destination = _words(args, 2, "-s SIG HASH X509 MODULE [DEST]")
        with open(args.raw, "rb") as file:
            message = file.read()
        _warn_of(message, args.raw)
        return _show(args, [change_file(module, attaching(message), destination)])
    module, destination = _words(args, 3, "HASH KEY X509 MODULE [DEST]")
    hash_name, key, certificate = args.words[:3]
    signer = _signer(args, key, certificate, hash_name)
    outcome = change_file(module, _signing(args, signer, keep=True), None if args.detached else destination)
    if args.detached or args.save:
        write_anew(f"{module}.p7s", outcome.message)
    return _show(args, [outcome])


def _words(args: argparse.Namespace, before: int, form: str) -> tuple[str, str | None]:
    """Module and destination of sign-file's form, which stand behind ``before`` other words."""
    rest = args.words[before:]
    if len(rest) not in (1, 2):
        raise UsageError(f"as sign-file: {form}", "for many modules at once: --key KEY --cert CERT FILE …")
    return rest[0], rest[1] if len(rest) == 2 else None


def _signer(args: argparse.Namespace, key: str, certificate: str, hash_name: str) -> Signer:
    from kobox.sign.certfile import read_certificate
    from kobox.sign.private import read_private_key
    from kobox.sign.signing import Signer

    secret = None
    if args.passphrase_file is not None:
        with open(args.passphrase_file, encoding="utf-8") as file:
            secret = file.readline().rstrip("\r\n")
    private = read_private_key(key, secret)
    return Signer.of(private, read_certificate(certificate), hash_name, args.by_key_id, certificate)


def _signing(args: argparse.Namespace, signer: Signer, keep: bool = False) -> Change:
    from kobox.sign.files import making, signing

    return making(signer) if args.detached else signing(signer, keep=keep)


def _many(args: argparse.Namespace, change: Change) -> int:
    from kobox.cli.progress import Progress
    from kobox.depot.names import is_module_file
    from kobox.sign.files import change_files, module_files, write_anew

    files = module_files(args.words, is_module_file)
    outcomes = []
    with Progress() as progress:
        for outcome in change_files(files, change, args.jobs):
            outcomes.append(outcome)
            progress(f"{len(outcomes)} of {len(files)}")
            if (args.detached or args.save) and outcome.message:
                write_anew(f"{outcome.file}.p7s", outcome.message)
    return _show(args, outcomes)


def _show(args: argparse.Namespace, outcomes: list[Outcome]) -> int:
    if args.json:
        print_json([outcome._asdict() | {"message": outcome.message.hex()} for outcome in outcomes])
    for outcome in outcomes:
        if outcome.error:
            print(f"kobox sign: {outcome.error}", file=sys.stderr)
        elif not args.json and (args.strip or args.key is not None):  # sign-file itself is silent
            print(f"{outcome.file}: {outcome.what}")
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _warn_of(message: bytes, file: str) -> None:
    from kobox.errors import BadFile
    from kobox.ko.pkcs7 import read_signer

    try:
        read_signer(message, file)
    except BadFile as bad:
        print(f"kobox sign: appended, but no kernel will take it: {bad}", file=sys.stderr)
