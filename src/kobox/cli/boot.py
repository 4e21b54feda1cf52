"""``kobox boot``: start a kernel that stays."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from kobox.cli.sessions import print_json

EPILOG = """\
examples:
  kobox boot
  kobox boot --name dev --root /srv/machine --append "dyndbg=+p"
  kobox insmod hello.ko my_param=7 && kobox dmesg && kobox halt
  kobox boot --secure-boot                      on a machine with UEFI; kobox mok is about its keys

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
    machine = parser.add_argument_group("Secure Boot (docs/secure-boot.md)")
    machine.add_argument("--secure-boot", action="store_true", help="on a machine with UEFI, whose firmware checks")
    machine.add_argument("--vars", metavar="DIR", help="that machine's directory (default: machine in kobox's data)")
    machine.add_argument("--mok-password-file", metavar="FILE", help="give MokManager this file's first line")
    machine.add_argument("--picture", metavar="FILE", help="draw who checked whom, as SVG")
    parser.add_argument("--json", action="store_true", help="what the session is, as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.session.boot import BootPlan, check
    from kobox.session.launch import launch

    image = args.image if args.image is None or not os.path.exists(args.image) else os.path.abspath(args.image)
    root = None if args.root is None else os.path.abspath(args.root)
    plan = BootPlan(image, args.append, root, args.cpu, args.seed, coldplug=args.coldplug)
    check(plan)
    chain = None
    if args.secure_boot or args.vars is not None:
        from kobox.cli.secure_boot import power_on_machine

        chain = power_on_machine(args, plan)
        plan = replace(plan, variables=str(chain.folder))
    with Progress() as progress:
        about = launch(plan, args.name, progress)
    if args.json:
        print_json(about | ({"chain": chain.chain.as_data()} if chain is not None else {}))
    else:
        if chain is not None:
            print("\n".join(chain.lines))
        print(f"{about['name']}: kernel {about['release']}, CPU {about['cpu']}")
        if about["loaded"]:
            print(f"loaded: {', '.join(about['loaded'])}")
    for complaint in about["complaints"]:
        print(f"kobox boot: not loaded: {complaint}", file=sys.stderr)
    return 0
