"""``kobox umount``: end what ``kobox mount`` began; the image is clean when it returns."""

from __future__ import annotations

import argparse
import json

EPILOG = """\
example:
  kobox umount mnt

Waits until everything is in the image. A folder whose process was killed is unmounted too: its image is as after a
power cut, and the next mount, or fsck, repairs it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="MOUNTED", help="folders that 'kobox mount' has mounted")
    parser.add_argument("-l", "--lazy", action="store_true", help="at once, though programs use it; waits for nothing")
    parser.add_argument("--json", action="store_true", help="what was unmounted, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.mount.mounts import unmount_image

    ended = [unmount_image(folder, args.lazy) for folder in args.folders]
    if args.json:
        print(json.dumps([mount.as_data() for mount in ended], indent=1))
    return 0
