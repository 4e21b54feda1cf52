"""``kobox boot``: start a kernel that stays."""

from __future__ import annotations

import argparse
import os
import sys

from kobox.cli.sessions import print_json

EPILOG = """\
examples:
  kobox boot
  kobox boot --name dev --root /srv/machine --append "dyndbg=+p"
  kobox insmod hello.ko my_param=7 && kobox dmesg && kobox halt

The kernel lives in a process of its own until kobox halt. With --root, what its modules-load.d lists is loaded by the
rules of its modprobe.d. What could not be loaded is told; the session runs all the same.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="NAME", help="the session's name (default: k1, k2 …)")
    parser.add_argument("--image", metavar="R", help="a release that was added, a root, a vmlinuz, or 'bare'")
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--root", metavar="DIR", help="tree with the modules, modprobe.d and modules-load.d to use")
    parser.add_argument("--cpu", default="qemu64", metavar="MODEL", help="CPU model (default: qemu64)")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="draw all chance from N: the same commands give the same log"
    )
    parser.add_argument("--coldplug", action="store_true", help="load the modules of devices, as udev does")
    parser.add_argument("--json", action="store_true", help="what the session is, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.session.boot import BootPlan, check
    from kobox.session.launch import launch

    image = args.image if args.image is None or not os.path.exists(args.image) else os.path.abspath(args.image)
    root = None if args.root is None else os.path.abspath(args.root)
    plan = BootPlan(image, args.append, root, args.cpu, args.seed, coldplug=args.coldplug)
    check(plan)
    with Progress() as progress:
        about = launch(plan, args.name, progress)
    if args.json:
        print_json(about)
    else:
        print(f"{about['name']}: kernel {about['release']}, CPU {about['cpu']}")
        if about["loaded"]:
            print(f"loaded: {', '.join(about['loaded'])}")
    for complaint in about["complaints"]:
        print(f"kobox boot: not loaded: {complaint}", file=sys.stderr)
    return 0
