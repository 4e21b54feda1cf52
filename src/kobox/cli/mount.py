"""``kobox mount``: a disk image as a folder of this host, by a distribution's own file systems; ``umount`` ends it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kobox.mount.options import MountPlan
    from kobox.mount.serving import MountedImage

EPILOG = """\
examples:
  kobox mount disk.img mnt && cp notes.txt mnt/ && kobox umount mnt
  kobox mount --partition 2 -o ro backup.img mnt
  kobox mount -t btrfs -o subvol=home,compress=zstd --image 6.12.118+deb13-amd64 pool.img mnt
  kobox mount                                        what is mounted

No root is needed: the file system runs in a kernel of kobox's own, and the folder is served over FUSE. Whoever mounts
is root of the image. The image is clean once 'kobox umount' (or fusermount3 -u, or Ctrl-C with -f) has returned.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("disk", nargs="?", metavar="IMAGE", help="file or block device; none: list what there is")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="where its files shall be")
    parser.add_argument("-t", "--type", metavar="TYPE", help="file system (default: as the image's first blocks say)")
    parser.add_argument(
        "-o", "--options", metavar="LIST", action="append", default=[],
        help="as mount(8): ro, noexec, allow_other, noatime …, and what the file system knows",
    )  # fmt: skip
    parser.add_argument("-r", "--read-only", action="store_true", help="as -o ro")
    parser.add_argument("--partition", type=int, metavar="N", help="of a disk with a partition table")
    parser.add_argument("--offset", type=int, default=0, metavar="BYTES", help="where the file system begins")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, a vmlinuz")
    parser.add_argument("-f", "--foreground", action="store_true", help="stay; Ctrl-C unmounts")
    parser.add_argument("--log", metavar="FILE", help="what the kernel warns of later goes there")
    parser.add_argument("--json", action="store_true", help="what is mounted, as JSON")


def run(args: argparse.Namespace) -> int:
    if args.disk is None:
        return _list(args.json)
    from kobox.cli.progress import Progress
    from kobox.errors import UsageError
    from kobox.mount.mounts import check_folder
    from kobox.mount.options import MountPlan, split_options

    if args.folder is None:
        raise UsageError("where shall it be mounted?", hint="kobox mount IMAGE DIR")
    check_folder(args.folder)
    release = os.path.abspath(args.image) if args.image is not None and os.path.exists(args.image) else args.image
    plan = MountPlan(
        os.path.realpath(args.disk), os.path.realpath(args.folder), args.type, split_options(args.options),
        args.read_only, args.partition, args.offset, release,
    )  # fmt: skip
    if args.foreground:
        return _serve(plan, args.json)
    from kobox.mount.launch import launch

    with Progress() as progress:
        about = launch(plan, args.log and os.path.abspath(args.log), progress)
    if args.json:
        print(json.dumps(about, indent=1))
    return 0


def _serve(plan: MountPlan, as_json: bool) -> int:
    from kobox.cli.progress import Progress
    from kobox.mount.serving import serve

    def ready(about: MountedImage) -> None:
        progress.rest()
        text = (
            json.dumps(about.as_data(), indent=1) if as_json else f"{about.image} on {about.folder} type {about.type}"
        )
        print(text, flush=True)

    def say(text: str) -> None:
        print(f"kobox mount: {text}", file=sys.stderr, flush=True)

    with Progress() as progress:
        serve(plan, ready, say, progress)
    return 0


def _list(as_json: bool) -> int:
    from kobox.mount.mounts import image_mounts

    mounts = image_mounts()
    if as_json:
        print(json.dumps([mount.as_data() for mount in mounts], indent=1))
        return 0
    for mount in mounts:
        state = f"process {mount.pid}" if mount.pid is not None else "its process has ended: kobox umount it"
        print(f"{mount.image} on {mount.folder} ({'ro' if mount.read_only else 'rw'}, {state})")
    return 0
