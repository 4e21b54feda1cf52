"""``kobox verify``: whose signature a module carries, and whether a kernel trusts it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kobox.cli.kmod_face import binary_safe_output, print_json
from kobox.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kobox.cli.progress import Progress
    from kobox.verdict.verification import Judge

EPILOG = """\
examples:
  kobox verify hello.ko                                   against the kernel it was built for
  kobox verify --image 6.1.0-56-amd64 --key MOK.der hello.ko
  kobox verify --only --key MOK.der hello.ko              against this key alone, without a kernel
  kobox verify --image 6.1.0-56-amd64 /lib/modules/6.1.0-56-amd64/kernel
exit code: 0 every file verified, 1 one did not, 2 wrong usage"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="modules, or directories with modules")
    parser.add_argument("--image", action="append", metavar="R", help="an added image or a kernel file (may repeat)")
    parser.add_argument("--root", metavar="DIR", help="the kernel of this root directory")
    parser.add_argument("--live", action="store_true", help="this host's kernel, its firmware's keys included")
    parser.add_argument("--key", action="append", default=[], metavar="CERT", help="a certificate enrolled as MOK")
    parser.add_argument("--only", action="store_true", help="no kernel: trust the keys that are given, and no other")
    parser.add_argument("--details", action="store_true", help="signer and rings of what verifies, too")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="files at once (default: one for each CPU)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.depot.names import is_module_file
    from kobox.sign.files import module_files
    from kobox.verdict.verification import as_data, text_lines, verify_files

    binary_safe_output()
    files = module_files(args.files, is_module_file)
    with Progress() as progress:
        judges = _judges(args, files, progress)
        found = list(verify_files(files, judges, args.jobs, lambda count: progress(f"{count} of {len(files)}")))
    if args.json:
        print_json(as_data(found))
    for one in found:
        if one.error:
            print(f"kobox verify: {one.error}", file=sys.stderr)
        elif not args.json:
            print("\n".join(text_lines(one, args.details)))
    return 0 if found and all(one.verified for one in found) else 1


def _judges(args: argparse.Namespace, files: Sequence[str], progress: Progress) -> Sequence[Judge]:
    from kobox.sign import read_certificate
    from kobox.verdict.targets import BARE, Options, default_images, host_of_image, host_of_live, host_of_root
    from kobox.verdict.targets import release_of as release
    from kobox.verdict.verification import KeysAlone

    chosen = [bool(args.image), args.root is not None, args.live, args.only]
    if sum(chosen) > 1:
        raise UsageError("one of --image, --root, --live and --only")
    if args.only:
        if not args.key:
            raise UsageError("--only needs a --key CERT to trust")
        return [KeysAlone([read_certificate(path) for path in args.key])]
    options = Options(keys=args.key)
    if args.live:
        return [host_of_live(options, progress)]
    if args.root is not None:
        return [host_of_root(args.root, options, progress)]
    if not files:
        return []
    images = args.image or default_images(release(files[0]))
    if BARE in images:
        raise UsageError("the bare kernel checks no signatures", "--image R, or --only --key CERT")
    return [host_of_image(image, options, progress) for image in images]
