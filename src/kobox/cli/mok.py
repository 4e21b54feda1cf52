"""``kobox mok``: the keys of a machine with Secure Boot, in the words of mokutil."""

from __future__ import annotations

import argparse

EPILOG = """\
examples:
  kobox mok --init --trust /boot/vmlinuz-6.1.0-56-amd64     a machine whose firmware trusts who signed this kernel
  kobox mok --init --shim /usr/lib/shim/shimx64.efi.signed  one that starts Debian's shim
  kobox mok --import MOK.der && kobox boot --secure-boot    ask, and give the password to MokManager at boot
  kobox mok --list-enrolled
  kobox mok --mokx --import-hash HASH                       never run the file with this hash
  kobox mok --ban MOK.der                                   into dbx, as from the firmware's own menu
The machine is a directory in the form of efivarfs, so that mokutil itself works on it: EFIVARFS_PATH=DIR/ mokutil …
exit code: as mokutil: 0 done, 255 not; --test-key: 1 when the key is enrolled or blocked"""

_LISTS = ("pk", "kek", "db", "dbx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vars", metavar="DIR", help="the machine's directory (default: machine in kobox's data)")
    parser.add_argument("--json", action="store_true", help="with --list-…: certificates and hashes as JSON")
    _machine_arguments(parser.add_argument_group("the machine itself"))
    _mokutil_arguments(parser.add_argument_group("as mokutil"))
    more = parser.add_argument_group("how")
    more.add_argument("--hash-file", metavar="FILE", help="take the password's hash from this file")
    more.add_argument("--root-pw", action="store_true", help="take the password of root (/etc/shadow)")
    more.add_argument("--password-file", metavar="FILE", help="take the password from the first line of this file")
    more.add_argument("--mokx", action="store_true", help="manipulate the MOK blacklist")


def _machine_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--init", action="store_true", help="make a machine with Secure Boot on")
    group.add_argument(
        "--shim", metavar="FILE", help="with --init: the machine starts this shim, its signers are in db"
    )
    group.add_argument("--grub", metavar="FILE", help="with --init: shim starts this boot loader before the kernel")
    group.add_argument("--off", action="store_true", help="with --init: Secure Boot is off")
    for name, help in (
        ("--trust", "put a certificate, or those of who signed an image, into db"),
        ("--ban", "put a certificate, or an image's hash, into dbx"),
    ):
        group.add_argument(name, action="append", default=[], metavar="FILE", help=help)


def _mokutil_arguments(group: argparse._ArgumentGroup) -> None:
    def flag(name: str, help: str) -> None:
        group.add_argument(name, action="store_true", help=help)

    flag("--list-enrolled", "list the enrolled keys")
    flag("--list-new", "list the keys to be enrolled")
    flag("--list-delete", "list the keys to be deleted")
    group.add_argument("--import", dest="enroll", nargs="+", metavar="FILE", help="import keys (DER)")
    group.add_argument("--delete", nargs="+", metavar="FILE", help="delete specific keys (DER)")
    flag("--revoke-import", "revoke the import request")
    flag("--revoke-delete", "revoke the delete request")
    flag("--export", "export keys to files")
    flag("--password", "set MOK password")
    flag("--clear-password", "clear MOK password")
    flag("--disable-validation", "disable signature validation")
    flag("--enable-validation", "enable signature validation")
    flag("--sb-state", "show SecureBoot state")
    group.add_argument("--test-key", metavar="FILE", help="test if the key is enrolled or not")
    flag("--reset", "reset MOK list")
    group.add_argument("--generate-hash", nargs="?", const="", metavar="PASSWORD", help="generate the password hash")
    flag("--ignore-db", "ignore DB for validation")
    flag("--use-db", "use DB for validation")
    group.add_argument("--import-hash", metavar="HASH", help="import a hash into MOK or MOKX")
    group.add_argument("--delete-hash", metavar="HASH", help="delete a hash in MOK or MOKX")
    for name, help in (
        ("--set-verbosity", "set the verbosity bit for shim"),
        ("--set-fallback-verbosity", "set the verbosity bit for fallback"),
        ("--set-fallback-noreboot", "prevent fallback from automatically rebooting"),
    ):
        group.add_argument(name, choices=("true", "false"), help=help)
    flag("--trust-mok", "trust MOK keys within the kernel keyring")
    flag("--untrust-mok", "do not trust MOK keys")
    for name in _LISTS:
        flag(f"--{name}", f"list the keys in {name}")
    group.add_argument("--timeout", type=int, metavar="N", help="set the timeout for MOK prompt (-1, 0 to 0x7fff)")
    flag("--list-sbat-revocations", "list the entries in SBAT")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.mok_verbs import perform

    return perform(args)
