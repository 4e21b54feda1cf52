"""``kobox cache``: show, check, limit and empty what kobox can make again."""

from __future__ import annotations

import argparse
import json
import time

from kobox.image.cache import Cache, parse_size

EPILOG = """examples:
  kobox cache show
  kobox cache check --fix        read everything against its checksums, remove what is damaged
  kobox cache limit 2G           drop what was unused for longest beyond two gigabytes
  kobox cache clean              remove everything; it is made again when needed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    show = verbs.add_parser("show", help="entries with their sizes (the default)")
    check = verbs.add_parser("check", help="read every byte against its checksum; exit 1 when something is damaged")
    check.add_argument("--fix", action="store_true", help="remove what is damaged or left over")
    clean = verbs.add_parser("clean", help="remove every entry")
    clean.add_argument("kind", nargs="?", metavar="KIND", help="only entries of this kind, as 'show' names it")
    limit = verbs.add_parser("limit", help="show or set how much the cache may take")
    limit.add_argument("size", nargs="?", metavar="SIZE", help="500M, 2G; 0 is no limit")
    path = verbs.add_parser("path", help="print where the cache is")
    parser.add_argument("--json", action="store_true", help="print records for programs")
    for verb in (show, check, clean, limit, path):
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print records for programs")


def run(args: argparse.Namespace) -> int:
    """Do the verb."""
    verbs = {"show": _show, "check": _check, "clean": _clean, "limit": _limit, "path": _path}
    return verbs[args.verb or "show"](args)


def _show(args: argparse.Namespace) -> int:
    cache = Cache()
    entries = cache.entries()
    total = sum(entry.size for entry in entries)
    if args.json:
        listed = [
            {
                "kind": entry.kind,
                "key": entry.key,
                "size": entry.size,
                "created": entry.created,
                "path": str(entry.path),
            }
            for entry in entries
        ]
        print(json.dumps({"path": str(cache.root), "limit": cache.limit, "size": total, "entries": listed}, indent=2))
        return 0
    for entry in entries:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
        print(f"{entry.kind:<8} {_megabytes(entry.size):>10}  {created}  {entry.key}")
    limit = f"limit {_megabytes(cache.limit)}" if cache.limit else "no limit"
    print(f"{_megabytes(total)} in {len(entries)} entries, {limit}, in {cache.root}")
    return 0


def _check(args: argparse.Namespace) -> int:
    cache = Cache()
    findings = cache.check(fix=args.fix)
    if args.json:
        print(json.dumps([{"path": str(one.path), "what": one.what, "fixed": one.fixed} for one in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.path}: {finding.what}{': removed' if finding.fixed else ''}")
        if not findings:
            print(f"{len(cache.entries())} entries are whole")
    return 1 if any(not finding.fixed for finding in findings) else 0


def _clean(args: argparse.Namespace) -> int:
    removed = Cache().clean(args.kind)
    print(json.dumps({"removed": removed}) if args.json else f"removed {removed} entries")
    return 0


def _limit(args: argparse.Namespace) -> int:
    cache = Cache()
    if args.size is not None:
        cache.set_limit(parse_size(args.size))
    print(json.dumps({"limit": cache.limit}) if args.json else (_megabytes(cache.limit) if cache.limit else "no limit"))
    return 0


def _path(args: argparse.Namespace) -> int:
    root = Cache().root
    print(json.dumps({"path": str(root)}) if args.json else root)
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
