"""``kobox audit``: what can be loaded on a system although it should not, and what stops it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kobox.audit.policy import RULES, Report, audit_system, report_json, verdict, why_stopped
from kobox.audit.profiles import Profile, built_in_profiles, load_profile
from kobox.audit.ways import System
from kobox.cli.kmod_face import binary_safe_output, print_json
from kobox.depot.findings import Finding, finding_line
from kobox.errors import UsageError

EPILOG = """\
examples:
  kobox audit /mnt                                  every profile against the system in /mnt
  kobox audit --live --profile protocols --sarif    this host, for a code host's security page
  kobox audit /mnt --print-fix > 00-kobox-audit.conf
  kobox audit /mnt --allow ext4,virtio_net,virtio_blk > 00-allow.conf
exit code: 0 nothing above a note, 1 there is"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", nargs="?", metavar="ROOT", help="the root directory of the system")
    parser.add_argument("--root", dest="root_option", metavar="DIR", help="the same as ROOT")
    parser.add_argument("--live", action="store_true", help="this host; nothing is changed")
    parser.add_argument("-S", "--set-version", dest="release", metavar="REL", help="this release of the root")
    parser.add_argument(
        "--profile", action="append", default=[], metavar="PROFILE|FILE", help="only this profile (may be repeated)"
    )
    parser.add_argument("--list-profiles", action="store_true", help="show the profiles that come with kobox")
    parser.add_argument("--cmdline", metavar="TEXT", help="the kernel command line, instead of ROOT/proc/cmdline")
    parser.add_argument("--lint", action="store_true", help="only the configuration's own errors")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="report what this known-good list does not have")
    parser.add_argument("--save-baseline", type=Path, metavar="FILE", help="write the list of what is there now")
    parser.add_argument("--log", type=Path, metavar="FILE", help="the kernel's log (dmesg) for the baseline")
    parser.add_argument("--allow", metavar="NAME,…", help="print a file that stops all modules these do not need")
    parser.add_argument("--print-fix", action="store_true", help="print a file that stops what was found reachable")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the report as JSON")
    form.add_argument("--sarif", action="store_true", help="the findings as SARIF 2.1.0")


def run(args: argparse.Namespace) -> int:
    binary_safe_output()
    if args.list_profiles:
        return _list_profiles(args.json)
    system = _system(args)
    if args.allow is not None:
        return _allow([name for name in args.allow.split(",") if name], system, args.json)
    loaded, log = _loaded(args, system), _log(args)
    if args.save_baseline is not None:
        from kobox.audit.baseline import make_baseline, save_baseline

        save_baseline(make_baseline(loaded, log), args.save_baseline)
        print(f"{args.save_baseline}: {len(loaded)} modules")
        return 0
    extra: list[Finding] = []
    if args.baseline is not None:
        from kobox.audit.baseline import compare, load_baseline

        extra = compare(load_baseline(args.baseline), loaded, log)
    report = audit_system(system, _profiles(args), loaded, extra)
    if args.print_fix:
        return _print_fix(report, system)
    if args.json:
        print_json(report_json(report))
    elif args.sarif:
        from kobox import __version__
        from kobox.depot.sarif import sarif

        print_json(sarif(report.findings, RULES, __version__, system.root))
    else:
        _print_report(report, lint_only=args.lint)
    return 1 if any(finding.severity != "note" for finding in report.findings) else 0


# --- what it is about ------------------------------------------------------------------------------------------------


def _system(args: argparse.Namespace) -> System:
    from kobox.depot.systems import open_system

    root = args.root_option or args.root
    if args.live == (root is not None):
        raise UsageError("say which system: a ROOT directory, or --live for this host")
    opened = open_system("" if args.live else root, args.release, args.cmdline)
    return System(opened.config, opened.tree, opened.root, opened.cmdline)


def _profiles(args: argparse.Namespace) -> list[Profile]:
    if args.lint:
        return []
    return [load_profile(name) for name in args.profile or built_in_profiles()]


def _loaded(args: argparse.Namespace, system: System) -> list[str]:
    from kobox.depot.targets import SysModules

    names = list(SysModules(system.root))
    try:
        listed = Path(f"{system.root}/proc/modules").read_text(errors="surrogateescape")
    except OSError:
        return names
    return sorted({*names, *(line.split()[0] for line in listed.splitlines() if line.strip())})


def _log(args: argparse.Namespace) -> Sequence[str]:
    return args.log.read_text(errors="replace").splitlines() if args.log is not None else ()


# --- showing ---------------------------------------------------------------------------------------------------------


def _list_profiles(as_json: bool) -> int:
    profiles = [load_profile(name) for name in built_in_profiles()]
    if as_json:
        print_json([profile._asdict() | {"modules": [m._asdict() for m in profile.modules]} for profile in profiles])
        return 0
    for profile in profiles:
        print(f"{profile.name:<14} {profile.title}: {', '.join(module.name for module in profile.modules)}")
    return 0


def _allow(names: list[str], system: System, as_json: bool) -> int:
    from kobox.audit.allowlist import allow_list, allow_list_text

    listed = allow_list(names, system)
    if as_json:
        print_json(listed._asdict())
    else:
        sys.stdout.write(allow_list_text(listed, system))
    return 0


def _print_fix(report: Report, system: System) -> int:
    from kobox.audit.fixes import fix_text

    modules = [exposure.module for exposure in report.checked if exposure.state == "module" and exposure.open_ways]
    sys.stdout.write(fix_text(modules, system))
    return 0


def _print_report(report: Report, lint_only: bool) -> None:
    if not lint_only:
        print(f"{report.root}: kernel {report.release}, profiles {', '.join(report.profiles)}\n")
        width = max((len(exposure.module) for exposure in report.checked), default=0)
        for exposure in report.checked:
            why = why_stopped(exposure) if verdict(exposure) == "stopped" else ""
            print(f"  {exposure.module:<{width}}  {verdict(exposure):<10} {why}".rstrip())
        print()
    for finding in report.findings:
        print(finding_line(finding))
    if report.immune and not lint_only:
        print(f"\n'install NAME /bin/false' does not stop these {len(report.immune)} modules; what does:")
        for immune in report.immune:
            print(f"  {immune.module:<24} {'; '.join(immune.stop[1:])}{'' if immune.works else '  (not enough)'}")
    count = dict.fromkeys(("error", "warning", "note"), 0)
    for finding in report.findings:
        count[finding.severity] += 1
    print("\n" + ", ".join(f"{number} {severity}{'s' * (number != 1)}" for severity, number in count.items()))
