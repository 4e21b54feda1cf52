"""Where the kernel headers that modules are built against come from: installed, unpacked anywhere, or from apt.

No privileges are needed. A *root* is a directory that holds ``usr/src/linux-headers-RELEASE``: ``/`` when the packages
are installed, or wherever their ``.deb`` files were unpacked. Debian's headers name each other by absolute paths;
handing ``make`` the common tree's Makefile directly steps around the only one that matters, so an unpacked root can be
used where it is.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class NoHeaders(Exception):
    """No usable kernel headers; the text says what was looked for."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Unpacked or installed kernel headers of one release."""

    root: Path
    release: str

    @property
    def directory(self) -> Path:
        """The tree with this flavour's ``.config``, ``Module.symvers`` and generated files."""
        return self.root / f"usr/src/linux-headers-{self.release}"

    @property
    def makefile(self) -> Path:
        """The Makefile that the one in ``directory`` would include by an absolute path."""
        text = (self.directory / "Makefile").read_text()
        included = re.search(r"^include\s+(/\S+)$", text, re.MULTILINE)
        return self.root / included[1].lstrip("/") if included else self.directory / "Makefile"

    @property
    def compiler(self) -> str:
        """The compiler the kernel was built with if it is here (``gcc-12``), else plain ``gcc``."""
        variables = self.directory / ".kernelvariables"
        named = re.search(r"\b(gcc-\d+)\b", variables.read_text()) if variables.exists() else None
        return named[1] if named and shutil.which(named[1]) else "gcc"

    def missing_programs(self) -> list[str]:
        """What ``make modules`` needs and this machine lacks."""
        return [name for name in ("make", self.compiler, "ld", "strip") if shutil.which(name) is None]

    def made_with(self) -> dict[str, str]:
        """Release and first version line of the tools: modules built with the same ones are the same."""
        tools = {"compiler": self.compiler, "linker": "ld", "strip": "strip"}
        lines = {
            what: subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
            for what, tool in tools.items()
        }
        return {"release": self.release, **lines}

    def make(
        self,
        module_dir: Path,
        flags: Sequence[str] = (),
        variables: Sequence[str] = (),
        jobs: int = 2,
        keep_going: bool = False,
    ) -> str:
        """Run kbuild's ``modules`` target on ``module_dir``, give back what make said; a failure has it too.

        ``flags`` are given to the compiler. Paths of this machine are mapped away, so the output does not depend on
        where headers and sources lie: ``module_dir``'s parent and the root become the empty path. (For ``__FILE__`` in
        headers, kbuild does that itself.)
        """
        maps = [f"-ffile-prefix-map={module_dir.parent}/="]
        if self.root != Path("/"):
            maps.append(f"-fdebug-prefix-map={self.root}=")
        command = [
            *(
                "make",
                f"-j{jobs}",
                *(["-k"] if keep_going else []),
                "-C",
                str(self.directory),
                "-f",
                str(self.makefile),
            ),
            *(f"M={module_dir}", f"CC={self.compiler}", f"KCFLAGS={' '.join([*maps, *flags])}", *variables, "modules"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout + done.stderr


def releases(root: Path) -> list[str]:
    """Releases whose headers are complete below ``root``, newest last."""
    found = []
    for directory in (root / "usr/src").glob("linux-headers-*"):
        release = directory.name.removeprefix("linux-headers-")
        if (directory / "Module.symvers").exists() and Headers(root, release).makefile.exists():
            found.append(release)
    return sorted(found, key=lambda release: [int(number) for number in re.findall(r"\d+", release)])


def find(root: Path, release: str | None = None) -> Headers:
    """The headers of ``release`` below ``root``, or the newest ones."""
    root = root.resolve()
    known = releases(root)
    if release is None and known:
        release = known[-1]
    if release not in known:
        wanted = f"linux-headers-{release}" if release else "linux-headers-*"
        raise NoHeaders(f"no complete {wanted} in {root / 'usr/src'}")
    return Headers(root, release)


def packages(release: str) -> list[str]:
    """Debian's packages with the headers of ``release`` (``6.1.0-56-amd64``) and what they need to build modules."""
    parts = re.fullmatch(r"(?P<abi>(?P<version>\d+\.\d+)\.\S+?)-(?P<flavour>(?:rt-|cloud-)?[a-z0-9]+)", release)
    if not parts:
        raise NoHeaders(f"{release} does not look like a Debian kernel release")
    version, abi, plus = parts["version"], parts["abi"], re.search(r"\+.*$", parts["abi"])
    kbuild = f"linux-kbuild-{abi if plus else version}"
    common = "common-rt" if parts["flavour"].startswith("rt-") else "common"
    return [f"linux-headers-{release}", f"linux-headers-{abi}-{common}", kbuild]


def current_release(flavour: str = "amd64") -> str:
    """The release whose headers apt would install now for this flavour of the kernel."""
    depends = subprocess.run(
        ["apt-cache", "depends", f"linux-headers-{flavour}"], capture_output=True, text=True
    ).stdout
    named = re.search(r"Depends: linux-headers-(\d\S*)", depends)
    if not named:
        raise NoHeaders(f"apt knows no linux-headers-{flavour}; its package lists may be empty")
    return named[1]


def fetch(root: Path, release: str) -> Headers:
    """Download the packages of ``release`` with apt and unpack them below ``root``, unless they are there already."""
    try:
        return find(root, release)
    except NoHeaders:
        pass
    if shutil.which("apt-get") is None:
        raise NoHeaders(f"no headers of {release}, and no apt-get to fetch them with")
    root.mkdir(parents=True, exist_ok=True)
    fetch_packages(packages(release), root)
    return find(root, release)


def fetch_packages(names: Sequence[str], root: Path) -> None:
    """Download Debian packages and unpack them below ``root``, with the machine's package lists or lists of our own."""
    with tempfile.TemporaryDirectory() as scratch:
        downloads = Path(scratch) / "deb"
        downloads.mkdir()
        if _apt([], "download", names, downloads).returncode:
            own = _own_lists(Path(scratch))
            _apt(own, "update", [], downloads)
            done = _apt(own, "download", names, downloads)
            if done.returncode:
                raise NoHeaders(f"apt-get download {' '.join(names)}: {done.stderr.strip()}")
        for package in sorted(downloads.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)


def _apt(options: list[str], command: str, names: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    line = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *options, command, *names]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True)


def _own_lists(scratch: Path) -> list[str]:
    """Options that let ``apt-get update`` work without root: state and cache in a directory of ours."""
    (scratch / "state/lists/partial").mkdir(parents=True)
    (scratch / "cache/archives/partial").mkdir(parents=True)
    options = (
        f"Dir::State={scratch}/state",
        f"Dir::Cache={scratch}/cache",
        "Dir::State::status=/var/lib/dpkg/status",
    )
    return [word for option in options for word in ("-o", option)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which the tools in this folder are told which headers to use."""
    parser.add_argument(
        "--headers", type=Path, default=Path("/"), help="root of installed or unpacked headers (default: /)"
    )
    parser.add_argument("--release", help="kernel release (default: the newest found)")
    parser.add_argument(
        "--fetch", action="store_true", help="download the headers of --release with apt if they are missing"
    )


def from_arguments(args: argparse.Namespace) -> Headers:
    """The headers that the options of ``add_arguments`` ask for."""
    if args.fetch and args.release:
        return fetch(args.headers.resolve(), args.release)
    return find(args.headers, args.release)
