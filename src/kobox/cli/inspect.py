"""``kobox inspect``: run unknown modules in a kernel of their own and tell what they did to it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from kobox.cli.kmod_face import binary_safe_output, print_json
from kobox.errors import KoboxError

if TYPE_CHECKING:
    from kobox.inspect import Inspection

EPILOG = """\
examples:
  kobox inspect unknown.ko
  kobox inspect --image 6.1.0-56-amd64 --details examples/prebuilt/rootkits/*.ko
Ahead of the first module the process gives up programs, network and writing: nothing reaches this host.
What is an alarm and what a note: docs/inspect.md.
exit code: 0 no alarm, 1 an alarm, a crash, or a file that is no module, 2 wrong usage"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE.ko", help="modules to run")
    parser.add_argument("--image", metavar="R", help="an added image or a kernel file (default: the module's own)")
    parser.add_argument("--params", default="", metavar="TEXT", help="parameters for the modules (name=value …)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="limit of virtual time (default: 60)")
    parser.add_argument("--unconfined", action="store_true", help="keep this process's rights (docs/security.md)")
    parser.add_argument("--details", action="store_true", help="also what was registered, imports and the log")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.progress import Progress
    from kobox.inspect import Inspector
    from kobox.verdict.targets import BARE, default_images, release_of

    binary_safe_output()
    image = args.image
    if image is None:
        image = next(name for name in default_images(release_of(args.files[0])) if name != BARE)
    found: list[Inspection] = []
    failed = False
    with Progress() as progress, Inspector(image, progress, args.seconds) as inspector:
        if not args.unconfined:
            inspector.confine()
        for file in args.files:
            progress(f"inspecting {file}")
            try:
                found.append(inspector.inspect(os.fspath(file), args.params))
            except (KoboxError, OSError) as error:
                reason = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
                print(f"kobox inspect: {reason}", file=sys.stderr)
                failed = True
                continue
            progress.rest()
            if not args.json:
                print("\n".join(_lines(found[-1], args.details)))
    if args.json:
        print_json([one.as_data() for one in found])
    return 1 if failed or any(one.accused or one.crash for one in found) else 0


def _lines(one: Inspection, details: bool) -> list[str]:
    from errno import errorcode

    if one.crash:
        said = f"crashed: {one.crash}"
    elif one.result:
        said = f"was not loaded: {errorcode.get(one.result, one.result)}"
    else:
        said = "ran"
    alarms = sum(finding.severity == "alarm" for finding in one.findings)
    lines = [f"{one.file}: {said} on {one.kernel}; {alarms or 'no'} alarm{'s' * (alarms != 1)}"]
    for finding in sorted(one.findings, key=lambda finding: finding.severity):
        lines.append(f"  {finding.severity}: {finding.text} [{finding.rule}]")
    if details:
        lines += [f"  registered {kind}: {', '.join(names)}" for kind, names in one.registered.items()]
        lines.append(f"  imports: {', '.join(one.imports)}")
        lines += [f"  log: {line}" for line in one.log]
    return lines
