"""``kobox explain``: what would happen and why. The form of what is asked decides who answers.

Names and aliases are answered from configuration and dependencies, files by holding them against kernels, error texts
from a table. Another kind of question is another entry of ``_KINDS``: a test of the arguments, and the function that
answers.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kobox.cli.kmod_face import binary_safe_output, print_json
from kobox.depot.names import is_module_file
from kobox.errors import UsageError

if TYPE_CHECKING:
    from kobox.verdict.host import Host
    from kobox.verdict.records import Verdict

EPILOG = """\
examples:
  kobox explain ./hello.ko                            will it load on the kernel it was built for, and if not why
  kobox explain ./hello.ko --image 6.1.0-56-amd64 --image 6.12.107+deb13-amd64
  kobox explain ./hello.ko my_param=7 --root /mnt --secure-boot --key MOK.der
  kobox explain "Key was rejected by service"         what an error text means, how to tell its causes apart
  dmesg | kobox explain - ./hello.ko                  what a log says, about this file
  kobox explain btrfs --root /mnt                     every step of a load, with file and line of each reason
  kobox explain pci:v00008086d00001533sv --live       which modules a device's alias leads to, here
  kobox explain --upgrade 6.1.0-56-amd64 6.12.0-1-amd64 --root /mnt
exit code: 0 answered, and every file loads everywhere; 1 a file does not load, there is no such module, a text is not
known, or an upgrade has findings above a note"""

MIXES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="*",
        metavar="NAME|ALIAS|FILE.ko|TEXT",
        help="what to explain; parameters (name=value) may follow a file; - reads a log",
    )
    parser.add_argument(
        "--image", action="append", metavar="R", help="an added image, a kernel file, or bare; may be repeated (files)"
    )
    parser.add_argument("--root", metavar="DIR", help="the root directory of the system")
    parser.add_argument("--live", action="store_true", help="this host; nothing is changed")
    parser.add_argument("-S", "--set-version", dest="release", metavar="REL", help="this release of the root")
    parser.add_argument("-b", "--use-blacklist", action="store_true", help="as if modprobe were given -b")
    parser.add_argument("--cmdline", metavar="TEXT", help="the kernel command line, instead of the root's proc/cmdline")
    parser.add_argument(
        "--secure-boot",
        action="store_true",
        help="as if booted with Secure Boot, which locks many kernels down (files)",
    )
    parser.add_argument(
        "--key", action="append", default=[], metavar="CERT", help="a certificate that is enrolled there, MOK (files)"
    )
    parser.add_argument(
        "--after", action="append", default=[], metavar="FILE.ko", help="a module that is loaded before (files)"
    )
    parser.add_argument("--insmod", action="store_true", help="as insmod loads it: nothing is loaded before (files)")
    parser.add_argument("-f", "--force", action="store_true", help="as insmod -f loads it (files)")
    parser.add_argument(
        "--upgrade", nargs=2, metavar=("OLD", "NEW"), help="rehearse a kernel upgrade between two releases of the root"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the answer as JSON")
    form.add_argument("--sarif", action="store_true", help="reasons as SARIF 2.1.0 (files, --upgrade)")


def run(args: argparse.Namespace) -> int:
    binary_safe_output()
    kind = next((kind for kind in _KINDS if kind.fits(args)), None)
    if kind is None:
        raise UsageError("nothing to explain: give a name, an alias or a file, or --upgrade OLD NEW")
    if args.sarif and kind.answer not in (_explain_files, _explain_upgrade):
        raise UsageError("--sarif is for files and for --upgrade", hint="--json is for every answer")
    return kind.answer(args)


class _Kind(NamedTuple):
    fits: Callable[[argparse.Namespace], bool]
    answer: Callable[[argparse.Namespace], int]


def _root(args: argparse.Namespace) -> str:
    if args.live == (args.root is not None):
        raise UsageError("say which system: --root DIR, or --live for this host")
    return "" if args.live else str(args.root)


def _explain_upgrade(args: argparse.Namespace) -> int:
    from kobox.cli.sarif_face import print_sarif
    from kobox.depot.findings import finding_line
    from kobox.depot.upgrade import rehearse_upgrade, upgrade_json

    old, new = args.upgrade
    upgrade = rehearse_upgrade(_root(args), old, new, args.cmdline)
    if args.json:
        print_json(upgrade_json(upgrade))
    elif args.sarif:
        print_sarif("kobox explain", upgrade.findings)
    else:
        print(f"{upgrade.root}: {old} -> {new}")
        print(f"{len(upgrade.gone)} modules gone, {len(upgrade.added)} new, {len(upgrade.now_builtin)} now built in")
        for finding in upgrade.findings:
            print(finding_line(finding))
        if not upgrade.findings:
            print("nothing that this system uses is affected")
    return 1 if any(finding.severity != "note" for finding in upgrade.findings) else 0


def _explain_text(args: argparse.Namespace) -> int:
    from kobox.verdict.advice import advice_json, advice_lines, advise, matches

    files = [question for question in args.question if _is_file(question)]
    text = " ".join(question for question in args.question if question not in files)
    if text == "-":
        text = sys.stdin.buffer.read().decode(errors="replace")
    matched = matches(text)
    verdicts: list[Verdict] = []
    lookup = None
    hosts = _hosts_for_text(args, files)
    if hosts:
        from kobox.verdict.concrete import Kernels, judge_named

        args.insmod = args.insmod or "insmod" in text  # the tool that failed brings nothing with it
        verdicts = _judge(args, files, hosts, "") if files else judge_named(matched, hosts, alone=args.insmod)
        lookup = Kernels(hosts)
    advice = advise(matched, text, verdicts, lookup)
    if args.json:
        print_json(advice_json(advice))
    else:
        print("\n".join(advice_lines(advice)))
    return 0 if advice.answers else 1


def _explain_files(args: argparse.Namespace) -> int:
    from kobox.cli.sarif_face import of_verdicts, print_sarif
    from kobox.verdict.render import as_data, text_lines

    files = [question for question in args.question if _is_file(question)]
    parameters = [question for question in args.question if question not in files]
    odd = [word for word in parameters if not _PARAMETER.match(word)]
    if odd:
        raise UsageError(f"{odd[0]}: neither a file nor a parameter (name=value)")
    verdicts = _judge(args, files, _hosts(args, files), " ".join(parameters))
    if args.json:
        print_json(as_data(verdicts))
    elif args.sarif:
        print_sarif("kobox explain", of_verdicts(verdicts))
    else:
        print("\n".join(text_lines(verdicts)))
    return 0 if all(verdict.loads for verdict in verdicts) else 1


def _judge(args: argparse.Namespace, files: list[str], hosts: list[Host], parameters: str) -> list[Verdict]:
    from kobox.verdict.session import FORCE, judge_files

    flags = FORCE if args.force else 0
    return judge_files(files, hosts, parameters, flags, alone=args.insmod, before=args.after)


def _hosts(args: argparse.Namespace, files: list[str]) -> list[Host]:
    """The kernels that are asked for; without a word the one that the first file was built for."""
    from kobox.cli.progress import Progress
    from kobox.verdict.targets import (
        BARE,
        Options,
        default_images,
        host_of_image,
        host_of_live,
        host_of_root,
        release_of,
    )

    if args.live and (args.root is not None or args.image):
        raise UsageError("--live is this host: give no --root and no --image with it")
    options = Options(args.cmdline, args.release, args.secure_boot, args.key)
    with Progress() as progress:
        if args.live:
            return [host_of_live(options, progress)]
        if args.root is not None and not args.image:
            return [host_of_root(args.root, options, progress)]
        images = args.image or default_images(release_of(files[0]) if files else "")
        return [
            _bare_host() if image == BARE else host_of_image(image, options, progress, args.root) for image in images
        ]


def _bare_host() -> Host:
    from kobox.verdict.bare_host import BareHost

    return BareHost()


def _hosts_for_text(args: argparse.Namespace, files: list[str]) -> list[Host]:
    """A text is explained without a kernel too; one that is asked for must be there."""
    if args.live or args.root is not None or args.image:
        return _hosts(args, files)
    try:
        return _hosts(args, files) if files else []
    except UsageError:
        return []


def _explain_names(args: argparse.Namespace) -> int:
    from kobox.depot.explain import explain, explanation_json, explanation_lines
    from kobox.depot.systems import open_system

    system = open_system(_root(args), args.release, args.cmdline)
    answers = [explain(question, system, args.use_blacklist) for question in args.question]
    if args.json:
        print_json([explanation_json(answer) for answer in answers])
    else:
        for number, answer in enumerate(answers):
            print(("\n" if number else "") + "\n".join(explanation_lines(answer)))
    return 0 if all(answer.plan.probes for answer in answers) else 1


def _is_file(question: str) -> bool:
    """A module file that is there. ``hello.ko`` in this directory is one, as ``./hello.ko`` is."""
    return (is_module_file(question) or os.sep in question) and os.path.isfile(question)


def _is_text(question: str) -> bool:
    if _ERRNO.fullmatch(question) or question == "-":
        return True
    return any(map(str.isspace, question.strip())) and not _PARAMETER.match(question) and not _is_file(question)


_ERRNO = re.compile(r"-?E[A-Z0-9]{3,}")
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]+(=|$)")

_KINDS = (
    _Kind(lambda args: args.upgrade is not None, _explain_upgrade),
    _Kind(lambda args: any(map(_is_text, args.question)), _explain_text),
    _Kind(lambda args: any(_is_file(question) for question in args.question), _explain_files),
    _Kind(lambda args: bool(args.question), _explain_names),
)
"""The first that fits answers."""
