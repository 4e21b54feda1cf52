"""``kobox kernel``: add, list, show and remove kernel images."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.cli.progress import Progress
from kobox.errors import UsageError

if TYPE_CHECKING:
    from kobox.image.overview import BootRecord, Overview

EPILOG = """examples:
  kobox kernel add --debian                     Debian's current kernel through apt; no root needed
  kobox kernel add --debian 6.1.0-56-amd64      a release, or a flavour such as rt-amd64
  kobox kernel add --debian --suite trixie      from another suite
  kobox kernel add linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb
  kobox kernel add /srv/root                    an unpacked root with boot and lib/modules
  kobox kernel show 6.1.0-56-amd64 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verbs and their options."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = verbs.add_parser("add", help="add an image: packages, a root, a kernel file, or through apt")
    add.add_argument("paths", nargs="*", type=Path, metavar="PATH", help=".deb packages, a root, or a vmlinuz")
    add.add_argument(
        "--debian", nargs="?", const="", metavar="RELEASE", help="through apt-get download: a release or flavour"
    )
    add.add_argument(
        "--suite",
        metavar="SUITE",
        help="with --debian: a suite the host's sources do not have; NAME@YYYYMMDD: as it was that day",
    )
    add.add_argument("--headers", action="store_true", help="with --debian: the header packages too")
    add.add_argument("--modules", type=Path, metavar="DIR", help="the module tree that belongs to a kernel file")
    listed = verbs.add_parser("list", help="list added images")
    show = verbs.add_parser("show", help="show what is known of an image")
    show.add_argument("image", metavar="RELEASE|PATH", nargs="?", help="default: the only one added")
    remove = verbs.add_parser("remove", help="remove images and what the cache holds of them")
    remove.add_argument("images", metavar="RELEASE", nargs="+")
    for verb in (add, listed, show, remove):
        verb.add_argument("--json", action="store_true", help="print records for programs")


def run(args: argparse.Namespace) -> int:
    """Do the verb."""
    return {"add": _add, "list": _list, "show": _show, "remove": _remove}[args.verb](args)


def _add(args: argparse.Namespace) -> int:
    from kobox.image.adding import AddOptions, add_debian, add_paths
    from kobox.image.cache import Cache
    from kobox.image.overview import overview
    from kobox.kernel.module_source import index_modules

    _check_add(args)
    with Progress() as progress:
        options = AddOptions(modules=args.modules, progress=progress)
        if args.paths:
            added, image = add_paths(args.paths, options)
        else:
            added, image = add_debian(args.debian or None, options, suite=args.suite, headers=args.headers)
        index_modules(image, progress)
        facts = overview(image, added, Cache())
    if args.json:
        _print_json(facts)
        return 0
    print(f"added {facts.release} from {facts.source}{', checked by ' + facts.checked if facts.checked else ''}")
    print(f"  {facts.symbols:,} symbols, {facts.exports:,} exports, {_modules_words(facts)}")
    return 0


def _check_add(args: argparse.Namespace) -> None:
    fetching = args.debian is not None or args.suite is not None
    if fetching == bool(args.paths):
        raise UsageError("give either paths or --debian", hint="'kobox kernel add --help' has examples")
    if args.headers and not fetching:
        raise UsageError("--headers goes with --debian", hint="give the header packages as further paths")
    if args.modules is not None and (fetching or args.paths[0].suffix == ".deb"):
        raise UsageError("--modules goes with a kernel file")


def _list(args: argparse.Namespace) -> int:
    from kobox.image.cache import Cache
    from kobox.image.overview import list_line
    from kobox.image.store import list_images

    cache = Cache()
    lines = [list_line(added, cache) for added in list_images()]
    if args.json:
        _print_json(lines)
        return 0
    if not lines:
        print("no image is added; 'kobox kernel add --debian' fetches one")
        return 0
    width = max(len(line.release) for line in lines)
    for line in lines:
        state = "booted" if line.booted else "ready" if line.ready else "to be read again"
        checked = f" (checked by {line.checked})" if line.checked else ""
        print(f"{line.release:<{width}}  {line.modules:>5} modules  {state:<6}  {line.source}{checked}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from kobox.image.cache import Cache
    from kobox.image.overview import overview
    from kobox.image.store import find_image, open_image

    name = args.image or _only_image()
    cache = Cache()
    with Progress() as progress:
        image = open_image(name, cache, progress)
        facts = overview(image, find_image(image.release) if "/" not in name else None, cache)
    if args.json:
        _print_json(facts)
    else:
        _print_overview(facts)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from kobox.image.store import remove_image

    removed = [remove_image(release) for release in args.images]
    if args.json:
        _print_json(removed)
    else:
        for added in removed:
            print(f"removed {added.release}")
    return 0


def _only_image() -> str:
    from kobox.image.store import list_images

    names = [added.release for added in list_images()]
    if len(names) != 1:
        said = f"added are: {', '.join(names)}" if names else "none is added; 'kobox kernel add --debian' fetches one"
        raise UsageError("which image?", hint=said)
    return names[0]


def _print_overview(facts: Overview) -> None:
    crcs = f"{facts.exports_with_crc:,} with a CRC" if facts.exports_with_crc else "no CRCs"
    spaces = ", ".join(f"{name} {count}" for name, count in facts.exports_by_namespace.items())
    checked = f", checked by {facts.checked}" if facts.checked else ""
    rows = {
        "release": facts.release,
        "banner": facts.banner,
        "vermagic": facts.vermagic,
        "build id": facts.build_id,
        "source": f"{facts.source}{checked}" if facts.source else "a file of this machine, not added",
        "added": time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.added)) if facts.added else "",
        "modules": _modules_words(facts),
        "symbols": f"{facts.symbols:,}",
        "exports": f"{facts.exports:,} ({facts.exports_gpl:,} GPL only, {crcs})",
        "name spaces": spaces,
        "types": f"{facts.types:,}",
        "initcalls": str(facts.initcalls),
        "features": ", ".join(facts.features),
        "config": ", ".join(f"{name}={value}" for name, value in facts.config.items()),
        "memory": f"{_megabytes(facts.memory_size)} of kernel, packed as {facts.packing}",
        "cache": f"{_megabytes(facts.cache_size)} as {facts.key}",
        "boot": _boot_words(facts.boots),
    }
    for name, value in rows.items():
        if value:
            print(f"{name + ':':<13}{value}")


def _boot_words(boots: Sequence[BootRecord]) -> str:
    if not boots:
        return "not booted yet"
    report = boots[-1].report
    kept = f"{len(boots)} snapshot{'s' if len(boots) > 1 else ''} kept, {_megabytes(sum(boot.size for boot in boots))}"
    counts = ", ".join(f"{count} {name}" for name, count in report.get("results", {}).items())
    seconds = report.get("seconds")
    took = f"; the newest took {seconds:.1f} s" if isinstance(seconds, int | float) else ""
    return f"{kept}{took}{f' ({counts})' if counts else ''}"


def _modules_words(facts: Overview) -> str:
    return f"{facts.module_count:,} modules in {facts.modules}" if facts.modules else "no modules"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _print_json(facts: Any) -> None:
    if isinstance(facts, list):
        print(json.dumps([dataclasses.asdict(one) for one in facts], indent=2))
    else:
        print(json.dumps(dataclasses.asdict(facts), indent=2))
