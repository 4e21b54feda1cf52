"""Kernel packages through apt, without root: ``apt-get download``, checked by the signatures of its archive.

The host's own package lists serve when they know the package. Else, and for another suite, apt runs on a state of its
own in a temporary directory: the host's mirror and Debian's keyring, nothing of the host's state is written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kobox.errors import KoboxError, NotModelled, UsageError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
SNAPSHOTS = "http://snapshot.debian.org/archive"
"""Debian's archive as it was at any time: what suites have dropped since."""
DEFAULT_FLAVOUR = "amd64"
HOST_SOURCES = "the host's apt sources"

_SUITE = re.compile(r"[a-z][a-z0-9-]*(@\d{8}(T\d{6}Z)?)?")
_RELEASE = re.compile(r"[a-z0-9][a-zA-Z0-9.+~-]*")
_IMAGE = "linux-image-"


@dataclass(frozen=True, slots=True)
class Download:
    """Packages in a directory. ``release`` is what the image package is named after; ``origin`` where it came from."""

    release: str
    files: tuple[Path, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Apt:
    """apt with its options: the host's, or one with a state of its own."""

    options: tuple[str, ...]
    origin: str

    def run(self, tool: str, *args: str, folder: Path | None = None) -> str:
        """Output of apt-get or apt-cache; KoboxError with its own last words when it fails."""
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            [tool, *self.options, *args], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("E: ")] or [f"exit {done.returncode}"]
            raise KoboxError(f"{tool} {args[0]}: {lines[-1].removeprefix('E: ')}")
        return done.stdout

    def fields(self, package: str) -> dict[str, str] | None:
        """Control fields of the candidate version, None when the lists know no such package."""
        try:
            text = self.run("apt-cache", "show", "--no-all-versions", package)
        except KoboxError:
            return None
        pairs = (line.partition(": ") for line in text.split("\n\n")[0].splitlines() if line[:1] not in (" ", ""))
        return {name: value for name, _, value in pairs}


def download(
    release: str | None, folder: Path, *, suite: str | None, headers: bool, progress: Callable[[str], None]
) -> Download:
    """Fetch a kernel's packages into ``folder``: of a release, a flavour (``rt-amd64``), or the suite's current one."""
    _need_apt()
    wanted = release or DEFAULT_FLAVOUR
    if not _RELEASE.fullmatch(wanted) or (suite is not None and not _SUITE.fullmatch(suite)):
        raise UsageError(f"{wanted!r} or {suite!r} is no release or suite of Debian")
    apt, image = _apt_that_knows(wanted, folder, suite, progress)
    packages = [image, *_parts_of(apt, image)]
    if headers:
        packages += _headers_of(apt, image)
    return _fetch(apt, image, packages, folder, progress)


def download_headers(release: str, folder: Path, *, suite: str | None, progress: Callable[[str], None]) -> Download:
    """Fetch the packages that modules of ``release`` are built against: headers, their common part, kbuild's programs.
    UsageError when the suite (None: the host's own sources) has none of that release."""
    if not _RELEASE.fullmatch(release) or (suite is not None and not _SUITE.fullmatch(suite)):
        raise UsageError(f"{release!r} or {suite!r} is no release or suite of Debian")
    image = f"{_IMAGE}{release}"
    apt = _apt_with(f"linux-headers-{release}", folder, suite, progress)
    return _fetch(apt, image, _headers_of(apt, image), folder, progress)


def download_packages(
    names: Sequence[str], folder: Path, *, suite: str | None = None, progress: Callable[[str], None]
) -> tuple[Path, ...]:
    """Fetch packages by name into ``folder``; UsageError when the suite has not the first of them."""
    apt = _apt_with(names[0], folder, suite, progress)
    return _fetch(apt, names[0], names, folder, progress).files


def _apt_with(package: str, folder: Path, suite: str | None, progress: Callable[[str], None]) -> Apt:
    """apt that knows the package: on the host's lists, or on lists of its own."""
    _need_apt()
    apt = Apt((), HOST_SOURCES)
    if suite is not None or apt.fields(package) is None:
        progress(f"reading package lists of {f'suite {suite}' if suite else HOST_SOURCES}")
        apt = _own_apt(folder / "apt", suite)
        apt.run("apt-get", "-q", "update")
    if apt.fields(package) is None:
        raise UsageError(f"{apt.origin} has no package {package}")
    return apt


def suite_of(source: str) -> str | None:
    """The suite named in an image's ``source``, where it came from one that is not the host's own."""
    found = re.search(r"\(Debian (\S+) from ", source)
    return found[1] if found else None


def _need_apt() -> None:
    for tool in ("apt-get", "apt-cache"):
        if shutil.which(tool) is None:
            raise NotModelled(f"--debian needs {tool}, which this machine lacks", "give .deb files or an unpacked root")


