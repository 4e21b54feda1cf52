"""``kobox keygen``: a key and a certificate for signing modules."""

from __future__ import annotations

import argparse
import os

from kobox.cli.kmod_face import print_json
from kobox.errors import UsageError

EPILOG = """\
examples:
  kobox keygen "My module key"                 MOK.priv, MOK.pem, MOK.der here
  kobox keygen "Module key of example.org" --out keys/2026 --type p384 --days 730 --passphrase-file secret
The certificate says what a kernel and shim look for: no authority, digitalSignature, codeSigning, key identifiers.
exit code: 0 done, 1 a file is there already (--force replaces it), 2 wrong usage"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="TEXT", help="the key's name (common name of its certificate)")
    parser.add_argument("--out", default="MOK", metavar="PATH", help="PATH.priv, PATH.pem, PATH.der (default: MOK)")
    parser.add_argument(
        "--type",
        default="rsa2048",
        choices=("rsa2048", "rsa3072", "rsa4096", "p256", "p384", "p521"),
        help="kind of key (default: rsa2048, which every shim and every kernel takes)",
    )
    parser.add_argument("--days", type=int, default=36500, metavar="N", help="how long it is valid (default: 36500)")
    parser.add_argument("--hash", default="sha256", choices=("sha256", "sha384", "sha512"), help="of the certificate")
    parser.add_argument("--organization", default="", metavar="TEXT", help="organization in the certificate's name")
    parser.add_argument("--email", default="", metavar="TEXT", help="mail address in the certificate's name")
    parser.add_argument("--modules-only", action="store_true", help="shim shall take it for modules only")
    parser.add_argument("--passphrase-file", metavar="FILE", help="encrypt the key; the first line is the passphrase")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="what was made, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.sign.files import write_anew
    from kobox.sign.generate import Request, generate

    if not 0 < args.days <= 400_000:
        raise UsageError(f"--days {args.days}: from 1 to 400000")
    paths = {ending: f"{args.out}.{ending}" for ending in ("priv", "pem", "der")}
    taken = [path for path in paths.values() if os.path.exists(path)]
    if taken and not args.force:
        raise FileExistsError(17, "is there already; --force replaces it", taken[0])
    secret = None
    if args.passphrase_file is not None:
        with open(args.passphrase_file, encoding="utf-8") as file:
            secret = file.readline().rstrip("\r\n")
    request = Request(args.name, args.type, args.days, args.hash, args.modules_only, args.organization, args.email)
    made = generate(request, secret)
    write_anew(paths["priv"], made.key_pem, mode=0o600)
    write_anew(paths["pem"], made.certificate_pem)
    write_anew(paths["der"], made.certificate_der)
    if args.json:
        print_json({"name": args.name, "type": args.type, "fingerprint": made.fingerprint, **paths})
    else:
        print(f"{paths['priv']}: private key ({args.type}){', encrypted' if secret else ''}")
        print(f"{paths['pem']}, {paths['der']}: certificate, SHA1 {made.fingerprint}")
    return 0
