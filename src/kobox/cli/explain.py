"""``kobox explain``: what would happen and why. The form of what is asked decides who answers.

Names, aliases and files are answered from configuration and dependencies. Another kind of question is another entry of
``_KINDS``: a test of the arguments, and the function that answers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

from kobox.cli.kmod_face import binary_safe_output, print_json
from kobox.depot.names import is_module_file
from kobox.errors import NotModelled, UsageError

EPILOG = """\
examples:
  kobox explain btrfs --root /mnt                     every step of a load, with file and line of each reason
  kobox explain pci:v00008086d00001533sv --live       which modules a device's alias leads to, here
  kobox explain --upgrade 6.1.0-56-amd64 6.12.0-1-amd64 --root /mnt
exit code: 0 answered, 1 there is no such module, or an upgrade has findings above a note"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", nargs="*", metavar="NAME|ALIAS|FILE.ko", help="what to explain")
    parser.add_argument("--root", metavar="DIR", help="the root directory of the system")
    parser.add_argument("--live", action="store_true", help="this host; nothing is changed")
    parser.add_argument("-S", "--set-version", dest="release", metavar="REL", help="this release of the root")
    parser.add_argument("-b", "--use-blacklist", action="store_true", help="as if modprobe were given -b")
    parser.add_argument("--cmdline", metavar="TEXT", help="the kernel command line, instead of the root's proc/cmdline")
    parser.add_argument(
        "--upgrade", nargs=2, metavar=("OLD", "NEW"), help="rehearse a kernel upgrade between two releases of the root"
    )
    parser.add_argument("--json", action="store_true", help="the answer as JSON")


def run(args: argparse.Namespace) -> int:
    binary_safe_output()
    kind = next((kind for kind in _KINDS if kind.fits(args)), None)
    if kind is None:
        raise UsageError("nothing to explain: give a name, an alias or a file, or --upgrade OLD NEW")
    return kind.answer(args)


class _Kind(NamedTuple):
    fits: Callable[[argparse.Namespace], bool]
    answer: Callable[[argparse.Namespace], int]


def _root(args: argparse.Namespace) -> str:
    if args.live == (args.root is not None):
        raise UsageError("say which system: --root DIR, or --live for this host")
    return "" if args.live else str(args.root)


def _explain_upgrade(args: argparse.Namespace) -> int:
    from kobox.depot.findings import finding_line
    from kobox.depot.upgrade import rehearse_upgrade, upgrade_json

    old, new = args.upgrade
    upgrade = rehearse_upgrade(_root(args), old, new, args.cmdline)
    if args.json:
        print_json(upgrade_json(upgrade))
    else:
        print(f"{upgrade.root}: {old} -> {new}")
        print(f"{len(upgrade.gone)} modules gone, {len(upgrade.added)} new, {len(upgrade.now_builtin)} now built in")
        for finding in upgrade.findings:
            print(finding_line(finding))
        if not upgrade.findings:
            print("nothing that this system uses is affected")
    return 1 if any(finding.severity != "note" for finding in upgrade.findings) else 0


def _explain_text(args: argparse.Namespace) -> int:
    raise NotModelled(f"kobox explain does not know error texts yet: {args.question[0]!r}")


def _explain_names(args: argparse.Namespace) -> int:
    from kobox.depot.explain import explain, explanation_json, explanation_lines
    from kobox.depot.systems import open_system

    system = open_system(_root(args), args.release, args.cmdline)
    answers = [explain(_as_path(question), system, args.use_blacklist) for question in args.question]
    if args.json:
        print_json([explanation_json(answer) for answer in answers])
    else:
        for number, answer in enumerate(answers):
            print(("\n" if number else "") + "\n".join(explanation_lines(answer)))
    return 0 if all(answer.plan.probes for answer in answers) else 1


def _as_path(question: str) -> str:
    """``hello.ko`` in this directory is the file, as ``./hello.ko`` is."""
    return os.path.abspath(question) if is_module_file(question) and os.path.isfile(question) else question


_KINDS = (
    _Kind(lambda args: args.upgrade is not None, _explain_upgrade),
    _Kind(lambda args: any(" " in question for question in args.question), _explain_text),
    _Kind(lambda args: bool(args.question), _explain_names),
)
"""The first that fits answers."""
