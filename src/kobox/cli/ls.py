"""``kobox ls``: directories of a session's kernel."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from kobox.cli.sessions import add_session, kernel_of, print_json

if TYPE_CHECKING:
    from kobox.session.client import RemoteKernel

EPILOG = """\
example:
  kobox ls /sys/module
  kobox ls -l /dev

Names are sorted, one a line. A file is shown by its own name.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="*", default=["/"], metavar="PATH", help="of the kernel's tree (default: /)")
    parser.add_argument("-l", action="store_true", dest="long", help="mode, owner and size before each name")
    add_session(parser)
    parser.add_argument("--json", action="store_true", help="names and kinds, with -l all, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.errors import Errno

    code, told = 0, []
    with kernel_of(args) as kernel:
        for path in args.path:
            try:
                entries = _entries(kernel, path, args.long)
            except Errno as error:
                code = 1
                print(f"kobox ls: {path}: {os.strerror(error.number)}", file=sys.stderr)
                continue
            told.append({"path": path, "entries": entries})
            if not args.json:
                _show(path, entries, args.long, len(args.path) > 1)
    if args.json:
        print_json(told)
    return code


def _entries(kernel: RemoteKernel, path: str, long: bool) -> list[dict[str, Any]]:
    from kobox.errors import Errno

    try:
        found = [entry._asdict() for entry in sorted(kernel.ls(path))]
        folder = path.rstrip("/")
    except Errno as error:
        if error.name != "ENOTDIR":
            raise
        found, folder = [{"name": path, "kind": "file"}], None
    for entry in found if long else ():
        status = kernel.files.status(entry["name"] if folder is None else f"{folder}/{entry['name']}")
        entry |= {"mode": status.mode, "size": status.size, "uid": status.uid, "gid": status.gid}
    return found


def _show(path: str, entries: list[dict[str, Any]], long: bool, titled: bool) -> None:
    if titled:
        print(f"{path}:")
    for entry in entries:
        if long:
            owner = f"{entry['uid']}:{entry['gid']}"
            print(f"{stat.filemode(entry['mode'])} {owner:>9} {entry['size']:>9} {entry['name']}")
        else:
            print(entry["name"])