def _fetch(apt: Apt, image: str, packages: Sequence[str], folder: Path, progress: Callable[[str], None]) -> Download:
    for package in packages:
        size = int((apt.fields(package) or {}).get("Size", "0"))
        progress(f"downloading {package} ({size / 1e6:.0f} MB)")
        apt.run("apt-get", "-q", "download", package, folder=folder)
    files = tuple(sorted(folder.glob("*.deb")))
    return Download(image.removeprefix(_IMAGE).removesuffix("-unsigned"), files, apt.origin)


def _apt_that_knows(wanted: str, folder: Path, suite: str | None, progress: Callable[[str], None]) -> tuple[Apt, str]:
    host = Apt((), HOST_SOURCES)
    if suite is None and (image := _resolve(host, wanted)):
        return host, image
    where = f"suite {suite}" if suite else HOST_SOURCES
    progress(f"reading package lists of {where}")
    own = _own_apt(folder / "apt", suite)
    own.run("apt-get", "-q", "update")
    image = _resolve(own, wanted)
    if image is None:
        hint = f"there: {', '.join(_available(own)) or 'no kernel'}" + (
            "" if suite else "; --suite names another suite"
        )
        raise UsageError(f"{where}: no package {_IMAGE}{wanted}", hint)
    return own, image


def _resolve(apt: Apt, wanted: str) -> str | None:
    """The package with the kernel in it: itself, what a metapackage depends on, or its unsigned form."""
    for name in (f"{_IMAGE}{wanted}", f"{_IMAGE}{wanted}-unsigned"):
        for _ in range(3):
            fields = apt.fields(name)
            if fields is None:
                break
            inner = [part for part in _depends(fields) if part.startswith(_IMAGE)]
            if not inner:
                return name
            name = inner[0]
    return None


def _parts_of(apt: Apt, image: str) -> list[str]:
    """Packages that newer suites split off the image: kernel file, modules, configuration of the same release."""
    release = image.removeprefix(_IMAGE).removesuffix("-unsigned")
    names = _depends(apt.fields(image) or {})
    return [
        name for name in names if name.startswith("linux-") and name.removesuffix("-unsigned").endswith(f"-{release}")
    ]


def _headers_of(apt: Apt, image: str) -> list[str]:
    first = "linux-headers-" + image.removeprefix(_IMAGE).removesuffix("-unsigned")
    fields = apt.fields(first)
    if fields is None:
        raise UsageError(f"no package {first}", "leave out --headers")
    return [first, *(part for part in _depends(fields) if part.startswith(("linux-headers-", "linux-kbuild-")))]


def _depends(fields: dict[str, str]) -> list[str]:
    text = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
    return [part.split("|")[0].split("(")[0].split(":")[0].strip() for part in text.split(",") if part.strip()]


def _available(apt: Apt) -> Sequence[str]:
    names = apt.run("apt-cache", "pkgnames", _IMAGE).split()
    plain = sorted(name.removeprefix(_IMAGE) for name in names if not name.endswith(("-dbg", "-unsigned")))
    return [name for name in plain if name[0].isdigit()][-6:]


def _own_apt(folder: Path, suite: str | None) -> Apt:
    """apt with its state in ``folder``: the host's sources, or one suite of Debian's from the host's mirror."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    options = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    if suite is not None:
        sources = folder / "sources.list"
        sources.write_text(_sources(suite))
        options |= {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null"}
    origin = f"Debian {suite} from {SNAPSHOTS if '@' in suite else _mirror()}" if suite else HOST_SOURCES
    return Apt(tuple(part for name, value in options.items() for part in ("-o", f"{name}={value}")), origin)


def _sources(suite: str) -> str:
    if not KEYRING.is_file():
        raise NotModelled("Debian's archive keyring is not on this machine", "install debian-archive-keyring")
    suite, _, day = suite.partition("@")
    options = f"signed-by={KEYRING} arch=amd64"
    if day:
        stamp = day if "T" in day else f"{day}T000000Z"
        mirror, security = f"{SNAPSHOTS}/debian/{stamp}", f"{SNAPSHOTS}/debian-security/{stamp}"
        options += " check-valid-until=no"
    else:
        mirror = _mirror()
        security = mirror.rsplit("/", 1)[0] + "/debian-security"
    lines = [f"deb [{options}] {mirror} {suite} main"]
    if suite not in ("sid", "unstable", "experimental") and "-" not in suite:
        lines.append(f"deb [{options}] {mirror} {suite}-updates main")
        lines.append(f"deb [{options}] {security} {suite}-security main")
    return "\n".join(lines) + "\n"


def _mirror() -> str:
    """The mirror that the host's own sources name for Debian."""
    folder = Path("/etc/apt")
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        found = re.search(r"(?m)^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(https?://\S+/debian)/?(?:\s|$)", text)
        if found:
            return found[1]
    return MIRROR
