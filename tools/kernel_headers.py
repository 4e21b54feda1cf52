"""What the tools of this folder need beyond ``kobox.build``: modules that are equal wherever they are built.

A *root* is a directory that has headers as ``kobox build --headers`` takes one: ``/`` when the packages are installed,
or wherever their ``.deb`` files were unpacked.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kobox.build.compiler import find_compiler
from kobox.build.headers import Headers, find_headers
from kobox.build.kbuild import make_command
from kobox.errors import UsageError


def made_with(headers: Headers) -> dict[str, str]:
    """Release and first version line of the tools: modules built with the same ones are the same."""
    tools = {"linker": "ld", "strip": "strip"}
    lines = {
        what: subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        for what, tool in tools.items()
    }
    return {"release": headers.release, "compiler": find_compiler(headers).version, **lines}


def make_modules(
    headers: Headers,
    module_dir: Path,
    flags: Sequence[str] = (),
    variables: Sequence[str] = (),
    jobs: int = 2,
    keep_going: bool = False,
) -> str:
    """Run kbuild's ``modules`` target on ``module_dir``, give back what make said; a CalledProcessError has it too.

    ``flags`` are given to the compiler. Paths of this machine are mapped away, so the output does not depend on where
    headers and sources lie: ``module_dir``'s parent and the headers' root become the empty path. (For ``__FILE__`` in
    headers, kbuild does that itself.)
    """
    maps = [f"-ffile-prefix-map={module_dir.parent}/="]
    root = str(headers.directory).partition("/usr/src/")[0]
    if root:
        maps.append(f"-fdebug-prefix-map={root}=")
    command = make_command(
        headers, find_compiler(headers), module_dir, sources=module_dir, jobs=jobs,
        variables=[f"KCFLAGS={' '.join([*maps, *flags])}", *variables],
    )  # fmt: skip
    if keep_going:
        command.insert(1, "-k")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def releases(root: Path) -> list[str]:
    """Releases that have headers below ``root``, newest last."""
    found = [path.name.removeprefix("linux-headers-") for path in (root / "usr/src").glob("linux-headers-*")]
    complete = [release for release in found if _prepared(root, release)]
    return sorted(complete, key=lambda release: [int(number) for number in re.findall(r"\d+", release)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which the tools in this folder are told which headers to use."""
    parser.add_argument(
        "--headers", type=Path, default=Path("/"), help="root of installed or unpacked headers (default: /)"
    )
    parser.add_argument("--release", help="kernel release (default: the newest found)")
    parser.add_argument("--fetch", action="store_true", help="take the headers of --release from apt if it must be")


def from_arguments(args: argparse.Namespace) -> Headers:
    """The headers that the options of ``add_arguments`` ask for; UsageError when they are not there."""
    known = releases(args.headers)
    if args.fetch and args.release and args.release not in known:
        return find_headers(args.release)
    if not args.release and not known:
        raise UsageError(f"no kernel headers in {args.headers / 'usr/src'}")
    return find_headers(args.release or known[-1], given=args.headers)


def _prepared(root: Path, release: str) -> bool:
    try:
        find_headers(release, given=root)
    except UsageError:
        return False
    return True
